"""What a run tells while it goes on: the base class says nothing, a caller shows what it likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Progress:
    """Receives the events of a run, in the order of the methods below. All of them do nothing."""

    def began(self, folder: Path) -> None:
        """A run begins; its files go under `folder`."""

    def fetched(self, done: int, total: int) -> None:
        """`done` of `total` bytes of a weight file have been fetched."""

    def scanned(self, done: int, total: int) -> None:
        """`done` of `total` images have been looked at."""

    def planned(self, phases: Sequence[Mapping[str, Any]]) -> None:
        """A row for each phase: name, epochs, trains, parameters, optimizer, learning_rate."""

    def phase_began(self, name: str, epochs: int, steps: int) -> None:
        """A phase of so many epochs of so many steps begins."""

    def computed(self, done: int, total: int) -> None:
        """The frozen part has been computed for `done` of `total` images, for the store."""

    def stepped(self, step: int, loss: float) -> None:
        """Step `step` (from 1) of the current epoch is done."""

    def epoch_ended(self, row: Mapping[str, Any], *, best: bool) -> None:
        """An epoch ended with this row of the history; `best` if its weights are kept."""

    def trial_began(self, number: int, total: int | None, values: Mapping[str, Any]) -> None:
        """Trial `number` (from 1) of at most `total` begins, with these values."""

    def trial_ended(self, trial: Mapping[str, Any], *, best: bool) -> None:
        """A trial is over: the columns of `tl_toolkit.tuning.journal.Trial`; `best` so far."""

    def searched(self, summary: Mapping[str, Any]) -> None:
        """The search is done: the content of its summary.json."""

    def said(self, message: str) -> None:
        """A plain sentence."""

    def finished(self, metrics: Mapping[str, Any], exported: Mapping[str, Path]) -> None:
        """The run is done: the content of metrics.json, and the path of each exported format."""


class Relay(Progress):
    """Passes every event on; a child changes what it needs to.

    Args:
        progress: Receives the events.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def began(self, folder: Path) -> None:
        """Passes it on."""
        self._progress.began(folder)

    def fetched(self, done: int, total: int) -> None:
        """Passes it on."""
        self._progress.fetched(done, total)

    def scanned(self, done: int, total: int) -> None:
        """Passes it on."""
        self._progress.scanned(done, total)

    def planned(self, phases: Sequence[Mapping[str, Any]]) -> None:
        """Passes it on."""
        self._progress.planned(phases)

    def phase_began(self, name: str, epochs: int, steps: int) -> None:
        """Passes it on."""
        self._progress.phase_began(name, epochs, steps)

    def computed(self, done: int, total: int) -> None:
        """Passes it on."""
        self._progress.computed(done, total)

    def stepped(self, step: int, loss: float) -> None:
        """Passes it on."""
        self._progress.stepped(step, loss)

    def epoch_ended(self, row: Mapping[str, Any], *, best: bool) -> None:
        """Passes it on."""
        self._progress.epoch_ended(row, best=best)

    def trial_began(self, number: int, total: int | None, values: Mapping[str, Any]) -> None:
        """Passes it on."""
        self._progress.trial_began(number, total, values)

    def trial_ended(self, trial: Mapping[str, Any], *, best: bool) -> None:
        """Passes it on."""
        self._progress.trial_ended(trial, best=best)

    def searched(self, summary: Mapping[str, Any]) -> None:
        """Passes it on."""
        self._progress.searched(summary)

    def said(self, message: str) -> None:
        """Passes it on."""
        self._progress.said(message)

    def finished(self, metrics: Mapping[str, Any], exported: Mapping[str, Path]) -> None:
        """Passes it on."""
        self._progress.finished(metrics, exported)
