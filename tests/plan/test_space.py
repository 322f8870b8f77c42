"""What may be tried: every value makes a valid recipe, or the search is refused at once."""

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.space import count_trials, resolve_space, trial_recipe
from tl_toolkit.recipe.load import build_recipe, dump_recipe, load_recipe
from tl_toolkit.recipe.search_schema import Dimension


def recipe_with(**search):
    return build_recipe(
        {
            "version": 1,
            "name": "digits",
            "data": {"builtin": "digits", "image_size": 32},
            "model": {"base": "lenet5", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}, {"name": "tune", "epochs": 1}],
            "search": search,
        }
    )


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        ({"min": 0, "max": 3}, (0, 1, 2, 3)),
        ({"min": 0, "max": 6, "step": 3}, (0, 3, 6)),
        ({"min": 0, "max": 0.6, "step": 0.2}, (0.0, 0.2, 0.4, 0.6)),
        ({"min": 1, "max": 9, "step": 2, "sampling": "log"}, (1, 2, 4, 8)),
        ({"min": 1e-4, "max": 1e-2, "step": 10, "sampling": "log"}, (1e-4, 1e-3, 1e-2)),
        ({"choices": [True, None, {"from": "f6"}]}, (True, None, {"from": "f6"})),
        ({"min": 0.0, "max": 1.0}, None),
    ],
)
def test_a_dimension_knows_its_values(dimension, values):
    assert Dimension.model_validate(dimension).values == values


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        ({"min": 0, "max": 2**31 - 1}, (0, 1, 2**31 - 1)),
        ({"min": 0, "max": 1}, (0, 1)),
        ({"min": 0, "max": 5, "step": 3}, (0, 3, 5)),
        ({"min": 0.0, "max": 1.0}, (0.0, 1.0)),
        ({"choices": [3, 1, 2]}, (3, 1, 2)),
    ],
)
def test_a_dimension_is_probed_without_all_of_its_values(dimension, values):
    assert Dimension.model_validate(dimension).probes == values


def test_dropout_and_depth_are_tried_by_default():
    space = resolve_space(recipe_with().recipe)

    assert list(space) == ["model.head.dropout", "phases.tune.unfreeze"]
    assert space["phases.tune.unfreeze"].values == (0, 1, 2, 3)
    assert space["model.head.dropout"].values == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


@pytest.mark.parametrize(
    ("search", "count"),
    [
        ({}, 12),
        ({"trials": 3}, 3),
        ({"algorithm": "grid"}, 28),
        ({"algorithm": "grid", "trials": 5}, 5),
        ({"space": {"model.head.dropout": {"choices": [0.1, 0.2]}}}, 2),
        ({"trials": 40, "space": {"model.head.dropout": {"min": 0.1, "max": 0.2}}}, 40),
    ],
)
def test_the_number_of_trials_is_known(search, count):
    assert count_trials(recipe_with(**search).recipe) == count


def test_a_trial_is_the_recipe_with_fields_replaced_and_no_search():
    recipe = recipe_with().recipe

    trial = trial_recipe(
        recipe, {"model.head.dropout": 0.4, "phases.tune.unfreeze": {"from": "f6"}}
    )

    assert trial.search is None
    assert trial.model.head.dropout == 0.4
    assert trial.phases[1].unfreeze.unit == "f6"
    assert trial.phases[0] == recipe.phases[0]


def test_a_search_survives_being_written(tmp_path):
    recipe = recipe_with(
        objective="val_loss",
        space={
            "phases.tune.unfreeze": {"choices": [0, {"from": "f6"}]},
            "model.head.dropout": {"min": 0, "max": 0.5},
        },
    ).recipe
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))

    again = load_recipe(path).recipe

    assert again == recipe
    assert not again.search.objective.is_max


@pytest.mark.parametrize(
    ("field", "dimension", "message"),
    [
        ("model.head.dropout", {"min": 0, "max": 1.5}, r"dropout = 1\.5"),
        ("model.head.dropout", {"min": 0.5, "max": 0.1}, "expected more than min"),
        ("model.head.dropout", {"min": 0.5}, "expected both min and max"),
        ("model.head.dropout", {}, "expected either choices, or min and max"),
        ("model.head.dropout", {"min": 0, "max": 0.5, "step": 0.6}, "expected at most 0.5"),
        ("model.head.dropout", {"choices": [0.1, 0.1]}, "each name once, got 0.1 again"),
        ("phases.tune.learning_rate", {"min": 0, "max": 1, "sampling": "log"}, "min above 0"),
        ("phases.tune.learning_rate", {"min": -1.0, "max": 1.0}, r"learning_rate = -1\.0"),
        ("phases.tune.unfreeze", {"min": 0, "max": 9}, "unfreeze = 9"),
        ("phases.tune.unfreeze", {"choices": [0, {"from": "f7"}]}, "has no unit 'f7'"),
        (
            "phases.tun.unfreeze",
            {"min": 0, "max": 1},
            r"phases.tun.unfreeze is no field\n.*head, tune",
        ),
        ("model.heads.dropout", {"min": 0, "max": 0.5}, "model.heads"),
        ("data.train", {"choices": ["a", "b"]}, "scores on other images cannot be compared"),
        ("name", {"choices": ["a", "b"]}, "name does not decide what is learnt"),
        ("~augment", {"choices": [None]}, "instead of removing it"),
    ],
)
def test_an_impossible_space_is_refused_by_name(field, dimension, message):
    with pytest.raises(RecipeError, match=message) as caught:
        check_recipe(recipe_with(space={field: dimension}))

    assert field in str(caught.value)


def test_all_problems_of_a_space_are_told_at_once():
    space = {
        "phases.tune.unfreeze": {"choices": [7, {"from": "nowhere"}]},
        "model.head.dropout": {"choices": [0.2, 2.0]},
    }

    with pytest.raises(RecipeError) as caught:
        check_recipe(recipe_with(space=space))

    assert len(caught.value.problems) == 3


def test_a_grid_needs_steps():
    with pytest.raises(RecipeError, match="expected a step: a grid goes through every value"):
        recipe_with(algorithm="grid", space={"model.head.dropout": {"min": 0.0, "max": 0.5}})


def test_a_space_without_fields_is_refused():
    with pytest.raises(RecipeError, match="at least one field"):
        recipe_with(space={})


def test_validate_says_what_will_be_searched():
    summary = check_recipe(recipe_with(trials=5))

    assert "search   5 trials over model.head.dropout, phases.tune.unfreeze" in summary.describe()
