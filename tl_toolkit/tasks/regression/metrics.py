"""Metrics of regression, in the units of the targets (scikit-learn's definitions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from tl_toolkit.tasks.predictions import Columns, name_columns, read_numbers
from tl_toolkit.tasks.resampling import Sample

__all__ = ["measure_regression", "sample_predictions", "sample_values"]


def measure_regression(
    targets: np.ndarray,
    predictions: np.ndarray,
    columns: Sequence[str],
    baseline_means: np.ndarray,
) -> dict[str, Any]:
    """Compares predictions, and the mean of the training targets, with targets.

    Args:
        targets: float (n, columns), n >= 1, finite.
        predictions: float (n, columns), finite, in the units of the targets.
        columns: Names of the columns.
        baseline_means: float (columns,), the means of the training targets.

    Returns:
        images; mae, rmse and r2, each the mean of the columns' values; per_column (the same three
        for each); and mean: all of these for a model that predicts `baseline_means` for every
        image. r2 is 1 - (squared errors / squared deviations from the split's own mean). Where
        the targets do not vary it is 1 if all predictions are exact and else 0.
    """
    baseline = np.broadcast_to(baseline_means, targets.shape)
    return {
        "images": len(targets),
        **_measure(targets, predictions, columns),
        "mean": _measure(targets, baseline, columns),
    }


def sample_values(
    targets: np.ndarray, predictions: np.ndarray, *, losses: np.ndarray | None = None
) -> Sample:
    """Returns the images as MAE, RMSE, R2 and loss are computed from them.

    Args:
        targets: As in `measure_regression`.
        predictions: As in `measure_regression`.
        losses: float (n,), the loss of each image; without them there is no loss.
    """
    errors = predictions.astype(np.float64) - targets
    # R2 does not depend on where 0 is, and sums of squares of small values lose no digits.
    values = targets.astype(np.float64) - targets.mean(axis=0, dtype=np.float64)

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        images = counts.sum(axis=1, keepdims=True)
        squares = counts @ errors**2
        spread_out = counts @ values**2 - (counts @ values) ** 2 / images
        varies = spread_out > 1e-12 * np.abs(counts @ values**2)
        r2 = np.where(varies, 1 - squares / np.where(varies, spread_out, 1.0), squares == 0)
        measured = {
            "mae": (counts @ np.abs(errors) / images).mean(axis=1),
            "rmse": np.sqrt(squares / images).mean(axis=1),
            "r2": r2.mean(axis=1),
        }
        if losses is not None:
            measured["loss"] = counts @ losses.astype(np.float64) / images[:, 0]
        return measured

    return Sample(len(targets), measure)


def sample_predictions(
    columns: Columns, classes: Sequence[str], state: Mapping[str, Any], section: Any
) -> Sample:
    """Returns images of predictions.csv as `sample_values` does, without the loss.

    Args:
        columns: As in `tl_toolkit.tasks.predictions`.
        classes: Names of the table's columns, in the order of the model's outputs.
        state: Not used.
        section: Not used.
    """
    predicted = read_numbers(columns, name_columns("predicted", classes))
    return sample_values(read_numbers(columns, classes), predicted)


def _measure(
    targets: np.ndarray, predictions: np.ndarray, columns: Sequence[str]
) -> dict[str, Any]:
    # In float64: scikit-learn would subtract large float32 values as they are.
    targets, predictions = targets.astype(np.float64), predictions.astype(np.float64)
    if len(targets) == 1:  # has no variance, of which scikit-learn warns; two equal rows have none
        targets, predictions = targets.repeat(2, axis=0), predictions.repeat(2, axis=0)
    values = {
        "mae": metrics.mean_absolute_error(targets, predictions, multioutput="raw_values"),
        "rmse": metrics.root_mean_squared_error(targets, predictions, multioutput="raw_values"),
        "r2": metrics.r2_score(targets, predictions, multioutput="raw_values"),
    }
    return {
        **{name: float(value.mean()) for name, value in values.items()},
        "per_column": {
            column: {name: float(value[index]) for name, value in values.items()}
            for index, column in enumerate(columns)
        },
    }
