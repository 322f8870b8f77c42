"""The task of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from tl_toolkit.recipe.schema import Pixels, Recipe
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.classification import Classification
from tl_toolkit.tasks.segmentation import Segmentation

__all__ = ["build_task"]


def build_task(recipe: Recipe, classes: Sequence[str]) -> Task:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe.
        classes: Class names in the order of the outputs.
    """
    if recipe.task == "segmentation":
        return Segmentation(classes, recipe.pixels or Pixels())
    return Classification(len(classes), recipe.model.head.activation)
