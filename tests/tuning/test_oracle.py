"""The oracles behind one adapter: deterministic, unmoved by failures, gone through to the end."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tl_toolkit.recipe.search_schema import Dimension, Search
from tl_toolkit.tuning.hyperparameters import read_values, register_space, write_values
from tl_toolkit.tuning.oracle import Chooser

SPACE = {
    "model.head.dropout": Dimension(min=0.0, max=0.6, step=0.1),
    "phases.tune.unfreeze": Dimension(choices=(0, {"from": "a"}, {"from": "b"})),
    "phases.tune.learning_rate": Dimension(min=1e-5, max=1e-3, sampling="log"),
}


def choose(search, space=SPACE, score=lambda proposal: proposal.values["model.head.dropout"]):
    """Goes through a search; returns the values of every trial."""
    chooser = Chooser(search, space)
    actual = []
    while (proposal := chooser.propose()) is not None:
        actual.append(dict(proposal.values))
        chooser.report(proposal, score(proposal))
    chooser.close()
    return actual


def choose_each(seed=0):
    """By the algorithms that draw, as what JSON makes of their trials."""
    return {
        algorithm: json.loads(json.dumps(choose(Search(algorithm=algorithm, trials=14, seed=seed))))
        for algorithm in ("random", "bayesian", "tpe")
    }


@pytest.mark.slow
def test_equal_seeds_and_scores_give_equal_trials_in_every_process():
    code = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        "import test_oracle as t; print(json.dumps(t.choose_each()))"
    )

    here = choose_each()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert here == json.loads(there.stdout)
    assert {len(trials) for trials in here.values()} == {14}
    # Trials of a Bayesian search are drawn alike until it has seen enough of them.
    assert choose(Search(trials=14, seed=1)) != choose(Search(trials=14))
    assert choose(Search(algorithm="bayesian", trials=2, seed=1)) != here["bayesian"][:2]
    assert choose(Search(algorithm="tpe", trials=2, seed=1)) != here["tpe"][:2]


def test_values_are_those_that_a_recipe_has():
    actual = choose(Search(trials=30))

    assert {trial["model.head.dropout"] for trial in actual} <= {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6}
    assert {json.dumps(trial["phases.tune.unfreeze"]) for trial in actual} == {
        "0", '{"from": "a"}', '{"from": "b"}'
    }  # fmt: skip
    assert all(1e-5 <= trial["phases.tune.learning_rate"] <= 1e-3 for trial in actual)


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "tpe", "grid"])
def test_failures_end_no_search_and_are_not_tried_again(algorithm):
    space = {"a": Dimension(min=0, max=4), "b": Dimension(choices=(True, False))}

    actual = choose(Search(algorithm=algorithm, trials=10), space, score=lambda _: None)

    assert len(actual) == 10
    assert len({json.dumps(trial) for trial in actual}) == 10


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "tpe"])
@pytest.mark.parametrize(
    "dimension",
    [
        Dimension(choices=(0, 1, 2)),
        Dimension(choices=(0, {"from": "a"}, None)),
        Dimension(min=0.1, max=0.3, step=0.1),
        Dimension(min=1e-3, max=1e-1, step=10, sampling="log"),
    ],
)
def test_a_finite_space_is_exhausted_once(algorithm, dimension):
    actual = choose(
        Search(algorithm=algorithm, trials=12), {"a": dimension}, score=lambda trial: trial.number
    )

    assert len(actual) == 3
    assert sorted(json.dumps(trial["a"]) for trial in actual) == sorted(
        map(json.dumps, dimension.values)
    )


@pytest.mark.parametrize("algorithm", [pytest.param("bayesian", marks=pytest.mark.slow), "tpe"])
def test_a_model_of_scores_tries_no_combination_twice(algorithm):
    space = {"a": Dimension(min=0, max=4), "b": Dimension(choices=("x", "y", "z"))}

    actual = choose(
        Search(algorithm=algorithm, trials=15), space, score=lambda trial: trial.values["a"]
    )

    assert len({json.dumps(trial) for trial in actual}) == len(actual) == 15


def test_a_grid_goes_through_every_value_the_last_field_fastest():
    space = {"a": Dimension(min=0.0, max=0.4, step=0.2), "b": Dimension(min=1, max=2)}

    actual = choose(Search(algorithm="grid"), space, score=lambda proposal: proposal.values["b"])

    assert [(trial["a"], trial["b"]) for trial in actual] == [
        (0.0, 1), (0.0, 2), (0.2, 1), (0.2, 2), (0.4, 1), (0.4, 2)
    ]  # fmt: skip


def test_a_space_that_is_used_up_ends_the_search():
    actual = choose(Search(trials=50), {"a": Dimension(choices=(1, 2, 3))}, score=lambda _: 1.0)

    assert sorted(trial["a"] for trial in actual) == [1, 2, 3]


@pytest.mark.parametrize(
    ("algorithm", "trials"),  # the first ten of tpe are random
    [pytest.param("bayesian", 20, marks=pytest.mark.slow), ("tpe", 30)],
)
@pytest.mark.parametrize(("objective", "wanted"), [("val_accuracy", 1.0), ("val_loss", 0.0)])
def test_a_model_of_scores_goes_where_they_are_better(algorithm, trials, objective, wanted):
    space = {"a": Dimension(min=0.0, max=1.0)}
    search = Search(algorithm=algorithm, trials=trials, objective={"name": objective})

    actual = choose(search, space, score=lambda proposal: proposal.values["a"])

    late = [trial["a"] for trial in actual[trials // 2 :]]
    assert sum(abs(value - wanted) for value in late) / len(late) < 0.25


@pytest.mark.parametrize(
    "algorithm", ["random", pytest.param("bayesian", marks=pytest.mark.slow), "tpe"]
)
def test_a_resumed_search_proposes_what_it_would_have(algorithm):
    search = Search(algorithm=algorithm, trials=14)
    whole = choose(search)

    chooser = Chooser(search, SPACE)
    again = []
    for number in range(1, 13):  # of which a new process reads the scores
        proposal = chooser.propose()
        again.append(proposal.values)
        chooser.report(proposal, whole[number - 1]["model.head.dropout"])
    rest = [chooser.propose()]
    chooser.report(rest[0], rest[0].values["model.head.dropout"])
    rest.append(chooser.propose())
    chooser.close()

    assert [*again, *(proposal.values for proposal in rest)] == whole


EVERY_KIND = {
    "any": Dimension(choices=(0, {"from": "a"}, ["b"], None, True)),
    "words": Dimension(choices=("sgd", "adam")),
    "switch": Dimension(choices=(True, False)),
    "numbers": Dimension(choices=(64, 16, 32)),
    "mixed": Dimension(choices=(0.5, 0)),
    "only": Dimension(choices=("one",)),
    "whole": Dimension(min=2, max=9),
    "steps": Dimension(min=2, max=9, step=3),
    "log_whole": Dimension(min=1, max=64, sampling="log"),
    "log_steps": Dimension(min=4, max=64, step=2, sampling="log"),
    "ratios": Dimension(min=1e-3, max=1e-1, step=10, sampling="log"),
    "tenths": Dimension(min=0.1, max=0.4, step=0.1),
    "real": Dimension(min=0.0, max=1.0),
    "rate": Dimension(min=1e-5, max=1e-2, sampling="log"),
}


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_every_kind_of_field_has_the_values_of_its_recipe(algorithm):
    search = Search(algorithm=algorithm, trials=60)

    trials = choose(search, EVERY_KIND, score=lambda trial: trial.values["real"])

    for field, dimension in EVERY_KIND.items():
        seen = {json.dumps(trial[field]) for trial in trials}
        if dimension.values is not None:
            assert seen <= set(map(json.dumps, dimension.values)), field
            assert len(seen) > 1 or field == "only", field
        else:
            assert all(dimension.min <= trial[field] <= dimension.max for trial in trials), field
            assert all(isinstance(trial[field], float) for trial in trials), field


def test_tpe_learns_from_trials_that_failed():
    def score(trial):
        return None if trial.values["a"] > 0.5 else trial.values["a"]

    actual = choose(
        Search(algorithm="tpe", trials=40), {"a": Dimension(min=0.0, max=1.0)}, score=score
    )

    # Of 30 trials, a sampler that left out the failed ones proposes 23 such values.
    assert sum(trial["a"] > 0.5 for trial in actual[10:]) <= 15


def test_a_batch_of_tpe_is_spread_by_trials_that_have_no_score():
    space = {"a": Dimension(min=0.0, max=1.0)}
    chooser = Chooser(Search(algorithm="tpe", trials=20, batch=10), space)
    for _ in range(10):
        proposal = chooser.propose()
        chooser.report(proposal, -abs(proposal.values["a"] - 0.3))

    batch = [chooser.propose().values["a"] for _ in range(10)]

    assert chooser.propose() is None  # until the ten have scores
    assert statistics.pstdev(batch) > 0.15  # 0.02 to 0.07 by a sampler that does not count them


def test_optuna_keeps_the_level_of_its_log(capfd):
    import optuna

    level = optuna.logging.get_verbosity()

    choose(Search(algorithm="tpe", trials=3))

    assert optuna.logging.get_verbosity() == level
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("choices", "shown"),
    [
        ((0, {"from": "block3"}, ["block1"]), ["0", "from block3", '["block1"]']),
        (({"from": "a"}, {"from": "b"}), ["from a", "from b"]),
        (("sgd", "adam"), ["sgd", "adam"]),
        ((4, 2), [4, 2]),
        ((0, 0.5), [0.0, 0.5]),
        ((True, False), [True, False]),
        ((None, 2, True), ["null", "2", "true"]),
        ((1, "1"), ["1", '"1"']),
    ],
)  # fmt: skip
def test_a_table_of_keras_tuner_shows_the_choices_themselves(choices, shown):
    import keras_tuner

    space = {"field": Dimension(choices=choices)}
    for value, text in zip(choices, shown, strict=True):
        parameters = register_space(space, keras_tuner.HyperParameters())
        parameters.values.update(write_values({"field": value}, space))

        actual = parameters.values["field"]
        assert (actual, type(actual)) == (text, type(text))
        assert json.dumps(read_values(parameters, space)) == json.dumps({"field": value})
