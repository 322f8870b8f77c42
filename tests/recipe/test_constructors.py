"""Sections that are built in Python are refused as those of a file are."""

import pytest

import tl_toolkit as tl
from tl_toolkit.errors import RecipeError
from tl_toolkit.tasks import RegressionSection


def refuse(section, **values):
    with pytest.raises(RecipeError) as caught:
        section(**values)
    return caught.value.problems


@pytest.mark.parametrize(
    ("section", "values", "what", "hint"),
    [
        (tl.recipe.Phase, {"name": "h", "epochs": "3"}, "epochs = '3'", "epochs=3"),
        (tl.recipe.Phase, {"name": "h"}, "epochs is missing", "epochs=10"),
        (
            tl.recipe.Phase,
            {"name": "h", "epochs": 1, "optimizer": "adm"},
            "optimizer = 'adm'",
            "optimizer='adam'",
        ),
        (
            tl.recipe.Phase,
            {"name": "h", "epochs": 1, "unfreeze": "conv_dw_12"},
            "unfreeze = 'conv_dw_12'",
            "unfreeze={'from': 'conv_dw_12'}",
        ),
        (tl.recipe.CosineSchedule, {}, "initial is missing", "initial=0.001"),
        (RegressionSection, {"los": "mae"}, "los: unknown key", "loss='mae'"),
    ],
)
def test_a_wrong_argument_is_refused_in_words_with_what_to_write(section, values, what, hint):
    (problem,) = refuse(section, **values)

    assert problem.where == section.__name__
    assert problem.what == what
    assert problem.hint == hint
    assert "pydantic" not in str(problem)


def test_a_wrong_part_of_a_recipe_is_named_by_its_place_in_it():
    phase = tl.recipe.Phase(name="head", epochs=1)
    problems = refuse(
        tl.Recipe,
        version=1,
        name="x",
        data={"train": "photos", "validation": 0.2, "image_size": 3},
        model=tl.recipe.Model(base="lenet5", weights="random"),
        phases=(phase, {"name": "tune", "epochs": "3"}),
    )

    whats = {problem.what for problem in problems}
    assert whats == {"data.image_size = 3", "phases[1].epochs = '3'"}
