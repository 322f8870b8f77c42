"""What a run tells while it goes on: the base class says nothing, a caller shows what it likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Progress:
    """Receives the events of a run, in the order of the methods below. All of them do nothing."""

    def began(self, folder: Path) -> None:
        """A run begins; its files go under `folder`."""

    def scanned(self, done: int, total: int) -> None:
        """`done` of `total` images have been looked at."""

    def planned(self, phases: Sequence[Mapping[str, Any]]) -> None:
        """A row for each phase: name, epochs, trains, parameters, optimizer, learning_rate."""

    def phase_began(self, name: str, epochs: int, steps: int) -> None:
        """A phase of so many epochs of so many steps begins."""

    def stepped(self, step: int, loss: float) -> None:
        """Step `step` (from 1) of the current epoch is done."""

    def epoch_ended(self, row: Mapping[str, Any], *, best: bool) -> None:
        """An epoch ended with this row of the history; `best` if its weights are kept."""

    def said(self, message: str) -> None:
        """A plain sentence."""

    def finished(self, metrics: Mapping[str, Any], exported: Mapping[str, Path]) -> None:
        """The run is done: the content of metrics.json, and the path of each exported format."""
