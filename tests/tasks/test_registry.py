"""The tasks, and what recipes are checked by before there are any."""

from pathlib import Path

import pytest

from tests.pixels import TASKS as DRAWN
from tests.pixels import make_recipe
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.pixel_schema import PIXEL_TASKS, TASKS
from tl_toolkit.tasks.registry import build_reader, build_task


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_what_recipes_are_checked_by(name):
    values = make_recipe("segmentation", Path())
    if name in PIXEL_TASKS:
        values = make_recipe(name, Path())
    else:
        del values["task"], values["pixels"], values["model"]["head"]
    recipe = build_recipe(values).recipe

    task = build_task(recipe, ["a", "b"])

    assert (task.name, task.score) == (name, TASKS[name].score)
    assert task.answers_pixels == (name in PIXEL_TASKS) == (build_reader(recipe) is not None)
    assert (task.units == 2) == TASKS[name].has_classes


def test_every_task_of_pixels_is_drawn_for_tests():
    assert set(DRAWN) == PIXEL_TASKS
