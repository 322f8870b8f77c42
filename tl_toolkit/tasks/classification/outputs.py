"""What probabilities say of a file: light, so that an export predicts without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tl_toolkit.tasks.classification.spec import ClassificationSection
from tl_toolkit.tasks.predictions import Table, name_columns

__all__ = ["ClassReader", "ClassPrediction", "build", "class_probabilities"]


def build(
    section: ClassificationSection, classes: Sequence[str], state: Mapping[str, Any]
) -> ClassReader:
    """Returns how the outputs of an export are read.

    Args:
        section: The recipe's section.
        classes: Class names in the order of the outputs.
        state: What the task learned.
    """
    return ClassReader(tuple(classes), state.get("threshold"))


@dataclass(frozen=True)
class ClassPrediction:
    """The classes of one file.

    Attributes:
        path: The file.
        label: The most probable class; None when the file was refused.
        probabilities: Probability in [0, 1] by class name; empty when refused.
        error: Why the file was refused; None when it was not.
        label_set: The classes that it may be, under `task.coverage`; None where there are no sets.
    """

    path: str
    label: str | None
    probabilities: Mapping[str, float]
    error: str | None = None
    label_set: tuple[str, ...] | None = None

    @property
    def probability(self) -> float | None:
        """Probability of `label`."""
        return self.probabilities[self.label] if self.label is not None else None

    def as_record(self) -> dict[str, Any]:
        """Returns what `--format jsonl` prints."""
        return {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
            **({} if self.label_set is None else {"label_set": list(self.label_set)}),
            "error": self.error,
        }


@dataclass(frozen=True)
class ClassReader:
    """Reads probabilities.

    Attributes:
        classes: Class names in the order of the outputs.
        threshold: The least probability of a class in a label set; None for no label sets.
        served: The output of an export that is read.
    """

    classes: tuple[str, ...]
    threshold: float | None = None
    served: ClassVar[str] = "probabilities"

    def describe(self, path: Path, output: np.ndarray | None, error: str | None) -> ClassPrediction:
        """Returns the prediction for a file.

        Args:
            path: The file.
            output: Probabilities, float32 (classes,), with a sigmoid (1,); None for a refused file.
            error: Why the file was refused, or None.
        """
        if output is None:
            return ClassPrediction(str(path), None, {}, error)
        row = class_probabilities(output[np.newaxis])[0]
        label_set = None
        if self.threshold is not None:
            least = np.float32(self.threshold)
            label_set = tuple(
                name for name, value in zip(self.classes, row, strict=True) if value >= least
            )
        return ClassPrediction(
            str(path),
            self.classes[int(row.argmax())],
            dict(zip(self.classes, map(float, row), strict=True)),
            label_set=label_set,
        )

    def tabulate(self, records: Sequence[Mapping[str, Any]], *, wide: bool = False) -> Table:
        """Returns class and probability of each file.

        Args:
            records: Predictions.
            wide: Include the probability of every class.
        """
        names = self.classes if wide else ()
        titles = ["path" if wide else "file", "label" if wide else "class", "probability"]
        return Table(
            [*titles, *name_columns("probability", names)],
            [
                [
                    record["path"],
                    record["label"],
                    record["probability"],
                    *map(record["probabilities"].get, names),
                ]
                for record in records
            ],
        )


def class_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Turns a sigmoid's single column into two; leaves a softmax's columns as they are.

    Args:
        outputs: float32 (n, 1) or (n, classes).

    Returns:
        float32 (n, classes), at least two columns.
    """
    if outputs.shape[1] > 1:
        return outputs
    return np.concatenate([1.0 - outputs, outputs], axis=1)
