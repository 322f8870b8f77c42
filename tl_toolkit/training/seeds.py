"""Seeds belong to phases: what decides a phase decides its seed."""

from __future__ import annotations

import json

from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runtime import derive_seed


def describe_phases(recipe: Recipe, index: int) -> str:
    """All that decides a phase besides images and given weights: its settings and those before it.

    Two recipes with the same description have equal phases up to this one, bit for bit.

    Args:
        recipe: The recipe.
        index: Place of the phase, from 0.
    """
    chosen = recipe.model_dump(
        mode="json", include={"seed", "augment", "model", "early_stopping", "phases"}
    )
    del chosen["model"]["weights"]  # a path, which may differ where the file does not
    if recipe.pixels is not None:
        chosen["pixels"] = recipe.pixels.model_dump(mode="json")
    for phase in chosen["phases"]:
        if phase["batch_norm_momentum"] is None:
            del phase["batch_norm_momentum"]  # as phases were described before there was one
    settings = {**chosen, "phases": chosen["phases"][: index + 1]}
    return json.dumps({**settings, "batch_size": recipe.data.batch_size}, sort_keys=True)


def phase_seed(recipe: Recipe, index: int) -> int:
    """Decides order, dropout masks and, in the first phase, the head's initial weights.

    It belongs to a phase with its settings and not to a run or a trial: an equal phase is equal
    wherever it is, and phases with other settings are as independent as their draws can be.
    """
    return derive_seed(recipe.seed, recipe.phases[index].name, describe_phases(recipe, index))
