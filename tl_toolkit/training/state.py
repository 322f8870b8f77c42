"""The exact state of a phase: in memory, and as plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tl_toolkit.training.checkpoint import Epoch, assign_weights, read_weights
from tl_toolkit.training.devices import random_streams
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import TransferModel

__all__ = ["EpochProgress", "PhaseState", "take_state"]


@dataclass(frozen=True)
class EpochProgress:
    """How far an epoch is that is not over.

    Attributes:
        epoch: Its number, from 1.
        steps: Steps of it that were taken.
        examples: Examples of these steps.
        loss: Sum of their losses.
        score: The metric state of these examples.
    """

    epoch: int
    steps: int = 0
    examples: int = 0
    loss: float = 0.0
    score: np.ndarray | int = 0

    def add(
        self, losses: np.ndarray, examples: int, batch_size: int, score: np.ndarray
    ) -> EpochProgress:
        """Returns the progress after more steps.

        Args:
            losses: The mean loss of each step.
            examples: The number of their examples.
            batch_size: Examples in each step but the last.
            score: The metric state of all examples so far.
        """
        total = self.loss
        for loss, start in zip(losses, range(0, examples, batch_size), strict=True):
            total += float(loss) * min(batch_size, examples - start)
        return EpochProgress(
            self.epoch, self.steps + len(losses), self.examples + examples, total, score
        )


@dataclass(frozen=True)
class PhaseState:
    """The state of a phase between two of its steps, from which it resumes without a difference.

    The state does not hold the order of images and views, which follow from the seed, the phase's
    place and an epoch's number, nor the patience, which follows from the epochs, nor the rates of a
    schedule.

    Attributes:
        epochs: Epochs so far, epoch 0 included.
        weights: By canonical name, all weights that this phase or an earlier one may have changed.
        optimizer: Values of `Steps.state`: optimizer and averages, rate and step number included.
        streams: States of all random streams, by the name of the layer that samples from them.
        digests: Digests of all weights before the first step, for the receipt.
        steps_taken: Steps so far, for the receipt.
        learning_rate: The phase's own rate, which may have been found before the first step.
        progress: Of the epoch that is not over; None between two epochs.
    """

    epochs: tuple[Epoch, ...]
    weights: Mapping[str, np.ndarray]
    optimizer: tuple[np.ndarray, ...]
    streams: Mapping[str, np.ndarray]
    digests: Mapping[tuple[str, str], str]
    steps_taken: int
    learning_rate: float
    progress: EpochProgress | None = None

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(array.nbytes for array in (*self.weights.values(), *self.optimizer))

    def restore(self, transfer: TransferModel, steps: Steps) -> None:
        """Restores the state into a model and the steps of its phase.

        Args:
            transfer: The model.
            steps: The steps.
        """
        assign_weights(transfer, self.weights)
        for variable, value in zip(steps.state, self.optimizer, strict=True):
            variable.assign(value)
        for name, stream in random_streams(transfer.model):
            stream.assign(self.streams[name])

    def as_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the state as named arrays, and the rest as values that JSON can hold."""
        arrays = {f"weights/{name}": array for name, array in self.weights.items()}
        arrays |= {f"optimizer/{index}": array for index, array in enumerate(self.optimizer)}
        arrays |= {f"streams/{name}": array for name, array in self.streams.items()}
        rest: dict[str, Any] = {
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "digests": [[*key, sha256] for key, sha256 in self.digests.items()],
            "steps_taken": self.steps_taken,
            "learning_rate": self.learning_rate,
        }
        if self.progress is not None:
            rest["progress"] = asdict(self.progress)
            arrays["progress/score"] = np.asarray(rest["progress"].pop("score"))
        return arrays, rest

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> PhaseState:
        """Returns the state that `as_arrays` gave.

        Args:
            arrays: The named arrays.
            rest: The other values.
        """
        groups = ("weights", "optimizer", "streams", "progress")
        kinds: dict[str, dict[str, np.ndarray]] = {group: {} for group in groups}
        for name, array in arrays.items():
            kind, _, own_name = name.partition("/")
            kinds[kind][own_name] = array
        return cls(
            tuple(Epoch(**row) for row in rest["epochs"]),
            kinds["weights"],
            tuple(kinds["optimizer"][str(index)] for index in range(len(kinds["optimizer"]))),
            kinds["streams"],
            {(part, name): sha256 for part, name, sha256 in rest["digests"]},
            rest["steps_taken"],
            rest["learning_rate"],
            _unpack_progress(rest.get("progress"), kinds["progress"]),
        )


def _unpack_progress(
    rest: Mapping[str, Any] | None, arrays: Mapping[str, np.ndarray]
) -> EpochProgress | None:
    return None if rest is None else EpochProgress(**rest, score=arrays["score"])


def take_state(
    transfer: TransferModel,
    steps: Steps,
    names: Iterable[str],
    *,
    epochs: Iterable[Epoch],
    digests: Mapping[tuple[str, str], str],
    steps_taken: int,
    learning_rate: float,
    progress: EpochProgress | None = None,
) -> PhaseState:
    """Returns the state of a phase as it is now.

    Args:
        transfer: The model.
        steps: The steps of the phase.
        names: Canonical names of the weights that may have changed.
        epochs: As in `PhaseState`.
        digests: As in `PhaseState`.
        steps_taken: As in `PhaseState`.
        learning_rate: As in `PhaseState`.
        progress: As in `PhaseState`.
    """
    return PhaseState(
        tuple(epochs),
        read_weights(transfer, set(names)),
        tuple(variable.numpy() for variable in steps.state),
        {name: stream.numpy() for name, stream in random_streams(transfer.model)},
        digests,
        steps_taken,
        learning_rate,
        progress,
    )
