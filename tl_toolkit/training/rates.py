"""Rates of the parts of a model: factors of the phase's rate, and the table that a run prints."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.architectures.batches import in_batches
from tl_toolkit.errors import CheckFailedError, Problem
from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.runs.files import write_json
from tl_toolkit.tasks.types import ExampleSource
from tl_toolkit.training.optimizers import first_rate
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import HEAD, Part, TransferModel

__all__ = ["PartRates", "find_rate_factors", "tabulate_rates"]


_WEIGHED_BATCHES = 5
"""As in the code of the paper (Lee et al., 2023)."""


class PartRates:
    """The rates of the parts of a phase, as they are set, kept in a file and printed.

    Args:
        transfer: The model.
        phase: The phase.
        steps: Its compiled steps.
        source: The training images.
        batch_size: Images in a step.
        path: Folder that receives rates.json; None for no file.

    Attributes:
        rows: As of `tabulate_rates`; none where all parts have the phase's rate.
    """

    def __init__(
        self,
        transfer: TransferModel,
        phase: PhaseSettings,
        steps: Steps,
        source: ExampleSource,
        *,
        batch_size: int,
        path: Path | None = None,
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._transfer = transfer
        self._phase = phase
        self._steps = steps
        self._source = source
        self._batch_size = batch_size
        self._path = path
        self._epochs: dict[int, dict[str, Any]] = {}

    def resume(self, epoch: int) -> None:
        """Takes the rates of the epochs before one from the file of a phase that goes on.

        Args:
            epoch: The first that is left.
        """
        if self._path is None or not self._phase.weighs_gradients or epoch < 2:
            return
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            written = json.loads((self._path / "rates.json").read_text(encoding="utf-8"))
            before = {row["epoch"]: row for row in written["epochs"] if row["epoch"] < epoch}
            self.rows, self._epochs = written["rates"], before

    def set(self, epoch: int, order: np.ndarray) -> None:
        """Sets the rates of an epoch; those of most phases are the same in all of them.

        Args:
            epoch: Its number, from 1; nothing trains before.
            order: The training images in the order of the epoch.
        """
        weighs = self._phase.weighs_gradients
        if not self._phase.has_own_rates or epoch < 1:
            return
        if epoch in self._epochs or (self._epochs and not weighs):
            return
        factors = find_rate_factors(self._transfer, self._phase)
        facts: dict[str, Any] = {"epoch": epoch}
        if weighs and epoch <= self._phase.epochs:
            norms = self._weigh(epoch, order)
            greatest = max(norms.values()) or 1.0
            # A part without a tensor that trains has no gradient, and no rate.
            factors |= {name: norm / greatest for name, norm in norms.items()}
            facts["relative_gradient_norms"] = norms
            self._steps.set_factors(factors)
        rows = tabulate_rates(self._transfer, self._phase, self._steps, factors)
        self.rows = self.rows or rows
        self._epochs[epoch] = {**facts, "rates": rows}
        if self._path is not None:
            epochs = {"epochs": list(self._epochs.values())} if weighs else {}
            write_json(self._path / "rates.json", {"rates": self.rows, **epochs})

    def _weigh(self, epoch: int, order: np.ndarray) -> dict[str, float]:
        """Returns the mean relative gradient norm of each part over the epoch's first batches."""
        first = order[: _WEIGHED_BATCHES * self._batch_size]
        chunks = self._source.chunks(first, self._batch_size, epoch=epoch)
        norms = [
            self._steps.weigh_gradients(*batch) for batch in in_batches(chunks, self._batch_size)
        ]
        return {name: float(np.mean([batch[name] for batch in norms])) for name in norms[0]}


def find_rate_factors(transfer: TransferModel, phase: PhaseSettings) -> dict[str, float]:
    """Returns what the rate of each part that trains is multiplied by, input to output.

    Args:
        transfer: The model.
        phase: The phase.
    """
    rates = phase.learning_rates
    own: Mapping[str, float] = rates if isinstance(rates, Mapping) else {}
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
