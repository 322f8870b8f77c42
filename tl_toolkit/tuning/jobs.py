"""The work of a search, between who chooses trials and who trains them.

The engine proposes jobs and keeps the journal. An executor runs jobs, one after the other in this
process or several at a time elsewhere, and gives their outcomes as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tl_toolkit.events import Event

__all__ = ["Executor", "Job", "Outcome", "SerialExecutor"]


@dataclass(frozen=True)
class Job:
    """A training that an executor runs.

    Attributes:
        number: Of the trial, from 1; 0 and less for the repeats of a winner.
        values: The searched fields and their values.
        budget: Number of epochs after which its last phase pauses; None if it never does.
        continues: Number of the trial that it resumes, which has the same values.
        seed: Its own seed; None for that of the searched recipe.
    """

    number: int
    values: Mapping[str, Any]
    budget: int | None = None
    continues: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        number: That of the job.
        state: completed, paused or failed.
        score: The objective; None if it failed.
        best: The epoch whose weights are kept, as a row of the history; None if it failed.
        weights_sha256: SHA-256 of these weights; None if it failed.
        seconds: Seconds that it took.
        trains: As in `Trial`.
        parameters: As in `Trial`.
        error: Why it failed; "" if it did not.
        weights: The weights that training changed, where a soup is made of them; else None.
        events: Those that another process reports.
    """

    number: int
    state: str
    score: float | None
    best: Mapping[str, Any] | None
    weights_sha256: str | None
    seconds: float
    trains: str = ""
    parameters: int = 0
    error: str = ""
    weights: Mapping[str, np.ndarray] | None = None
    events: Sequence[Event] = field(default=())


class Executor(Protocol):
    """Runs jobs.

    Attributes:
        slots: How many jobs may be open at a time.
    """

    slots: int

    def submit(self, job: Job) -> None:
        """Takes a job.

        Args:
            job: The job, while fewer than `slots` are open.
        """

    def next(self) -> Outcome:
        """Waits for the outcome of any open job.

        Raises:
            ToolkitError: What every further job would raise too.
        """


class SerialExecutor:
    """Runs one job at a time, in this process.

    Args:
        run: Trains a job.
    """

    slots = 1

    def __init__(self, run: Callable[[Job], Outcome]) -> None:
        self._run = run
        self._open: list[Job] = []

    def submit(self, job: Job) -> None:
        """Takes a job, which `next` runs.

        Args:
            job: The job.
        """
        self._open.append(job)

    def next(self) -> Outcome:
        """Runs the job that came first, and returns its outcome."""
        return self._run(self._open.pop(0))
