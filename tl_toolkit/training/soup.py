"""Greedy soups: means of the weights that several trainings kept (Wortsman et al., 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from tl_toolkit.training.checkpoint import Epoch, assign_weights
from tl_toolkit.training.interpolation import mix
from tl_toolkit.transfer.assemble import TransferModel

__all__ = ["SOUP", "Soup", "Weights", "average_greedily"]

SOUP = "soup"
"""Name of the phase that averages weights, and of the folder of its run."""

Weights: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Soup:
    """The greedy mean of the weights of several trainings.

    Attributes:
        best: The mean, as a row of a history.
        tried: For each training in order the mean with it, whether it is a member or not.
        members: For each training whether its weights are in the mean.
        receipt: The receipt, from the weights before any training to the mean.
        weights_sha256: SHA-256 of all weights and moving statistics.
    """

    best: Epoch
    tried: tuple[Epoch, ...]
    members: tuple[bool, ...]
    receipt: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""


def average_greedily(
    transfer: TransferModel,
    initial: Weights,
    kept: Iterable[Weights],
    validate: Callable[[], Epoch],
    falls: Callable[[Epoch, Epoch], bool],
) -> Soup:
    """Averages weights one after the other, and leaves out those with which the mean is worse.

    That is recipe 1 of the paper. At a time the weights of one training are in memory, the mean,
    and the mean with them.

    Args:
        transfer: The model, which is left with the mean.
        initial: By canonical name the weights that any training may have changed, as at first.
        kept: The weights that each training kept, the best one first, which is always a member.
        validate: Returns the figures of the model as it is.
        falls: Whether the first epoch is worse than the second.
    """
    mean: Weights = {}
    best: Epoch | None = None
    tried: list[Epoch] = []
    members: list[bool] = []
    for weights in kept:
        own = {name: weights.get(name, before) for name, before in initial.items()}
        mixed = mix(mean, own, 1 / (sum(members) + 1), own.keys()) if mean else own
        assign_weights(transfer, mixed)
        epoch = validate()
        is_member = best is None or (math.isfinite(epoch.val_loss) and not falls(epoch, best))
        if is_member:
            mean, best = mixed, epoch
        tried.append(epoch)
        members.append(is_member)
    if best is None:
        raise ValueError("A mean needs weights.")
    assign_weights(transfer, mean)
    return Soup(best, tuple(tried), tuple(members))
