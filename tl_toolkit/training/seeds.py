"""Seeds follow from the recipe's seed, a role and a phase's place; nothing else changes them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tl_toolkit.runtime import derive_seed

__all__ = ["Role", "phase_seed"]

Role: TypeAlias = Literal["head", "order", "dropout", "sampling", "augmentation", "mixing", "noise"]
"""What is random: the head's initial weights, image order, dropout masks, sampled pixels, the
new views of training images in each epoch, which of them are mixed, and the noise of features."""


def phase_seed(seed: int, role: Role, index: int) -> int:
    """Returns the seed of one role in one phase.

    Two recipes that differ in any setting start from the same head and see the same order, so that
    they can be compared in pairs.

    Args:
        seed: The recipe's.
        role: What the seed is used for.
        index: Place of the phase, from 0.
    """
    return derive_seed(seed, role, index)
