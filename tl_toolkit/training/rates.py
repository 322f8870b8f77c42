"""Rates of the parts of a model: factors of the phase's rate, and the table that a run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_toolkit.errors import CheckFailedError, Problem
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.training.optimizers import first_rate
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import HEAD, Part, TransferModel

__all__ = ["find_rate_factors", "tabulate_rates"]


def find_rate_factors(transfer: TransferModel, phase: PhaseSettings) -> dict[str, float]:
    """Returns what the rate of each part that trains is multiplied by, input to output.

    Args:
        transfer: The model.
        phase: The phase.
    """
    own: Mapping[str, float] = phase.learning_rates or {}
    trained = _trained_parts(transfer, phase)
    factors = {}
    for place, part in enumerate(reversed(trained)):
        rate = own.get(part.name, own.get(part.block))
        decayed = phase.layer_decay**place
        factors[part.name] = decayed if rate is None else rate / first_rate(phase.learning_rate)
    return {part.name: factors[part.name] for part in trained}


def tabulate_rates(
    transfer: TransferModel, phase: PhaseSettings, steps: Steps, factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Returns the rate of each block that trains, or of its units where they differ.

    Args:
        transfer: The model, with the flags of the phase.
        phase: The phase.
        steps: Its compiled steps.
        factors: What they have been told to multiply the steps of each part by.

    Returns:
        Rows with name, rate (of a schedule: where it is at its own) and tensors, input to output.

    Raises:
        CheckFailedError: A tensor does not train at the rate of its part.
    """
    rate = first_rate(phase.learning_rate)
    tensors = _check_factors(transfer, phase, steps, factors)
    blocks: dict[str, list[Part]] = {}
    for part in _trained_parts(transfer, phase):
        if tensors[part.name]:  # others have no rate
            blocks.setdefault(part.block, []).append(part)
    groups: list[tuple[str, Sequence[Part]]] = []
    for block, parts in blocks.items():
        is_one = len({factors[part.name] for part in parts}) == 1
        groups += [(block, parts)] if is_one else [(part.name, [part]) for part in parts]
    return [
        {
            "name": name,
            "rate": float(f"{rate * factors[parts[0].name]:.7g}"),
            "tensors": sum(tensors[part.name] for part in parts),
        }
        for name, parts in groups
    ]


def _trained_parts(transfer: TransferModel, phase: PhaseSettings) -> list[Part]:
    chosen = {*phase.units, HEAD}
    return [part for part in transfer.parts if part.name in chosen]


def _check_factors(
    transfer: TransferModel, phase: PhaseSettings, steps: Steps, factors: Mapping[str, float]
) -> dict[str, int]:
    """Returns the number of tensors of each part, each of which has the factor of its part."""
    used = steps.factors
    tensors = {}
    for part in _trained_parts(transfer, phase):
        own = [variable for layer in part.layers for variable in layer.trainable_variables]
        values = {used.pop(id(variable), None) for variable in own}
        if values - {float(np.float32(factors[part.name]))}:
            raise _wrong_group(phase, part.name, f"its tensors have the factors {values}")
        tensors[part.name] = len(own)
    if used:
        raise _wrong_group(phase, "no part", f"{len(used)} tensors train that belong to none")
    return tensors


def _wrong_group(phase: PhaseSettings, name: str, what: str) -> CheckFailedError:
    expected = "Each tensor trains at the rate of its part."
    where = f"phase {phase.name!r}, {name}"
    return CheckFailedError(Problem(where, what, expected, "report it with the recipe"))
