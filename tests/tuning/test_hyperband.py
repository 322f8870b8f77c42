"""Hyperband: what goes on does so exactly, and only what came to its end can win."""

import csv
import json
import os
import signal
import subprocess
import time

import pytest

import tl_toolkit as tl
from tests.command import TLTOOL, tltool
from tests.conftest import draw_class_folders
from tl_toolkit.errors import RecipeError, SearchError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.space import count_trials, plan_brackets, trial_recipe
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.search_schema import Dimension, Search
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.phase import PhaseRun
from tl_toolkit.tuning.oracle import Chooser

SPACE = {
    "model.head.dropout": {"choices": [0.0, 0.3, 0.6]},
    "phases.tune.learning_rate": {"min": 1e-4, "max": 1e-2, "sampling": "log"},
}
EPOCHS = 4  # with a factor of 2: (4 of 1, 2 of 2, 1 of 4), (3 of 2, 2 of 4) and 3 of 4 epochs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all", count=9)


@pytest.fixture
def recipe(photos):
    return make_recipe(photos)


@pytest.fixture(scope="module")
def counted(photos, tmp_path_factory):
    """A search from its first trial to its last, and the phase of each epoch that it trained."""
    trained, train = [], PhaseRun._train_epoch

    def count(self, *rest):
        trained.append(self._phase.name)
        return train(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhaseRun, "_train_epoch", count)
        search = tl.search(make_recipe(photos), out=tmp_path_factory.mktemp("whole") / "search")
    return search, trained


@pytest.fixture(scope="module")
def whole(counted):
    """The search, for tests that only read it."""
    return counted[0]


def make_recipe(photos):
    """LeNet-5 on photos: 3 classes of 7 and 2 images, two phases with dropout, and a search."""
    return {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 32, "batch_size": 8},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [
            {"name": "head", "epochs": 1, "learning_rate": 1e-3},
            {"name": "tune", "epochs": EPOCHS, "unfreeze": 2},
        ],
        "search": {
            "algorithm": "hyperband", "factor": 2, "objective": "val_loss", "space": SPACE
        },
        "early_stopping": {"monitor": "val_loss", "patience": 50},
    }  # fmt: skip


def propose_all(search, epochs, score, space=None):
    """Goes through a search; returns proposals and scores."""
    space = space or {"a": Dimension(min=0.0, max=1.0)}
    chooser = Chooser(search, space, epochs=epochs)
    actual = []
    while (proposal := chooser.propose()) is not None:
        actual.append((proposal, score(proposal)))
        chooser.report(*actual[-1])
    chooser.close()
    return actual


def without_times(trials):
    return [(one.number, one.state, one.score, one.values, one.best, one.weights_sha256,
             one.budget, one.continues) for one in trials]  # fmt: skip


@pytest.mark.parametrize(("epochs", "factor"), [(4, 2), (10, 3), (27, 3), (3, 3), (81, 4)])
def test_brackets_are_known_without_keras_tuner(epochs, factor):
    search = Search(algorithm="hyperband", factor=factor)

    actual = propose_all(search, epochs, score=lambda proposal: proposal.values["a"])

    budgets = [proposal.budget or epochs for proposal, _ in actual]
    planned = plan_brackets(epochs, factor)
    assert budgets == [
        until for rungs in planned for trials, until in rungs for _ in range(trials)
    ]  # fmt: skip
    assert [proposal.number for proposal, _ in actual] == list(range(1, len(actual) + 1))


def test_the_best_of_a_rung_go_on_with_their_values():
    search = Search(algorithm="hyperband", factor=3)

    actual = propose_all(search, 9, score=lambda proposal: proposal.values["a"])

    first = [proposal for proposal, _ in actual[:9]]
    assert all(one.continues is None and one.budget == 1 for one in first)
    best = sorted(first, key=lambda one: one.values["a"], reverse=True)[:3]
    second = [proposal for proposal, _ in actual[9:12]]
    assert [one.continues for one in second] == [one.number for one in best]
    assert [one.values for one in second] == [one.values for one in best]
    assert {one.budget for one in second} == {3}


def test_what_failed_does_not_go_on_and_keeps_nothing_else_from_it():
    search = Search(algorithm="hyperband", factor=3)

    actual = propose_all(
        search, 9, score=lambda one: None if one.number <= 8 else one.values["a"]
    )  # fmt: skip

    failed = {proposal.number for proposal, score in actual if score is None}
    gone_on = [proposal for proposal, _ in actual if proposal.continues]
    assert failed == set(range(1, 9))
    assert not failed & {one.continues for one in gone_on}
    assert [one.budget for one in gone_on[:2]] == [3, None]  # the ninth alone, to its end


