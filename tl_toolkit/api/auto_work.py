"""What the steps of `auto` share: its record, its time, and what is told of it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

from tl_toolkit.api.auto_record import AutoRecord
from tl_toolkit.errors import ToolkitError, lacks_memory
from tl_toolkit.events import Event, Handler, message
from tl_toolkit.recipe.load import LoadedRecipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tuning.budget import READING, Budget, Pace

__all__ = ["AutoWork", "Reading"]

_SHOWN = ("warning", "weights_fetched", "features_computed", "trial_began", "trial_ended")
_NOTED = ("trial_ended", "epoch_ended", "step_ended", "fold_ended", *READING)
"""Events after which the seconds that are spent are written, if they are so many:"""
_NOTE_SECONDS = 5.0
_TRAINED = ("step_ended", "epoch_ended")
_DONE = {
    "images_inspected": "images were inspected",
    "targets_inspected": "maps of targets were inspected",
    "features_computed": "images had gone through the frozen part",
}


class Reading:
    """How far images are inspected, or have gone through the frozen part.

    Args:
        clock: As in `Budget`.

    Attributes:
        is_over: Whether a step of training was taken since.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.is_over = False
        self._clock = clock
        self._last: Event | None = None
        self._first = (0.0, 0)

    def note(self, event: Event) -> None:
        """Takes the count of an event, if it has one.

        Args:
            event: Any event.
        """
        self.is_over |= event.kind in _TRAINED
        if event.kind not in READING:
            return
        last = self._last
        if last is None or last.kind != event.kind or event.done <= last.done:
            self._first = (self._clock(), event.done)
        self._last = event

    @property
    def left(self) -> float:
        """Seconds that the rest takes, at the pace of what is done.

        Of the frozen part all images count: features of a part that is not whole are not stored.
        """
        if self._last is None:
            return 0.0
        began, before = self._first
        seconds = (self._clock() - began) / max(self._last.done - before, 1)
        kept = 0 if self._last.kind == "features_computed" else self._last.done
        return seconds * ((self._last.total or 0) - kept)

    def describe(self) -> str:
        """Returns how far it is, in words."""
        last = self._last
        if last is None:
            return "no image was inspected"
        done = _DONE[last.kind]
        return f"{last.done:,} of {last.total or 0:,} {done}"


class AutoWork:
    """The recipe, the folder, the record and the time of an `auto`.

    Args:
        first: The recipe of the first run.
        folder: Its folder.
        record: What was done by now.
        budget: The time.
        progress: Receives events.
    """

    def __init__(
        self,
        first: LoadedRecipe,
        folder: RunFolder,
        record: AutoRecord,
        budget: Budget,
        progress: Handler,
    ) -> None:
        self.recipe = first.recipe
        self.folder = folder
        self.record = record
        self.budget = budget
        self.pace = Pace(budget.clock)
        self.pace.restore(record.pace)
        self.progress = progress
        self.clock = budget.clock
        self.reading = Reading(budget.clock)
        self._said: set[str] = set()
        record.metric = self.recipe.task.final_score or self.recipe.task.score

    def handle(self, event: Event) -> None:
        """Measures by an event, ends a step whose time is up, and passes on what is worth it.

        Args:
            event: An event of a run, a search or a ranking.

        Raises:
            TimeIsUp: The time of the step is up.
        """
        self.pace.note(event)
        self.reading.note(event)
        self.budget.check(event)
        if event.kind == "warning":  # each run would say the same
            if event.text in self._said:
                return
            self._said.add(event.text)
        if event.kind in _NOTED and self._spent_since_note >= _NOTE_SECONDS:
            self._note_time()
        if event.kind in _SHOWN:
            self.progress(event)

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the seconds of a block to those of a step.

        Args:
            step: Its name, as the report has it.
        """
        began = self.clock()
        try:
            yield
        finally:
            seconds = self.clock() - began
            self.record.steps[step] = round(self.record.steps.get(step, 0.0) + seconds, 3)

    def attempt(self, step: str, work: Callable[[], object]) -> None:
        """Takes a step after the first run, which is a result whatever goes wrong here.

        Args:
            step: Its name.
            work: The step.
        """
        try:
            work()
        except Exception as error:
            if isinstance(error, ToolkitError):
                reason = " ".join(str(error.problems[0]).split())
            elif lacks_memory(error):
                reason = "memory ran out"
            else:
                raise
            self.say(step, f"the {step} failed: {reason}")
            self.save()

    def say(self, step: str, text: str) -> None:
        """Notes a sentence on a step, and reports it.

        Args:
            step: Its name.
            text: The sentence.
        """
        self.record.why[step] = text
        self.progress(message(text))

    def save(self) -> None:
        """Writes auto.json, and frees the memory of models that are done with."""
        gc.collect()  # the graph of a model that is done with is a circle of objects
        self._note_time()

    def _note_time(self) -> None:
        """Writes what is spent, so that a kill gives none of it back."""
        self.record.seconds = round(self.budget.spent, 3)
        self.record.pace = self.pace.as_json()
        self.record.write(self.folder)

    @property
    def _spent_since_note(self) -> float:
        return self.budget.spent - self.record.seconds
