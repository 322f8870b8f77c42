"""The same network without transfer: what is equal, and what is not."""

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.check import check_recipe, plan_baseline
from tl_toolkit.recipe.load import read_recipe

VALUES = {
    "version": 1,
    "name": "photos",
    "seed": 3,
    "data": {"builtin": "digits", "image_size": 32, "batch_size": 8},
    "augment": {"flip": "horizontal"},
    "model": {
        "base": "vgg_tiny",
        "weights": "models/digits_vgg_tiny.weights.h5",
        "head": {"taps": "all", "normalize": True, "solver": "ridge", "dropout": 0.3},
    },
    "phases": [
        {"name": "warm", "epochs": 2},
        {"name": "tune", "epochs": 5, "unfreeze": 1, "learning_rate": 1e-4},
    ],
    "search": {"space": {"model.head.dropout": [0.1, 0.2]}},
    "baseline": "scratch",
}


def plan_scratch(changes=()):
    plan = check_recipe(read_recipe(VALUES, changes))
    return plan, plan_baseline(plan)


def test_one_phase_trains_every_unit_for_the_epochs_of_all():
    plan, scratch = plan_scratch()

    (phase,) = scratch.recipe.phases
    assert phase.epochs == 7
    assert scratch.units["scratch"] == tuple(unit.name for unit in plan.architecture.units)
    assert (phase.batch_norm, phase.optimizer.kind) == ("train", "adam")
    assert scratch.weights_file is None and scratch.recipe.model.weights == "random"


def test_all_else_is_equal():
    plan, scratch = plan_scratch()
    changed = {"phases", "baseline", "search", "model"}

    ours, theirs = (one.recipe.model_dump(exclude=changed) for one in (plan, scratch))

    assert ours == theirs
    assert scratch.survey is plan.survey
    ours, theirs = (one.recipe.model.model_dump(exclude={"weights"}) for one in (plan, scratch))
    assert theirs == {**ours, "head": {**ours["head"], "solver": None, "normalize": False}}


def test_a_solved_head_alone_has_no_epochs_to_equal():
    changes = {"~phases": None, "~search": None, "~model.head": None, "preset": "fast"}

    _, scratch = plan_scratch(changes)

    head = scratch.recipe.model.head
    assert scratch.recipe.phases[0].epochs == 20
    assert head.taps == "all" and head.solver is None  # what the preset chose, but for the solver


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "scrach"}, "expected scratch, or a section"),
        ({"model": {"base": {"model": "own.keras"}}}, "no random weights to start from"),
    ],
)
def test_what_has_no_meaning_is_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        read_recipe(VALUES, changes)
