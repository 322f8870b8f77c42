"""Trials that run several at a time are those of one process, whichever ends first."""

import csv

import pytest

import tl_toolkit as tl
from tests.conftest import draw_class_folders
from tests.tuning.test_oracle import SPACE
from tests.tuning.test_search import leave_out_plots, recipe_of
from tl_toolkit.api.base import reading_recipe
from tl_toolkit.api.search import Searching, open_search
from tl_toolkit.errors import RecipeError
from tl_toolkit.events import ignore
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.tuning.oracle import Chooser


class LastFirst:
    """A cluster in this process, which runs the task that came last first.

    Args:
        workers: How many tasks are open at a time.
        until: Number of tasks after which the driver is interrupted.
    """

    def __init__(self, workers, until=None):
        self.workers = workers
        self.ran = []
        self._until = until
        self._open = []

    def share(self, value):
        return value

    def submit(self, key, work, *arguments):
        self._open.append((key, work, arguments))
        assert len(self._open) <= self.workers

    def next(self):
        if len(self.ran) == self._until:
            raise KeyboardInterrupt
        key, work, arguments = self._open.pop()
        self.ran.append(key)
        return key, work(*arguments)


def choose_together(search, workers, space=SPACE, epochs=9):
    """Goes through a search of which so many trials are open at a time; the last one ends first."""
    chooser = Chooser(search, space, epochs=epochs)
    proposals, running, ended = [], [], {}
    reported = most = 0
    while True:
        while len(running) < workers and (proposal := chooser.propose()) is not None:
            proposals.append(proposal)
            running.append(proposal)
        if not running:
            chooser.close()
            return proposals, most
        most = max(most, len(running))
        proposal = running.pop()
        dropout, rate = (proposal.values[f"{name}"] for name in list(space)[::2])
        ended[proposal.number] = proposal, None if proposal.number == 3 else dropout - rate
        while reported + 1 in ended:
            reported += 1
            chooser.report(*ended[reported])


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"algorithm": "random", "trials": 12}, 5),
        pytest.param(
            {"algorithm": "bayesian", "trials": 12, "batch": 3}, 3, marks=pytest.mark.slow
        ),
        pytest.param({"algorithm": "bayesian", "trials": 11}, 1, marks=pytest.mark.slow),
        ({"algorithm": "tpe", "trials": 20, "batch": 3}, 3),
        ({"algorithm": "hyperband"}, 5),
    ],
)
def test_trials_do_not_depend_on_how_many_run_at_a_time(settings, most):
    search = Search(seed=4, **settings)

    one_by_one, _ = choose_together(search, 1)
    together, open_at_most = choose_together(search, 5)

    assert together == one_by_one
    assert open_at_most == most


def test_a_grid_needs_no_score_to_go_on():
    space = {name: SPACE[name] for name in list(SPACE)[:2]}
    space["b"] = space["model.head.dropout"]

    one_by_one, _ = choose_together(Search(algorithm="grid", trials=20), 1, space)
    together, open_at_most = choose_together(Search(algorithm="grid", trials=20), 20, space)

    assert together == one_by_one
    assert open_at_most == len(together) == 20


def test_a_batch_is_refused_where_trials_run_together_anyway():
    recipe = recipe_of("photos") | {"search": {"algorithm": "grid", "batch": 4}}

    with pytest.raises(
        RecipeError, match="expected 1 or algorithm: bayesian or tpe, got 4 with 'grid'"
    ):
        with reading_recipe(recipe):
            pass


def rows_of(search):
    """The rows of trials.csv without the two columns that hold times."""
    with open(search.path / "trials.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: row[name] for name in row if name not in ("seconds", "elapsed")} for row in rows]


def search_on(cluster, recipe, out, *, resume=False):
    with reading_recipe(recipe) as loaded:
        plan = check_recipe(loaded)
        with open_search(
            plan.recipe.name, out.parent, out, resume=resume, overwrite=False
        ) as folder:
            return Searching(plan, folder, ignore, cluster=cluster).run(None)


@pytest.fixture(autouse=True, scope="module")
def unplotted():
    """Searches draw no plots: what workers change is read from the tables."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_plots(patch)
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    recipe = recipe_of(draw_class_folders(tmp_path_factory.mktemp("photos"), count=9))
    recipe["search"] = {"trials": 3, "space": {"model.head.dropout": [0.0, 0.3, 0.6]}}
    recipe["phases"] = [phase | {"epochs": 1} for phase in recipe["phases"]]
    return recipe


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    """The same search in one process, one trial after the other."""
    return tl.search(recipe, overrides={"search.refit": 1}, out=tmp_path_factory.mktemp("a") / "s")


@pytest.mark.slow
def test_two_workers_make_the_table_of_one_process(tmp_path, recipe, alone):
    recipe = recipe | {"search": recipe["search"] | {"refit": 1}}
    cluster = LastFirst(workers=2)

    search = search_on(cluster, recipe, tmp_path / "search")

    assert cluster.ran[:3] == [2, 3, 1]  # not in the order of their numbers
    assert rows_of(search) == rows_of(alone)
    assert search.summary["refit"] == alone.summary["refit"]
    assert search.best_recipe.read_text() == alone.best_recipe.read_text()


@pytest.mark.slow
def test_trials_that_ended_before_an_interrupt_are_not_trained_again(tmp_path, recipe, alone):
    out = tmp_path / "search"
    with pytest.raises(KeyboardInterrupt):
        search_on(LastFirst(workers=2, until=1), recipe, out)  # 2 has ended, 1 not
    cluster = LastFirst(workers=1)

    search = search_on(cluster, recipe, out, resume=True)

    assert cluster.ran == [1, 3]
    assert rows_of(search) == rows_of(alone)


@pytest.mark.slow
def test_a_tpe_search_of_three_workers_is_that_of_one_process(tmp_path, recipe):
    rate = {"min": 1e-4, "max": 1e-2, "sampling": "log"}
    settings = {
        "algorithm": "tpe", "trials": 14, "batch": 3,
        "space": {"phases.tune.learning_rate": rate},
    }  # fmt: skip
    recipe = recipe | {"search": recipe["search"] | settings}
    alone = tl.search(recipe, out=tmp_path / "alone")
    out = tmp_path / "search"
    with pytest.raises(KeyboardInterrupt):
        search_on(LastFirst(workers=3, until=12), recipe, out)

    search = search_on(LastFirst(workers=3), recipe, out, resume=True)

    assert rows_of(search) == rows_of(alone)
    assert len(rows_of(search)) == 14


def test_workers_without_a_cluster_are_refused(tmp_path, recipe):
    with pytest.raises(RecipeError, match="goes with a cluster"):
        tl.search(recipe, out=tmp_path / "search", workers=2)
    assert not (tmp_path / "search").exists()
