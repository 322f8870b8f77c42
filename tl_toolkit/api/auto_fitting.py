"""Which trials of a search still fit into the time of `auto`, with the run of the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tl_toolkit.events import Event
from tl_toolkit.tuning.budget import MARGIN, Budget, Pace

if TYPE_CHECKING:
    from tl_toolkit.tuning.journal import Trial

__all__ = ["Fitting"]

_EPOCHS = (8, 4, 2)
"""Epochs of tuning: as many as a preset has, or fewer where time is short."""
_CLOSING = 0.25
"""What a search takes for its plots, as a part of what a run takes apart from its training."""


class Fitting:
    """Decides which trials fit, as a `SearchBudget`.

    Args:
        budget: The time.
        pace: What was measured.
        handle: Receives the events of the trials, and may end them.
        operations: Multiply-accumulates of the model for an image.
        images: Training and validation images.
    """

    def __init__(
        self,
        budget: Budget,
        pace: Pace,
        handle: Callable[[Event], None],
        *,
        operations: int,
        images: tuple[int, int],
    ) -> None:
        self._budget = budget
        self._pace = pace
        self._handle = handle
        self._operations = operations
        self._images = images
        self._began = budget.clock()
        self._best: Trial | None = None
        self._first = 0.0

    @property
    def closing(self) -> float:
        """Seconds that a search takes after its last trial."""
        return _CLOSING * self._pace.around

    @property
    def refusal(self) -> str:
        """Why there is no search."""
        seconds = self._need(self._first)
        return (
            f"no search fits: a trial and its run take about {seconds:.0f} s, and "
            f"{max(self._budget.left, 0):.0f} s are left"
        )

    def choose_epochs(self) -> int | None:
        """Returns the epochs of a trial: the most of which two fit; None where not one does."""
        for epochs in _EPOCHS:
            self._first = self._estimate(epochs)
            if self._need(self._first) + self._first <= self._budget.left:
                return epochs
        return _EPOCHS[-1] if self._need(self._first) <= self._budget.left else None

    def fits(self, trials: Sequence[Trial]) -> bool:
        """Returns whether another trial fits, and the run of the best one after it.

        Args:
            trials: Those that are done.
        """
        done = [trial for trial in trials if trial.score is not None]
        self._best = max(done, key=lambda trial: trial.score or 0.0, default=None)
        self._began = self._budget.clock()
        later = done[1:] or done  # the first one builds what the others share
        longest = max((trial.seconds for trial in later), default=self._first / MARGIN)
        return self._need(MARGIN * longest) <= self._budget.left

    def watch(self, event: Event) -> None:
        """Ends a trial once the run of the best one, or its own, would no longer fit.

        Args:
            event: Any event of the trials.

        Raises:
            TimeIsUp: It would not.
        """
        with self._budget.keeping(self._keep):
            self._handle(event)

    def _keep(self) -> float:
        trial = self._best.seconds if self._best else self._budget.clock() - self._began
        return self._pace.estimate_final(trial) + self.closing

    def _need(self, trial: float) -> float:
        """Returns the seconds of a trial, the end of the search and the run of the best one."""
        longest = max(trial, self._best.seconds if self._best else 0.0)
        return trial + self.closing + self._pace.estimate_final(longest)

    def _estimate(self, epochs: int) -> float:
        train, validation = self._images
        return self._pace.estimate_trial(
            self._operations, train=train, validation=validation, epochs=epochs
        )
