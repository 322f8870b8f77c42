"""What the numbers of a model say of a file, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tl_toolkit.tasks.predictions import Table, name_columns
from tl_toolkit.tasks.regression.spec import RegressionSection

__all__ = ["ValuesReader", "ValuesPrediction", "build", "read_half_widths", "shorten"]


def build(
    section: RegressionSection, classes: Sequence[str], state: Mapping[str, Any]
) -> ValuesReader:
    """Returns how the outputs of an export are read.

    Args:
        section: Not used.
        classes: The columns that are predicted, in the order of the outputs.
        state: What the task learned: how wide intervals are, where they were asked for. The model
            itself gives numbers in the units of the table.
    """
    return ValuesReader(tuple(classes), read_half_widths(state, classes))


@dataclass(frozen=True)
class ValuesPrediction:
    """The numbers of one file.

    Attributes:
        path: The file.
        values: By column, in the units of the table; empty when the file was refused.
        error: Why it was refused; None when it was not.
        intervals: From and to by column, under `task.coverage`; None where there are none.
    """

    path: str
    values: Mapping[str, float]
    error: str | None = None
    intervals: Mapping[str, tuple[float, float]] | None = None

    def as_record(self) -> dict[str, Any]:
        """Returns what `--format jsonl` prints; null stands for an end that is infinite."""
        record = {"path": self.path, "values": dict(self.values), "error": self.error}
        if self.intervals is None:
            return record
        ends = {
            name: [end if np.isfinite(end) else None for end in ends]
            for name, ends in self.intervals.items()
        }
        return {**record, "intervals": ends}


@dataclass(frozen=True)
class ValuesReader:
    """Reads numbers in the units of the table.

    Attributes:
        classes: The columns that are predicted, in the order of the outputs.
        half_widths: Half the width of each column's interval, float32 (columns,); None for no
            intervals.
        served: The output of an export that is read.
    """

    classes: tuple[str, ...]
    half_widths: np.ndarray | None = None
    served: ClassVar[str] = "values"

    def describe(
        self, path: Path, output: np.ndarray | None, error: str | None
    ) -> ValuesPrediction:
        """Returns the prediction for a file.

        Args:
            path: The file.
            output: float32 (columns,), or None.
            error: Why the file was refused, or None.
        """
        if output is None:
            return ValuesPrediction(str(path), {}, error)
        values = dict(zip(self.classes, map(shorten, output), strict=True))
        if self.half_widths is None:
            return ValuesPrediction(str(path), values, error)
        bounds = zip(output - self.half_widths, output + self.half_widths, strict=True)
        pairs = [(shorten(low), shorten(high)) for low, high in bounds]
        return ValuesPrediction(
            str(path), values, error, intervals=dict(zip(self.classes, pairs, strict=True))
        )

    def tabulate(self, records: Sequence[Mapping[str, Any]], *, wide: bool = False) -> Table:
        """Returns the numbers of each file.

        Args:
            records: Predictions.
            wide: Whether it is for CSV.
        """
        rows: list[list[Any]] = []
        for record in records:
            values = [record["values"].get(name) for name in self.classes]  # none of a refused file
            # Six digits whatever the unit: with four behind the point a dose of 0.00002 is 0.
            shown = [None if value is None else f"{value:.6g}" for value in values]
            rows.append([record["path"], *(values if wide else shown)])
        if wide:
            return Table(["path", *name_columns("predicted", self.classes)], rows)
        return Table(["file", *self.classes], rows)


def read_half_widths(state: Mapping[str, Any], classes: Sequence[str]) -> np.ndarray | None:
    """Returns half the width of each column's interval, float32 (columns,); None without them.

    Args:
        state: What the task learned; None in it stands for an interval without end.
        classes: The columns.
    """
    columns = state.get("columns", {})
    widths = [columns.get(name, {}).get("half_width", "none") for name in classes]
    if "none" in widths:
        return None
    return np.array([np.inf if width is None else width for width in widths], np.float32)


def shorten(value: np.float32) -> float:
    """Returns the number with the fewest digits that is this float32: 73.96, not 73.95999908.

    Args:
        value: A number.
    """
    return float(str(value))
