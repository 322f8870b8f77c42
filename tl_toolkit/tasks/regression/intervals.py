"""Intervals around numbers that hold the true ones as often as asked (split-conformal)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tl_toolkit.tasks.classification.metrics import find_interval

__all__ = ["find_half_widths", "measure_coverage"]


def find_half_widths(outputs: np.ndarray, targets: np.ndarray, coverage: float) -> np.ndarray:
    """Returns how far intervals reach to both sides of a prediction (Lei et al., 2018).

    Split-conformal: of n images the interval of the ceil((n + 1) * coverage) with the smallest
    errors holds the true number, so that it holds that of a new image with at least this
    probability. It has no end where n is too small for that.

    Args:
        outputs: float (n, columns), for images that have not trained.
        targets: float (n, columns).
        coverage: Share of the intervals that hold the true number, above 0 and below 1.

    Returns:
        float32 (columns,), rounded up.
    """
    errors = np.sort(np.abs(outputs.astype(np.float64) - targets), axis=0)
    rank = int(np.ceil((len(errors) + 1) * coverage))
    if rank > len(errors):
        return np.full(errors.shape[1], np.inf, np.float32)
    exact = errors[rank - 1]
    rounded = exact.astype(np.float32)
    above = np.nextafter(rounded, np.float32(np.inf), dtype=np.float32)
    return np.asarray(np.where(rounded < exact, above, rounded))


def measure_coverage(
    targets: np.ndarray,
    outputs: np.ndarray,
    half_widths: np.ndarray,
    per_column: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Returns how often intervals hold the true number.

    Args:
        targets: float (n, columns).
        outputs: float (n, columns).
        half_widths: float32 (columns,), from `find_half_widths`.
        per_column: Metrics of each column, which receive `coverage` and `half_width`, None for a
            width without end.

    Returns:
        coverage, the mean of the columns; of a single column also its interval.
    """
    errors = np.abs(outputs.astype(np.float64) - targets)
    hits = (errors <= half_widths.astype(np.float64)).sum(axis=0)
    for values, count, width in zip(per_column.values(), hits, half_widths, strict=True):
        values["coverage"] = int(count) / len(targets)
        values["half_width"] = float(width) if np.isfinite(width) else None
    measured: dict[str, Any] = {"coverage": float(hits.mean() / len(targets))}
    if len(hits) == 1:
        bounds = find_interval(int(hits[0]), len(targets))
        measured["intervals"] = {"coverage": list(bounds)}
    return measured
