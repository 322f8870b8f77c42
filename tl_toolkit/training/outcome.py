"""The outcome of a training, and the parts of it that later trainings reuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tl_toolkit.errors import NonFiniteError
from tl_toolkit.training.checkpoint import BestState, Epoch
from tl_toolkit.training.state import PhaseState

__all__ = ["FinishedPhase", "Paused", "SharedPhases", "Training"]

_SHARED_BYTES = 512 << 20
"""Weights of finished phases that are kept for recipes that begin with the same phases."""


@dataclass(frozen=True)
class FinishedPhase:
    """A phase that was trained to its end.

    Attributes:
        epochs: All of them, epoch 0 included.
        receipt: Its receipt.
        best: The best state by then.
        failure: Where the loss was not finite, if a callback ended the phase for it.
    """

    epochs: tuple[Epoch, ...]
    receipt: dict[str, Any]
    best: BestState
    failure: NonFiniteError | None = None


@dataclass(frozen=True)
class Paused:
    """A training that was paused in its last phase; any trainer of the same model can resume it.

    Attributes:
        done: The phases before.
        best: The best state so far.
        phase: The last phase.
    """

    done: tuple[FinishedPhase, ...]
    best: BestState
    phase: PhaseState

    @property
    def size(self) -> int:
        """Bytes that only this training needs, roughly: it may share its earlier phases."""
        return self.best.size + self.phase.size


@dataclass(frozen=True)
class Training:
    """The outcome of all phases; the model holds the best state.

    Attributes:
        best: The epoch whose weights are kept.
        history: Every epoch of every phase, epoch 0 of each included.
        receipts: One for each phase.
        weights_sha256: SHA-256 of all weights and moving statistics of the best state.
        paused: The state from which it resumes; None if it was completed.
    """

    best: Epoch
    history: tuple[Epoch, ...]
    receipts: tuple[dict[str, Any], ...]
    weights_sha256: str
    paused: Paused | None = None


class SharedPhases:
    """Finished phases by their description; the oldest ones make room for new ones."""

    def __init__(self) -> None:
        self._phases: dict[str, FinishedPhase] = {}

    def get(self, description: str) -> FinishedPhase | None:
        """Returns the phase of this description, None if it is not kept.

        Args:
            description: The settings that decide the phase and those before it.
        """
        return self._phases.get(description)

    def add(self, description: str, phase: FinishedPhase) -> None:
        """Keeps a phase.

        Args:
            description: As in `get`.
            phase: The phase.
        """
        self._phases[description] = phase
        while sum(finished.best.size for finished in self._phases.values()) > _SHARED_BYTES:
            del self._phases[next(iter(self._phases))]
