"""Builds the task of a recipe, and reads the plain values that its `build` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.recipe.fields import Section
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.base import Task

__all__ = ["build_task", "layers_of", "values_of"]


def build_task(recipe: Recipe, classes: Sequence[str]) -> Task:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe, with its head resolved.
        classes: Names of the outputs, in their order; none where pixels have no class.
    """
    task: Task = recipe.task.open("task").build(recipe, classes)
    return task


def layers_of(recipe: Recipe) -> HeadLayers:
    """Returns the layers of a recipe's head.

    Args:
        recipe: The recipe, with its head resolved.
    """
    return HeadLayers.from_values(recipe.model.classifier.model_dump())


def values_of(section: Section | None) -> dict[str, Any]:
    """Returns the fields of a section, none of one that is left out.

    Args:
        section: The section.
    """
    return {} if section is None else section.model_dump()
