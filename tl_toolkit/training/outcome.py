"""What comes out of a training, and what of it later ones take over."""

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
    """A training that was paused in its last phase; of use to any trainer of the same model.

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
        """Bytes that it alone keeps, roughly: phases before it may be shared."""
        return self.best.size + self.phase.size


@dataclass(frozen=True)
class Training:
    """The outcome of all phases; the model holds the best state.

    Attributes:
        best: The epoch whose weights are kept.
        history: Every epoch of every phase, epoch 0 of each included.
        receipts: One for each phase.
        weights_sha256: Of all weights and moving statistics as they are kept.
        paused: Where it is resumed; None if it came to its end.
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
            description: All that decides the phase and those before it.
        """
        return self._phases.get(description)

    def add(self, description: str, phase: FinishedPhase) -> None:
        """Keeps a phase.

        Args:
            description: As above.
            phase: The phase.
        """
        self._phases[description] = phase
        while sum(kept.best.size for kept in self._phases.values()) > _SHARED_BYTES:
            del self._phases[next(iter(self._phases))]
