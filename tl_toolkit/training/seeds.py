"""Seeds follow from the recipe's seed, a role and a phase's place; nothing else changes them."""

from __future__ import annotations

import json
from typing import Literal, TypeAlias

from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runtime import derive_seed

__all__ = ["Role", "describe_phases", "phase_seed"]

Role: TypeAlias = Literal["head", "order", "dropout", "sampling"]
"""What is random: the head's first weights, the order of images, dropout's masks, pixels drawn."""


def phase_seed(seed: int, role: Role, index: int) -> int:
    """Returns the seed of one role in one phase.

    Two recipes that differ in any setting start from the same head and see the same order, so that
    they can be compared in pairs.

    Args:
        seed: The recipe's.
        role: What it is for.
        index: Place of the phase, from 0.
    """
    return derive_seed(seed, role, index)


def describe_phases(recipe: Recipe, index: int) -> str:
    """All that decides a phase besides images and given weights: its settings and those before it.

    Two recipes with the same description have equal phases up to this one, bit for bit.

    Args:
        recipe: The recipe.
        index: Place of the phase, from 0.
    """
    chosen = recipe.model_dump(
        mode="json", include={"seed", "task", "augment", "model", "early_stopping", "phases"}
    )
    del chosen["model"]["weights"]  # a path, which may differ where the file does not
    if recipe.pixels is not None:
        chosen["pixels"] = recipe.pixels.model_dump(mode="json")
    settings = {**chosen, "phases": chosen["phases"][: index + 1]}
    return json.dumps({**settings, "batch_size": recipe.data.batch_size}, sort_keys=True)
