"""predictions.csv as it is read again, to compute metrics of it.

`metrics.py` of each task's folder has `sample_predictions(columns, classes, state, section)`, which
returns a `Sample`: two runs are compared by what they predicted, and no model is opened for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["Columns", "name_columns", "read_numbers"]

Columns = Mapping[str, Sequence[str]]
"""The cells of each column, by its name, for the images of one split."""


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
