"""Which views a recipe's model is asked for."""

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.tta import choose_tta
from tl_toolkit.recipe.load import build_recipe


def recipe_of(flip=None, *, task="classification", data=None):
    sections = {"augment": {"flip": flip}} if flip else {}
    names = {"classes": ["sky", "tree"]} if task == "segmentation" else {}
    return build_recipe(
        {
            "version": 1,
            "name": "x",
            "task": task,
            "data": {**(data or {"train": "photos"}), "image_size": 32, **names},
            "model": {"base": "pixelnet", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
            **sections,
        }
    ).recipe


@pytest.mark.parametrize(
    "flip, asked, words",
    [
        (None, False, ()),
        (None, True, ("flip",)),
        ("vertical", True, ("flip_vertical",)),
        ("both", True, ("flip", "flip_vertical")),
        ("both", "crops", ("crops",)),
        (None, ["crops", "flip"], ("flip", "crops")),
        (None, "crops, flip", ("flip", "crops")),
    ],
)
def test_views_are_those_of_the_recipe_or_those_that_were_named(flip, asked, words):
    assert choose_tta(recipe_of(flip), asked) == words


def test_signs_are_mirrored_only_if_the_recipe_trains_with_it():
    digits = {"builtin": "digits"}

    with pytest.raises(RecipeError, match="mirror image of a sign of digits is another sign"):
        choose_tta(recipe_of(data=digits), True)

    assert choose_tta(recipe_of(data=digits), "crops") == ("crops",)
    assert choose_tta(recipe_of("horizontal", data=digits), True) == ("flip",)


def test_numbers_are_mirrored_only_if_the_recipe_trains_with_it():
    table = {"csv": "ages.csv"}

    with pytest.raises(RecipeError, match="a number may be a place"):
        choose_tta(recipe_of(task="regression", data=table), ["flip"])

    assert choose_tta(recipe_of("horizontal", task="regression", data=table), True) == ("flip",)


def test_crops_are_refused_for_tasks_with_an_output_per_pixel():
    with pytest.raises(RecipeError, match="segmentation has an output for each") as error:
        choose_tta(recipe_of(task="segmentation"), "flip,crops")

    assert choose_tta(recipe_of(task="segmentation"), True) == ("flip",)
    assert "Try: tta=flip" in str(error.value)


def test_an_unknown_view_names_the_known_ones():
    with pytest.raises(RecipeError, match="'crop' is no view") as error:
        choose_tta(recipe_of(), "crop")

    assert "flip, flip_vertical, crops" in str(error.value)
    assert "Try: tta=crops" in str(error.value)
