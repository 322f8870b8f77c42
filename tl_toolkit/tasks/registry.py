"""Builds the task of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.base import Task

__all__ = ["build_task"]


def build_task(recipe: Recipe, classes: Sequence[str]) -> Task:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe, with its head resolved.
        classes: Names of the outputs, in their order; none where pixels have no class.
    """
    task: Task = recipe.task.open("task").build(recipe, classes)
    return task
