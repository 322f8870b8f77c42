"""Classification metrics from probabilities.

Without scikit-learn, whose import would take longer than many a whole evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_toolkit.errors import Problem, RecipeError, ThresholdError, closest


def measure(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Compares probabilities with the right answers.

    Args:
        labels: int (n,), indices into `classes`.
        probabilities: float (n, classes), rows adding up to 1.
        classes: Class names in the order of the columns.

    Returns:
        images, accuracy, balanced_accuracy and macro_f1 (means over the classes that have images),
        loss (mean cross-entropy in nats, probabilities at least 1e-7), per_class (precision,
        recall, f1, images) and confusion (rows are right answers, columns predictions).
    """
    answers = probabilities.argmax(axis=1)
    count = len(classes)
    confusion = np.bincount(labels * count + answers, minlength=count**2).reshape(count, count)
    right = confusion.diagonal().astype(np.float64)
    support, given = confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = right / np.maximum(given, 1), right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(given + support, 1)
    seen = np.unique(labels)
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1.0)
    return {
        "images": len(labels),
        "accuracy": float((answers == labels).mean()),
        "balanced_accuracy": float(recall[seen].mean()),
        "macro_f1": float(f1[seen].mean()),
        "loss": float(-np.log(clipped[np.arange(len(labels)), labels]).mean()),
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "images": int(support[index]),
            }
            for index, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
    }


def check_names(thresholds: Mapping[str, float], metrics: Mapping[str, Any]) -> None:
    """Refuses thresholds of metrics that a run has not, before anything is measured.

    Args:
        thresholds: Limits by name.
        metrics: What the run's metrics.json holds.

    Raises:
        RecipeError: With all of them.
    """
    for split in ("validation", "test"):
        if split in metrics:
            _refuse_unknown(thresholds, _numbers(metrics[split]))
            return


def check_thresholds(metrics: Mapping[str, Any], thresholds: Mapping[str, float]) -> None:
    """Compares metrics with the least values that were asked for.

    Of a loss or an angle, which are the better the less they are, with the greatest values.

    Raises:
        RecipeError: There is no metric of that name.
        ThresholdError: A metric is worse than its threshold.
    """
    _refuse_unknown(thresholds, _numbers(metrics))
    problems = []
    for name, limit in thresholds.items():
        value, at_most = metrics[name], name == "loss" or name.endswith("_angle")
        if value > limit if at_most else value < limit:
            problems.append(
                Problem(
                    where=f"--fail-under {name}={limit:g}",
                    what=f"{name} = {value:.4f}",
                    expected=f"Asked for {'at most' if at_most else 'at least'} {limit:g}.",
                )
            )
    if problems:
        raise ThresholdError(problems)


def _numbers(metrics: Mapping[str, Any]) -> list[str]:
    """Returns what a threshold can be set on: the threshold of an edge is no quality."""
    return [
        name
        for name, value in metrics.items()
        if isinstance(value, float) and not name.endswith("_threshold")
    ]


def _refuse_unknown(thresholds: Mapping[str, float], known: Sequence[str]) -> None:
    problems = [
        Problem(
            where=f"--fail-under {name}={limit:g}",
            what=f"{name!r} is no metric of the run; {closest(name, known)}".rstrip("; "),
            expected=f"One of {', '.join(known)}.",
        )
        for name, limit in thresholds.items()
        if name not in known
    ]
    if problems:
        raise RecipeError(problems)
