"""The outcome of a training, and the parts of it that later trainings reuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tl_toolkit.errors import NonFiniteError
from tl_toolkit.plan.training import PhaseSettings, TrainingSettings
from tl_toolkit.training.checkpoint import BestState, Epoch, is_better
from tl_toolkit.training.state import PhaseState

__all__ = [
    "FinishedPhase",
    "Paused",
    "SharedPhases",
    "Training",
    "describe_start",
    "describe_untrained",
    "find_diverged",
    "is_untrained",
    "join_epochs",
]

_DIVERGED = 100
"""A phase whose best validation loss is this many times that of its start has diverged."""

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
    """A training that was paused in one of its phases; any trainer of the same model resumes it.

    Attributes:
        done: The phases before.
        best: The best state so far.
        phase: The phase that was paused; None before the next has begun.
    """

    done: tuple[FinishedPhase, ...]
    best: BestState
    phase: PhaseState | None

    @property
    def size(self) -> int:
        """Bytes that only this training needs, roughly: it may share its earlier phases."""
        return self.best.size + (self.phase.size if self.phase else 0)

    @property
    def epochs(self) -> list[Epoch]:
        """All epochs so far, of finished phases and of this one."""
        return [*join_epochs(self.done), *(self.phase.epochs if self.phase else ())]


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


def join_epochs(phases: Sequence[FinishedPhase]) -> list[Epoch]:
    """Returns all epochs of finished phases in order.

    Args:
        phases: The phases.
    """
    return [epoch for phase in phases for epoch in phase.epochs]


def is_untrained(epochs: Sequence[Epoch]) -> bool:
    """Returns whether no step was taken yet.

    Args:
        epochs: All epochs so far.
    """
    return all(epoch.epoch == 0 for epoch in epochs)


def find_diverged(
    settings: TrainingSettings, done: Sequence[FinishedPhase]
) -> PhaseSettings | None:
    """Returns the first finished phase that left the loss far above what it found, if any.

    Args:
        settings: All phases.
        done: The finished ones.
    """
    for phase, finished in zip(settings.phases, done, strict=False):
        start, *trained = finished.epochs
        if trained and min(epoch.val_loss for epoch in trained) > _DIVERGED * start.val_loss:
            return phase
    return None


def describe_start(best: Epoch, settings: TrainingSettings) -> str:
    """Returns a sentence if no epoch beat the run that training started from.

    Args:
        best: The epoch that is kept.
        settings: All phases.
    """
    if best.epoch or not any(phase.epochs for phase in settings.phases):
        return ""
    return "no epoch beats the run that training starts from, which stays"


def describe_untrained(start: Epoch, best: Epoch, settings: TrainingSettings) -> str:
    """Returns a sentence if no epoch beat the head that was never trained, or none was trained.

    Args:
        start: The epoch before the first step.
        best: The epoch that is kept.
        settings: All phases, and what is better.
    """
    if not best.epoch:
        has_epochs = any(phase.epochs for phase in settings.phases)
        return "no epoch was trained: kept is the head as it was" if has_epochs else ""
    if is_better(best, start, settings.stopping):
        return ""
    name = f"val_{start.score_name}"
    return (
        f"no epoch beats the untrained head ({name} {start.val_score:.4f}, val_loss "
        f"{start.val_loss:.4f}): kept is the best that was trained ({name} "
        f"{best.val_score:.4f}, val_loss {best.val_loss:.4f})"
    )
