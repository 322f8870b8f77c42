"""The run folder: what lies where in it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.runs.files import write_json


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name. Holds paths only; nothing is read until asked for."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def lock(self) -> Path:
        """Versions, seeds, and digests of data and weights."""
        return self.path / "lock.json"

    @property
    def status(self) -> Path:
        """State of the run: running, done, failed or interrupted."""
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        """The command, what it printed, and the traceback of an unexpected failure."""
        return self.path / "command.log"

    @property
    def manifest(self) -> Path:
        """Every image with its digest, label, split and verdict."""
        return self.path / "manifest.csv"

    @property
    def classes(self) -> Path:
        """Class names in the order of the model's outputs."""
        return self.path / "classes.json"

    @property
    def task_state(self) -> Path:
        """What the task took from data beside the weights, as thresholds; not all tasks do."""
        return self.path / "task.json"

    @property
    def metrics(self) -> Path:
        """Metrics of the kept state."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """The kept model's answer for every validation and test image."""
        return self.path / "predictions.csv"

    @property
    def model(self) -> Path:
        """The kept model, whole: raw RGB pixels to probabilities."""
        return self.path / "model.keras"

    @property
    def checkpoint(self) -> Path:
        """The best state so far, as arrays."""
        return self.path / "checkpoints" / "best.npz"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "logs"

    @property
    def converted(self) -> Path:
        """Images that were re-encoded under `data.convert`."""
        return self.path / "converted"

    @property
    def export(self) -> Path:
        """Exported models and their parity reports."""
        return self.path / "export"

    def phase(self, index: int, name: str) -> Path:
        """Folder of one phase; `index` counts from 0, the folder's number from 1."""
        return self.path / "phases" / f"{index + 1}-{name}"

    def read_json(self, path: Path) -> Any:
        """Reads one of the run's JSON files.

        Raises:
            DataError: It is missing or damaged.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                Problem(
                    where=str(path),
                    what=f"cannot be read: {error}",
                    expected="A finished run holds this file.",
                    hint="tltool finetune again, or name another run",
                )
            ) from error

    def write_status(self, state: str, **facts: Any) -> None:
        """Replaces the run's status; `started` is kept from the first one."""
        started = time.time()
        with contextlib.suppress(OSError, ValueError):
            started = json.loads(self.status.read_text())["started"]
        now = {"state": state, "pid": os.getpid(), "started": started, "updated": time.time()}
        write_json(self.status, now | facts)

    def append_log(self, text: str) -> None:
        """Adds lines to the command log; a log that cannot be written never ends a run."""
        with contextlib.suppress(OSError), _open_log(self.log) as file:
            file.write(text.rstrip("\n") + "\n")


class InFolder:
    """What is kept in a folder of its own: a run, a search.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @property
    def path(self) -> Path:
        """Where the folder is."""
        return self.folder.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"


def _open_log(path: Path) -> TextIO:
    return open(path, "a", encoding="utf-8", errors="backslashreplace")
