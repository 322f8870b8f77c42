"""How far a metric may be from that of new images, and whether two models can be told apart.

Images are resampled with replacement (Efron, 1979): each of 1,000 resamples is a row of counts, how
often each image is in it, and metrics are computed from all rows at once. Resamples depend on the
number of images alone, so that two models on the same images are compared on the same resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Sample", "compare_samples", "find_intervals", "sum_groups"]

RESAMPLES = 1_000
CERTAINTY = 0.95

_SEED = 0
_CELLS = 4_000_000  # of counts that are held at a time


@dataclass(frozen=True)
class Sample:
    """A split as its metrics are computed from it, image by image.

    Attributes:
        images: Their number.
        measure: From counts, float64 (resamples, images), to the values (resamples,) of metrics.
        hits: bool (images,), which are predicted right; None where a prediction is more or less so.
    """

    images: int
    measure: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    hits: np.ndarray | None = None


def find_intervals(sample: Sample) -> dict[str, list[float]]:
    """Returns the 95 % interval of each metric, by the percentiles of its resamples.

    Args:
        sample: The split; of a single image there are no intervals.
    """
    if sample.images < 2:
        return {}
    return {
        name: _cover(values)
        for name, values in _resample(sample).items()
        if np.isfinite(values).all()
    }


def compare_samples(run: Sample, other: Sample, metric: str) -> dict[str, Any]:
    """Compares two models on the same images.

    Where images are predicted right or wrong, by McNemar's exact test (1947): of the images that
    one model alone predicts right, each has them with the same chance if they are equally good.
    Else by the difference of a metric over the same resamples.

    Args:
        run: The images as the run's model predicts them.
        other: The same images, in the same order, as the other model does.
        metric: The metric that is compared where there are no hits; higher is better.

    Returns:
        `verdict`, which is better, worse or open; and `test`: mcnemar with `only_run`, `only_other`
        (images that one alone predicts right) and `p`, or bootstrap with `metric`, `difference`
        (the run's minus the other's) and `interval`.
    """
    if run.hits is not None and other.hits is not None:
        return _test_hits(run.hits, other.hits)
    ones = np.ones((1, run.images))
    difference = float(run.measure(ones)[metric][0] - other.measure(ones)[metric][0])
    low, high = _cover(_resample(run)[metric] - _resample(other)[metric])
    verdict = "better" if low > 0 else "worse" if high < 0 else "open"
    return {
        "verdict": verdict,
        "test": "bootstrap",
        "metric": metric,
        "difference": difference,
        "interval": [low, high],
    }


def sum_groups(counts: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    """Returns how often the images of each group count, float64 (resamples, number).

    Args:
        counts: float64 (resamples, images).
        groups: int (images,), the group of each, from 0.
        number: Number of groups.
    """
    rows = len(counts)
    cells = groups + number * np.arange(rows)[:, np.newaxis]
    sums = np.bincount(cells.ravel(), weights=counts.ravel(), minlength=rows * number)
    return sums.reshape(rows, number)


def _test_hits(run: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    from scipy.special import bdtr

    only_run, only_other = int((run & ~other).sum()), int((other & ~run).sum())
    differing = only_run + only_other
    p = min(1.0, 2 * float(bdtr(min(only_run, only_other), differing, 0.5))) if differing else 1.0
    verdict = "open"
    if p < 1 - CERTAINTY:
        verdict = "better" if only_run > only_other else "worse"
    return {
        "verdict": verdict,
        "test": "mcnemar",
        "only_run": only_run,
        "only_other": only_other,
        "p": p,
    }


def _resample(sample: Sample) -> dict[str, np.ndarray]:
    """Returns the values of each metric, (RESAMPLES,)."""
    random = np.random.default_rng(_SEED)
    step = max(1, min(RESAMPLES, _CELLS // sample.images))
    parts = []
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        places = random.integers(0, sample.images, (rows, sample.images))
        cells = places + sample.images * np.arange(rows)[:, np.newaxis]
        counts = np.bincount(cells.ravel(), minlength=places.size).reshape(places.shape)
        parts.append(sample.measure(counts.astype(np.float64)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _cover(values: np.ndarray) -> list[float]:
    tail = 50 * (1 - CERTAINTY)
    low, high = np.percentile(values, [tail, 100 - tail])
    return [float(low), float(high)]
