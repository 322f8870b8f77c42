"""Calibration: whether probabilities are what they say, and the temperature that mends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tl_toolkit.reports.charts import Series, plot_series
from tl_toolkit.reports.matrices import plot_bars
from tl_toolkit.reports.sections import Chart, DataTable, Part, Section, Text
from tl_toolkit.tasks.temperature import find_temperature, scale, take_logarithms

__all__ = [
    "ReliabilityBins",
    "build_calibration",
    "measure_calibration",
    "plot_reliability",
]

_BINS = 10


def build_calibration(sets: Mapping[str, tuple[np.ndarray, np.ndarray]], split: str) -> Section:
    """Returns the section of calibration for classes that exclude each other.

    Args:
        sets: Labels, int (n,), and probabilities, float (n, classes), by split.
        split: The split that the run is judged by.
    """
    labels, probabilities = sets[split]
    before = measure_calibration(*_find_confidence(labels, probabilities))
    numbers: dict[str, Any] = {"split": split, **before}
    rows = [["as predicted", 1.0, before["ece"], _measure_loss(labels, probabilities)]]
    parts: list[Part] = []
    if "validation" in sets:
        known, rows_known = sets["validation"]
        temperature = find_temperature(rows_known, known)
        softened = scale(probabilities, temperature)
        after = measure_calibration(*_find_confidence(labels, softened))
        rows.append(
            ["at the temperature", temperature, after["ece"], _measure_loss(labels, softened)]
        )
        numbers |= {"temperature": temperature, "ece_at_temperature": after["ece"]}
        parts.append(Text(_describe(temperature, split)))
    parts += [*plot_reliability(before, "images", "predictions that are right")]
    caption = f"The {split} images: expected calibration error (ECE) and cross-entropy"
    columns = ["probabilities", "temperature", "ECE", "cross-entropy"]
    return Section(
        "calibration", "Calibration", [*parts, DataTable(caption, columns, rows)], numbers
    )


def measure_calibration(hits: np.ndarray, confidences: np.ndarray) -> dict[str, Any]:
    """Compares how sure predictions are with how often they are right.

    Args:
        hits: bool (n,), whether each came true.
        confidences: float (n,) in [0, 1], the probability that it would.

    Returns:
        ece, the mean difference of the two over ten bins of equal width, weighted by their numbers
        (Guo et al., 2017); bins, those that are not empty: confidence, share and number.
    """
    bins = ReliabilityBins()
    bins.add(hits, confidences)
    return bins.result()


class ReliabilityBins:
    """Adds up how sure predictions are, and how often they are right, part by part."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._sums = np.zeros((2, _BINS))

    def add(self, hits: np.ndarray, confidences: np.ndarray) -> None:
        """Adds predictions.

        Args:
            hits: As in `measure_calibration`.
            confidences: As in `measure_calibration`.
        """
        edges = np.linspace(0, 1, _BINS + 1)[1:-1]
        places = np.searchsorted(edges, confidences)  # as scikit-learn
        self._counts += np.bincount(places, minlength=_BINS)
        for row, values in zip(self._sums, (confidences, hits), strict=True):
            row += np.bincount(places, values.astype(np.float64), _BINS)

    def result(self) -> dict[str, Any]:
        """Returns what `measure_calibration` does; an error of 0 where nothing was added."""
        filled = np.flatnonzero(self._counts)
        counts = self._counts[filled]
        means, shares = self._sums[:, filled] / counts
        gaps = counts * np.abs(means - shares)
        return {
            "ece": float(gaps.sum() / max(counts.sum(), 1)),
            "bins": [
                {"confidence": float(mean), "share": float(share), "number": int(count)}
                for mean, share, count in zip(means, shares, counts, strict=True)
            ],
        }


def plot_reliability(calibration: Mapping[str, Any], noun: str, title: str) -> list[Chart]:
    """Returns the reliability diagram, and how many predictions each bin has.

    Args:
        calibration: From `measure_calibration`.
        noun: What is counted, as "images".
        title: What the share is of.
    """
    bins = calibration["bins"]
    xs, ys = [each["confidence"] for each in bins], [each["share"] for each in bins]
    diagram = plot_series(
        "reliability", "Reliability",
        f"Share of {title} by their probability; on the diagonal they agree. Expected calibration "
        f"error {calibration['ece']:.3f}.",
        [Series("perfect", [0, 1], [0, 1], "reference"), Series("the run", xs, ys)],
        x_title="probability", y_title=f"share of {title}", x_limits=(0, 1), y_limits=(0, 1),
    )  # fmt: skip
    bars = [
        (f"about {each['confidence']:.2f}", each["number"], f"{each['number']:,}") for each in bins
    ]
    most = max(bins, key=lambda each: each["number"])
    counts = plot_bars(
        "confidence", f"Number of {noun} by probability",
        f"Most {noun}, {most['number']:,}, have a probability of about {most['confidence']:.2f}.",
        bars,
    )  # fmt: skip
    return [diagram, counts]


def _describe(temperature: float, split: str) -> str:
    words = "less sure" if temperature > 1 else "surer"
    own = ", on which it is also measured here" if split == "validation" else ""
    if abs(temperature - 1) < 0.05:
        return f"The probabilities need no other temperature ({temperature:.2f})."
    return (
        f"The model should be {words}: at a temperature of {temperature:.2f}, fitted to the "
        f"validation images{own}, labels are most likely. The class that is predicted stays the "
        "same."
    )


def _find_confidence(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, ...]:
    return probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)


def _measure_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-take_logarithms(probabilities)[np.arange(len(labels)), labels].mean())
