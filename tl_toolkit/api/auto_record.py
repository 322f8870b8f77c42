"""What `auto` tried, in its folder: bases, trials, finished runs, and the one that is chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tl_toolkit.api.rank_bases import RankedBase
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.folder import RunFolder

__all__ = ["AutoRecord", "FinishedRun", "describe_score", "slug"]


def slug(name: str) -> str:
    """Returns the name of a base as names of folders have it.

    Args:
        name: As mobilenet:alpha=0.25.
    """
    return re.sub("[^A-Za-z0-9.]+", "-", name)


def describe_score(score: float | None, interval: tuple[float, float] | None) -> str:
    """Returns a score and its interval, as 0.930 (0.902 to 0.951).

    Args:
        score: The score.
        interval: Its 95 % interval; None where there is none.
    """
    bounds = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return f"{score:.3f}{bounds}"


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of `auto`.

    Attributes:
        name: Its folder, below that of `auto`.
        base: Its base, as `rank_bases` names it.
        about: What it is, in words.
        score: The task's score on validation images.
        interval: Its 95 % interval; None where there is none.
        images: Validation images.
        trained_by: Training images.
        operations: Multiply-accumulates of its model for an image.
        trained: Weights of the base that were trained.
        seconds: What it took.
        objective: What trials of a search are judged by, of the epoch that it keeps.
    """

    name: str
    base: str
    about: str
    score: float
    interval: tuple[float, float] | None
    images: int
    trained_by: int
    operations: int
    trained: int
    seconds: float
    objective: float

    @property
    def cost(self) -> tuple[int, int, float]:
        """By which runs that are not to be told apart are chosen: the least first."""
        return self.operations, self.trained, self.seconds


@dataclass
class AutoRecord:
    """All that `auto` did, kept in auto.json after each step.

    Attributes:
        asked: What it was asked for; a resumed one must agree.
        minutes: The budget.
        metric: Name of the score.
        seconds: What is spent of the budget.
        bases: Bases that were judged.
        skipped: Why others were not, by name.
        runs: Finished runs.
        trials: A row for each trial: base, number, values, score, seconds.
        chosen: Name of the run that is chosen; "" before there is one.
        tied: Names of the runs that it is not to be told apart from.
        why: Sentences on each choice.
        pace: What was measured, by which it is known what fits.
        tuned: The base that is tuned; "" before it is chosen.
        steps: Seconds by step, over all calls.
    """

    asked: Mapping[str, Any]
    minutes: float
    metric: str = ""
    seconds: float = 0.0
    bases: list[RankedBase] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    runs: list[FinishedRun] = field(default_factory=list)
    trials: list[dict[str, Any]] = field(default_factory=list)
    chosen: str = ""
    tied: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    pace: Mapping[str, Any] = field(default_factory=dict)
    tuned: str = ""
    steps: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""
        return asdict(self)

    def write(self, folder: RunFolder) -> None:
        """Writes auto.json.

        Args:
            folder: The folder of `auto`.
        """
        write_json(folder.auto, self.as_json())

    @classmethod
    def read(cls, folder: RunFolder) -> AutoRecord:
        """Reads auto.json.

        Args:
            folder: The folder of `auto`.

        Raises:
            DataError: It is missing or damaged.
        """
        values = folder.read_json(folder.auto)
        bases = [RankedBase(**_with_tuples(row)) for row in values["bases"]]
        runs = [FinishedRun(**_with_tuples(row)) for row in values["runs"]]
        return cls(**{**values, "bases": bases, "runs": runs})

    def find(self, name: str) -> FinishedRun | None:
        """Returns a finished run by its name; None for one that is not there.

        Args:
            name: Its folder, below that of `auto`.
        """
        return next((run for run in self.runs if run.name == name), None)

    def find_search(self, folder: RunFolder) -> RunFolder:
        """Returns the folder of the search that the trials are of.

        Args:
            folder: The folder of `auto`.
        """
        return RunFolder(folder.searches / slug(self.trials[0]["base"]))

    def add_run(self, run: FinishedRun) -> None:
        """Adds a finished run, or replaces the one of its name.

        Args:
            run: The run.
        """
        self.runs = [each for each in self.runs if each.name != run.name] + [run]

    def choose(self, run: FinishedRun, tied: Sequence[FinishedRun]) -> None:
        """Notes the run that is chosen.

        Args:
            run: The run.
            tied: The runs that it is not to be told apart from.
        """
        self.chosen, self.tied = run.name, [each.name for each in tied]


def _with_tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns fields as they were before JSON made lists of tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
