"""A budget of time: what is left of it, and what still fits by what has been measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tl_toolkit.events import Event

if TYPE_CHECKING:
    from tl_toolkit.tuning.journal import Trial

__all__ = ["MARGIN", "READING", "Budget", "Pace", "SearchBudget", "TimeIsUp"]

MARGIN = 1.25
"""By how much a repetition may take longer than what was measured."""

_BACKWARD = 2
"""A step computes gradients of activations and of weights: twice the work of its forward pass."""

READING = ("images_inspected", "targets_inspected", "features_computed")
"""Events of what comes before a training: images are inspected, and go through the frozen part."""

_STOPPABLE = (*READING, "step_ended", "epoch_ended", "fold_ended")
"""Events of the thread that trains, after which nothing is half written."""


class TimeIsUp(BaseException):  # noqa: N818  (an end that was planned, as KeyboardInterrupt is)
    """The time of a step is used up.

    No `Exception`: nothing on its way may take it for a trial that failed.
    """


class SearchBudget(Protocol):
    """What decides how long a search goes on."""

    def fits(self, trials: Sequence[Trial]) -> bool:
        """Returns whether another trial fits.

        Args:
            trials: Those that are done.
        """

    def watch(self, event: Event) -> None:
        """Ends the trial that reports an event, if it takes too long.

        Args:
            event: Any event of the trials.

        Raises:
            TimeIsUp: It does.
        """


class Budget:
    """Seconds that may be spent.

    Args:
        seconds: All of them.
        clock: Returns the seconds since they began to count; they never run backward.
        spent: How many were spent before.
    """

    def __init__(self, seconds: float, clock: Callable[[], float], *, spent: float = 0.0) -> None:
        self.seconds = seconds
        self.clock = clock
        self._before = spent
        self._reserve: Callable[[], float] | None = None
        self._kinds: Sequence[str] = _STOPPABLE

    @property
    def spent(self) -> float:
        """Seconds that are spent."""
        return self._before + self.clock()

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 once more than all are spent."""
        return self.seconds - self.spent

    @contextlib.contextmanager
    def keeping(
        self, reserve: Callable[[], float], *, kinds: Sequence[str] = _STOPPABLE
    ) -> Iterator[None]:
        """Lets `check` end the block once less is left than what must be kept.

        Args:
            reserve: Returns the seconds to keep, for what comes after the block; below 0 are those
                that it may exceed the budget by.
            kinds: Events that may end it.

        Raises:
            TimeIsUp: By way of `check`.
        """
        before = self._reserve, self._kinds
        self._reserve, self._kinds = reserve, kinds
        try:
            yield
        finally:
            self._reserve, self._kinds = before

    def check(self, event: Event) -> None:
        """Ends the step that reports an event, if less is left than what must be kept.

        Args:
            event: Any event.

        Raises:
            TimeIsUp: Too little is left.
        """
        is_stoppable = event.kind in self._kinds
        if is_stoppable and self._reserve is not None and self.left < self._reserve():
            raise TimeIsUp


class Pace:
    """What has been measured of this machine and these images, and what follows from it.

    Args:
        clock: As in `Budget`.

    Attributes:
        around: Seconds of a run apart from its training: it reads images, builds the model, is
            measured and saved.
        judging: Most seconds that judging a base took, apart from its features.
        folds: Seconds that the other folds of a predictor will take, by those that are done.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.around = 0.0
        self.judging = 0.0
        self.folds = 0.0
        self._clock = clock
        self._folds_began = 0.0
        self._measured: dict[int, float] = {}  # seconds of an image by its multiply-accumulates
        self._first: tuple[float, int] | None = None
        self._passed: tuple[float, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns what was measured as plain values."""
        rows = sorted(self._measured.items())
        return {"around": self.around, "judging": self.judging, "measured": [*map(list, rows)]}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes over what another process measured.

        Args:
            values: As `as_json` returns them; none for nothing.
        """
        self.around = values.get("around", 0.0)
        self.judging = values.get("judging", 0.0)
        self._measured = {int(operations): seconds for operations, seconds in
                          values.get("measured", ())}  # fmt: skip

    def note(self, event: Event) -> None:
        """Measures by an event how fast features are computed, and predictors are fitted.

        Args:
            event: Any event.
        """
        if event.kind == "fold_ended":
            if not event.done:
                self._folds_began = self._clock()
            seconds = (self._clock() - self._folds_began) / max(event.done, 1)
            self.folds = seconds * ((event.total or 0) - event.done)
            return
        if event.kind != "features_computed":
            self._first = None
        elif self._first is None or event.done <= self._first[1]:
            self._first = (self._clock(), event.done)
        else:
            began, before = self._first
            self._passed = (self._clock() - began, event.done - before)

    def learn(self, operations: int, *, images: int, judging: float = 0.0) -> None:
        """Notes which base the features that were computed last are of.

        Args:
            operations: Its multiply-accumulates for an image.
            images: Number of images.
            judging: Seconds that judging it took, with its features.
        """
        features = 0.0  # where they were stored
        if self._passed is not None:
            seconds, count = self._passed
            features = seconds / count * images
            self._measured[operations] = seconds / count
        self._first = self._passed = None
        self.judging = max(self.judging, judging - features)

    def estimate_features(self, operations: int, images: int) -> float:
        """Returns the seconds of a pass over images; 0 where nothing has been measured yet.

        Args:
            operations: Multiply-accumulates of the base for an image.
            images: Number of images.
        """
        reading, computing = self._split()
        return (reading + computing * operations) * images

    def _split(self) -> tuple[float, float]:
        """Returns the seconds that reading an image takes, and those of a multiply-accumulate.

        They are the line through the least and the most work; where only one has been measured,
        half of it is taken for reading.
        """
        if not self._measured:
            return 0.0, 0.0
        least, most = min(self._measured), max(self._measured)
        if least == most:
            half = self._measured[least] / 2
            return half, half / max(least, 1)
        computing = (self._measured[most] - self._measured[least]) / (most - least)
        computing = min(max(computing, 0.0), self._measured[most] / most)  # noise makes it steep
        return max(self._measured[most] - computing * most, 0.0), computing

    def estimate_judging(self, operations: int, images: int) -> float:
        """Returns the seconds of judging a base.

        Args:
            operations: As in `estimate_features`.
            images: As in `estimate_features`.
        """
        return MARGIN * (self.estimate_features(operations, images) + self.judging)

    def estimate_trial(self, operations: int, *, train: int, validation: int, epochs: int) -> float:
        """Returns the seconds of a first trial, which trains half of the base's work.

        Args:
            operations: As in `estimate_features`.
            train: Training images.
            validation: Validation images.
            epochs: Epochs.
        """
        trained = epochs * ((1 + _BACKWARD) * train + validation) / 2
        steps = self._split()[1] * operations * trained
        return self.estimate_features(operations, train + validation) + steps + self.around / 2

    def estimate_final(self, trial: float) -> float:
        """Returns the seconds of a run that repeats a trial.

        Args:
            trial: Seconds of the trial.
        """
        return MARGIN * (self.around + trial)