def test_a_search_in_which_all_fail_ends():
    actual = propose_all(Search(algorithm="hyperband"), 9, score=lambda _: None)

    assert all(proposal.continues is None for proposal, _ in actual)


def test_more_trials_than_a_round_has_begin_another():
    one_round = propose_all(Search(algorithm="hyperband"), 3, score=lambda one: one.values["a"])

    search = Search(algorithm="hyperband", trials=len(one_round) + 3)
    actual = propose_all(search, 3, score=lambda one: one.values["a"])

    assert [one for one, _ in actual[: len(one_round)]] == [one for one, _ in one_round]
    assert len(actual) == len(one_round) + 3


def test_equal_seeds_and_scores_give_equal_trials():
    def choose(seed):
        search = Search(algorithm="hyperband", seed=seed)
        return propose_all(search, 9, score=lambda one: one.values["a"])

    assert choose(0) == choose(0) != choose(1)


def test_a_small_space_is_gone_through_though_draws_collide():
    space = {"a": Dimension(min=1, max=5), "b": Dimension(min=1, max=2)}

    actual = propose_all(Search(algorithm="hyperband"), 9, lambda one: one.values["a"], space)

    assert len({json.dumps(one.values) for one, _ in actual}) == 10
    assert sum(one.budget is None for one, _ in actual) >= 1


@pytest.mark.slow
def test_the_winner_and_all_that_ended_are_what_finetune_makes_of_them(tmp_path, whole):
    tltool("finetune", whole.best_recipe, "export=false", "--out", "run", cwd=tmp_path)
    loaded = tl.load_recipe(whole.folder.recipe).recipe

    best = whole.summary["best"]
    metrics = tl.load_run(tmp_path / "run").metrics
    assert metrics["weights_sha256"] == best["weights_sha256"]
    assert metrics["best"] == best["best"]
    assert metrics["best"]["val_loss"] == best["score"]
    ended = [trial for trial in whole.trials if trial.state == "completed"]
    assert best["score"] == min(trial.score for trial in ended)
    promoted = [trial for trial in ended if trial.continues]
    assert len(ended) == 6 and len(promoted) == 3 and len(whole.trials) == 15
    assert max(one.best["epoch"] for one in promoted) > 2  # the epochs after a pause count
    for trial in promoted[:1]:
        assert_finetune_repeats(trial, loaded, tmp_path)


@pytest.mark.slow
def test_so_are_all_that_went_on_after_a_pause(tmp_path, whole):
    loaded = tl.load_recipe(whole.folder.recipe).recipe

    for trial in whole.trials:
        if trial.continues and trial.state == "completed":
            assert_finetune_repeats(trial, loaded, tmp_path)


def assert_finetune_repeats(trial, loaded, tmp_path):
    one = trial_recipe(loaded, trial.values)
    run = tl.finetune(one, overrides=["export=false"], out=tmp_path / str(trial.number))
    assert run.metrics["weights_sha256"] == trial.weights_sha256
    assert run.metrics["best"] == trial.best


