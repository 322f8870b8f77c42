"""What probabilities of several labels say of a file, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tl_toolkit.tasks.multilabel.spec import DEFAULT_THRESHOLD, MultilabelSection
from tl_toolkit.tasks.predictions import Table, name_columns

__all__ = ["LabelsReader", "LabelsPrediction", "build", "fill_thresholds"]


def build(
    section: MultilabelSection, classes: Sequence[str], state: Mapping[str, Any]
) -> LabelsReader:
    """Returns how the outputs of an export are read.

    Args:
        section: The recipe's section.
        classes: Class names in the order of the outputs.
        state: What the task learned.
    """
    thresholds = fill_thresholds(section.threshold, len(classes))
    if learned := state.get("thresholds"):  # none yet, of an interrupted run
        thresholds = np.array([learned[name] for name in classes], np.float32)
    return LabelsReader(tuple(classes), thresholds, section.separator)


def fill_thresholds(threshold: float | str, count: int) -> np.ndarray:
    """Returns the thresholds before validation images have chosen them, float32 (count,).

    Args:
        threshold: As in the recipe: a probability, or validation.
        count: Number of classes.
    """
    value = threshold if isinstance(threshold, float) else DEFAULT_THRESHOLD
    return np.full(count, value, np.float32)


@dataclass(frozen=True)
class LabelsPrediction:
    """The classes of one file.

    Attributes:
        path: The file.
        labels: Those whose probability is at least their threshold; none when refused.
        probabilities: Probability in [0, 1] by class name; empty when refused.
        error: Why the file was refused; None when it was not.
    """

    path: str
    labels: tuple[str, ...]
    probabilities: Mapping[str, float]
    error: str | None = None

    def as_record(self) -> dict[str, Any]:
        """Returns what `--format jsonl` prints."""
        return {
            "path": self.path,
            "labels": list(self.labels),
            "probabilities": dict(self.probabilities),
            "error": self.error,
        }


@dataclass(frozen=True)
class LabelsReader:
    """Reads probabilities of several labels.

    Attributes:
        classes: Class names in the order of the outputs.
        thresholds: float32 (classes,), the probability from which on each is predicted.
        separator: What stands between names of classes in a table.
        served: The output of an export that is read.
    """

    classes: tuple[str, ...]
    thresholds: np.ndarray
    separator: str
    served: ClassVar[str] = "probabilities"

    def select(self, probabilities: np.ndarray) -> tuple[str, ...]:
        """Returns the names of the classes that are predicted.

        Args:
            probabilities: float32 (classes,).
        """
        return self.name_labels(probabilities >= self.thresholds)

    def name_labels(self, flags: np.ndarray) -> tuple[str, ...]:
        """Returns the names of classes.

        Args:
            flags: bool (classes,), whether each is meant.
        """
        return tuple(name for name, is_set in zip(self.classes, flags, strict=True) if is_set)

    def describe(
        self, path: Path, output: np.ndarray | None, error: str | None
    ) -> LabelsPrediction:
        """Returns the prediction for a file.

        Args:
            path: The file.
            output: float32 (classes,), or None.
            error: Why the file was refused, or None.
        """
        if output is None:
            return LabelsPrediction(str(path), (), {}, error)
        probabilities = dict(zip(self.classes, map(float, output), strict=True))
        return LabelsPrediction(str(path), self.select(output), probabilities)

    def tabulate(self, records: Sequence[Mapping[str, Any]], *, wide: bool = False) -> Table:
        """Returns the classes of each file.

        Args:
            records: Predictions.
            wide: Include the probability of every class.
        """
        names = self.classes if wide else ()
        return Table(
            ["path" if wide else "file", "labels", *name_columns("probability", names)],
            [
                [
                    record["path"],
                    (self.separator if wide else ", ").join(record["labels"]),
                    *map(record["probabilities"].get, names),
                ]
                for record in records
            ],
        )
