"""The task of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from tl_toolkit.images.targets import TargetReader
from tl_toolkit.recipe.schema import Pixels, Recipe
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.edges.task import Edges
from tl_toolkit.tasks.normals.task import Normals
from tl_toolkit.tasks.segmentation.task import Segmentation

__all__ = ["build_reader", "build_task"]

_PIXEL_TASKS = {
    "segmentation": Segmentation,
    "edges": Edges,
    "normals": Normals,
}


def build_task(recipe: Recipe, classes: Sequence[str]) -> Task:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe.
        classes: Class names in the order of the outputs; none where pixels are of no class.
    """
    task = _PIXEL_TASKS.get(recipe.task)
    if task is None:
        return Classification(len(classes), recipe.model.head.activation)
    return task(classes, recipe.pixels or Pixels())


def build_reader(recipe: Recipe) -> TargetReader | None:
    """Returns what reads the right answers of a recipe's pixels; None if images have one each."""
    task = _PIXEL_TASKS.get(recipe.task)
    return task.reader(recipe.data) if task is not None else None