@pytest.mark.slow
def test_a_paused_trial_is_not_the_winner_and_is_shown_as_paused(whole):
    with open(whole.path / "trials.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows[:7]] == ["paused"] * 6 + ["completed"]
    assert [row["budget"] for row in rows[:7]] == ["1"] * 4 + ["2"] * 2 + [""]
    assert rows[6]["continues"] in ("5", "6") and not rows[0]["continues"]
    assert whole.summary["paused"] == 9 and whole.summary["failed"] == 0
    assert whole.summary["best"]["state"] == "completed"
    assert "</svg>" in (whole.path / "fields.svg").read_text()
    assert len(list(whole.folder.tensorboard.glob("*/events*"))) == 6


@pytest.mark.slow
def test_each_epoch_is_trained_once(counted):
    _, trained = counted

    assert trained.count("tune") == (4 * 1 + 2 * 1 + 1 * 2) + (3 * 2 + 2 * 2) + 3 * 4
    assert trained.count("head") == 3  # once for each dropout


@pytest.mark.slow
def test_a_hyperband_goes_on_where_it_stopped_without_the_states(
    tmp_path, recipe, whole, monkeypatch
):
    from tl_toolkit.tuning import trial_runner

    def stop(event):
        if event.kind == "trial_ended" and event.facts["number"] in (5, 9):
            raise KeyboardInterrupt

    monkeypatch.setattr(trial_runner, "_PAUSED_BYTES", 0)  # and none is kept for later either
    with pytest.raises(KeyboardInterrupt):
        tl.search(recipe, out=tmp_path / "search", progress=stop)
    with pytest.raises(KeyboardInterrupt):
        tl.search(recipe, out=tmp_path / "search", resume=True, progress=stop)
    actual = tl.search(recipe, out=tmp_path / "search", resume=True)

    assert without_times(actual.trials) == without_times(whole.trials)
    assert actual.best_recipe.read_text() == whole.best_recipe.read_text()


@pytest.mark.slow
def test_a_hyperband_that_is_killed_goes_on(tmp_path, recipe):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    whole = tl.search(path, out=tmp_path / "whole")
    command = [TLTOOL, "search", str(path), "--out", str(tmp_path / "search")]
    trials = tmp_path / "search" / "trials"

    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while len(list(trials.glob("[0-9]*.json"))) < 5 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    done = subprocess.run(
        [*command, "--resume", "--json"],
        capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    actual = tl.SearchRun(RunFolder(tmp_path / "search"))
    assert without_times(actual.trials) == without_times(whole.trials)
    assert "after epoch 2" in done.stderr and "(resumes " in done.stderr


@pytest.mark.slow
def test_a_trial_that_stopped_early_has_ended_and_is_not_trained_again(tmp_path, recipe):
    recipe["early_stopping"] = {"monitor": "val_loss", "patience": 1, "min_delta": 1e6}

    actual = tl.search(recipe, out=tmp_path / "search")

    assert {trial.state for trial in actual.trials} == {"completed"}
    again = [trial for trial in actual.trials if trial.continues]
    assert again and all(trial.seconds == 0 for trial in again)
    for trial in again:
        before = actual.trials[trial.continues - 1]
        assert trial.weights_sha256 == before.weights_sha256 and trial.score == before.score


@pytest.mark.slow
def test_a_hyperband_in_which_all_fail_is_exit_code_5(tmp_path, recipe):
    recipe["phases"][1] |= {"optimizer": "sgd"}
    recipe["search"]["space"] = {"phases.tune.learning_rate": {"min": 1e37, "max": 1e38}}

    with pytest.raises(SearchError, match=r"trials was completed(.|\n)*phase 'tune'") as e:
        tl.search(recipe, out=tmp_path / "search")

    assert e.value.exit_code == 5


def recipe_of(epochs=10, **search):
    return build_recipe(
        {
            "version": 1,
            "name": "digits",
            "data": {"builtin": "digits", "image_size": 32},
            "model": {"base": "lenet5", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}, {"name": "tune", "epochs": epochs}],
            "search": {"algorithm": "hyperband", **search},
        }
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2}, "expected a last phase of at least 3 epochs (.|\n)*got 2"),
        ({"trials": 5}, r"search\.trials = 5(.|\n)*at least 18: hyperband begins with 12 trials "),
        (
            {"space": {"model.head.dropout": {"choices": [0.1, 0.2]}}},
            "2 combinations(.|\n)*at least 12: hyperband begins with 12 trials of 2 epochs, then 4",
        ),
        (
            {"space": {"phases.tune.epochs": {"min": 5, "max": 60}}},
            "hyperband itself decides how long the last phase is",
        ),
    ],
)
def test_a_hyperband_that_could_not_be_is_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        check_recipe(recipe_of(**changes))


def test_a_factor_is_hyperbands_alone():
    with pytest.raises(
        RecipeError, match="expected 3 or algorithm: hyperband, got 4 with 'random'"
    ):
        recipe_of(algorithm="random", factor=4)
    assert recipe_of(algorithm="random", factor=3).recipe.search.factor == 3


def test_epochs_of_earlier_phases_may_be_searched():
    space = {"phases.head.epochs": {"min": 1, "max": 60}}

    summary = check_recipe(recipe_of(space=space))

    assert "search   30 trials over phases.head.epochs" in summary.describe()


@pytest.mark.parametrize(
    ("search", "count"), [({}, 30), ({"trials": 20}, 20), ({"factor": 10}, 13)]
)
def test_the_number_of_trials_is_known(search, count):
    assert count_trials(recipe_of(**search).recipe) == count
