"""Predictions as tables, and predictions.csv as it is read again, to compute metrics of it.

`metrics.py` of each task's folder has `sample_predictions(columns, classes, state, section)`, which
returns a `Sample`: two runs are compared by what they predicted, and no model is opened for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

__all__ = ["Columns", "OutputReader", "Prediction", "Table", "name_columns", "read_numbers"]

Columns = Mapping[str, Sequence[str]]
"""The cells of each column, by its name, for the images of one split."""


@dataclass(frozen=True)
class Table:
    """Columns and rows, to be printed or written as CSV.

    Attributes:
        columns: Names of the columns.
        rows: The rows, with a value for each column.
    """

    columns: list[str]
    rows: list[list[Any]]


class Prediction(Protocol):
    """A model's prediction for one file."""

    @property
    def path(self) -> str:
        """The file."""

    @property
    def error(self) -> str | None:
        """Why the file was refused; None when it was not."""

    def as_record(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""


class OutputReader(Protocol):
    """What the outputs of a model say; `outputs.py` of a task builds it without TensorFlow.

    Attributes:
        served: The output of an export that is read, where it has several.
    """

    @property
    def served(self) -> str:
        """The output of an export that is read, where it has several."""

    def describe(self, path: Path, output: np.ndarray | None, error: str | None) -> Prediction:
        """Returns the prediction for a file.

        Args:
            path: The file.
            output: As an export gives it, (units,); None for a file that was refused.
            error: Why the file was refused; None otherwise.
        """

    def tabulate(self, records: Sequence[Mapping[str, Any]], *, wide: bool = False) -> Table:
        """Returns predictions as a table.

        Args:
            records: Records from `Prediction.as_record`, those that carry no error.
            wide: Include every number, for CSV; else only those that fit a terminal.
        """


def name_columns(prefix: str, names: Sequence[str]) -> list[str]:
    """Returns columns of a CSV file for classes, which may be called `path`, `label` or `error`.

    Args:
        prefix: What the numbers are: probability, share or predicted.
        names: Names of the classes.
    """
    return [f"{prefix}_{name}" for name in names]


def read_numbers(columns: Columns, names: Sequence[str]) -> np.ndarray:
    """Returns columns as float32 (n, names), the numbers that were written.

    Args:
        columns: The cells.
        names: Names of the columns.
    """
    return np.array([[float(cell) for cell in columns[name]] for name in names], np.float32).T
