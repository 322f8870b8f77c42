"""The recipe of the same network without transfer: random weights, and all of it trained."""

from __future__ import annotations

from typing import Any

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.recipe.load import replace_fields
from tl_toolkit.recipe.schema import Head, Recipe

__all__ = ["build_scratch"]

_EPOCHS = 20
"""Epochs beside a recipe that trains none, as its head is solved."""

_LEFT_OUT = ("baseline", "search", "interpolate", "teacher")


def build_scratch(recipe: Recipe, architecture: Architecture) -> Recipe:
    """Returns a recipe that trains the same network from random weights, for as many epochs.

    One phase takes the place of all: its epochs are theirs together, every unit trains, and so does
    BatchNormalization, whose statistics follow with a momentum of 0.9. It has Adam at a rate of
    1e-3 that falls to 0 along a cosine. The head keeps its layers, but is not solved, and does not
    standardize what a random base makes of the images. No run is started or learned from. All else
    is equal.

    Args:
        recipe: The recipe, resolved.
        architecture: The record of its base.
    """
    phase = {
        "name": "scratch",
        "epochs": sum(phase.epochs for phase in recipe.phases) or _EPOCHS,
        "learning_rate": {"kind": "cosine", "initial": 1e-3},
        "unfreeze": {"from": architecture.units[0].name},
        "batch_norm": "train",
        "batch_norm_momentum": 0.9,
    }
    left_out = {f"~{name}": None for name in _LEFT_OUT if getattr(recipe, name)}
    if recipe.model.start is not None:
        left_out["~model.start"] = None
    changes: dict[str, Any] = {**left_out, "model.weights": "random", "phases": [phase]}
    head = recipe.model.head
    if isinstance(head, Head) and not recipe.task.is_dense:
        changes |= {"model.head.solver": None, "model.head.normalize": False}
    return replace_fields(recipe, changes)
