"""What a soup is made of: the weights of the best trials, as files; and what became of it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.plan.plan import Plan
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.training.loop import Trainer
from tl_toolkit.training.soup import Soup
from tl_toolkit.tuning.journal import Trial

__all__ = ["Averaged", "Candidates"]


@dataclass(frozen=True)
class Averaged:
    """A mean of the weights of trials, in the model of a trainer.

    Attributes:
        plan: Plan of the best of them.
        trainer: The trainer.
        soup: The mean.
        trials: The candidates in the order in which they were tried.
        objective: Name of the score.
    """

    plan: Plan
    trainer: Trainer
    soup: Soup
    trials: tuple[Trial, ...]
    objective: str

    @property
    def members(self) -> list[int]:
        """Numbers of the trials whose weights are in the mean."""
        pairs = zip(self.trials, self.soup.members, strict=True)
        return [trial.number for trial, is_member in pairs if is_member]

    def as_summary(self) -> dict[str, Any]:
        """Returns the members, the score, and for each candidate the mean with it."""
        rows = zip(self.trials, self.soup.tried, self.soup.members, strict=True)
        return {
            "members": self.members,
            "score": self.soup.best.as_row()[self.objective],
            "best_trial": {"number": self.trials[0].number, "score": self.trials[0].score},
            "candidates": [
                {
                    "trial": trial.number,
                    "score": trial.score,
                    "mean_with_it": epoch.as_row()[self.objective],
                    "is_member": is_member,
                }
                for trial, epoch, is_member in rows
            ],
        }


class Candidates:
    """Keeps the weights of the best completed trials, and no others, on disk.

    Args:
        folder: Holds a file for each trial.
        most: Number of trials whose weights are kept.
        is_max: Whether a greater score is better.
    """

    def __init__(self, folder: Path, *, most: int, is_max: bool) -> None:
        self._folder = folder
        self._most = most
        self._is_max = is_max

    def rank(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns the trials whose weights are kept, the best first, and of equals the first.

        Args:
            trials: All trials so far.
        """
        kept = [
            trial
            for trial in trials
            if trial.score is not None and self._file(trial.number).is_file()
        ]
        return sorted(kept, key=self._place)

    def _place(self, trial: Trial) -> float:
        score = trial.score or 0.0
        return -score if self._is_max else score

    def keep(
        self, trial: Trial, weights: Mapping[str, np.ndarray], before: Sequence[Trial]
    ) -> None:
        """Writes the weights of a trial, if it is one of the best, and removes those of the worst.

        Weights that are kept already, as of trials that all fell back to their first phase, are not
        kept again.

        Args:
            trial: A completed trial that is not in the journal yet.
            weights: What it kept, by canonical name.
            before: All trials before it.

        Raises:
            OutputError: The folder cannot be written, or the disk is full.
        """
        kept = self.rank([other for other in before if other.number != trial.number])
        if trial.weights_sha256 in {other.weights_sha256 for other in kept}:
            return
        best = sorted([*kept, trial], key=self._place)[: self._most]
        if trial in best:
            self._folder.mkdir(exist_ok=True)
            buffer = io.BytesIO()
            named: Any = weights  # NumPy types every keyword as its one option
            np.savez(buffer, **named)
            write_atomically(self._file(trial.number), buffer.getvalue())
        for other in kept:
            if other not in best:
                self._file(other.number).unlink()

    def read(self, trial: Trial) -> dict[str, np.ndarray]:
        """Reads the weights of a trial.

        Args:
            trial: One of those that `rank` returns.

        Raises:
            DataError: The file is damaged.
        """
        path = self._file(trial.number)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError) as error:
            what = f"cannot be read: {error}"
            expected = "It holds the weights of a trial for search.soup."
            raise DataError(Problem(str(path), what, expected, "a new search")) from error

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:05d}.npz"
