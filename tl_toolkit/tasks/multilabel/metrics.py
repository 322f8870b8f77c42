"""Metrics of multi-label classification, and the threshold of each class (scikit-learn)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics

from tl_toolkit.tasks.multilabel.spec import DEFAULT_THRESHOLD, MultilabelSection
from tl_toolkit.tasks.predictions import Columns, name_columns, read_numbers
from tl_toolkit.tasks.resampling import Sample

__all__ = [
    "choose_thresholds",
    "measure_multilabel",
    "sample_labels",
    "sample_predictions",
]


def measure_multilabel(
    targets: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    classes: Sequence[str],
    *,
    losses: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compares the predicted probabilities of a split with its targets.

    An image is predicted to have a class if its probability is at least the class's threshold.

    Args:
        targets: int (n, classes), n >= 1, 1 where an image has a class, else 0.
        probabilities: float (n, classes), each in [0, 1].
        thresholds: float (classes,).
        classes: Class names in the order of the columns.
        losses: float (n,), the training loss of each image, computed from logits. Without them the
            loss is computed from the probabilities, and a mistake costs at most 36 nats.

    Returns:
        images, mean_average_precision and macro_f1 (means over the classes that have images),
        micro_f1 (over all decisions together), loss (mean binary cross-entropy in nats) and
        per_class (average_precision, f1, precision, recall, threshold, images). Values that are
        undefined, as those of a class without images, are 0.
    """
    targets, predictions = targets.astype(int), (probabilities >= thresholds).astype(int)
    per_class = {
        name: _measure_class(targets[:, index], predictions[:, index], probabilities[:, index])
        | {"threshold": float(thresholds[index]), "images": int(targets[:, index].sum())}
        for index, name in enumerate(classes)
    }
    present = [values for values in per_class.values() if values["images"]]
    return {
        "images": len(targets),
        "mean_average_precision": _mean([values["average_precision"] for values in present]),
        "micro_f1": _measure_f1(targets.ravel(), predictions.ravel())["f1"],
        "macro_f1": _mean([values["f1"] for values in present]),
        "loss": _measure_loss(targets, probabilities)
        if losses is None
        else float(losses.mean(dtype=np.float64)),
        "per_class": per_class,
    }


def sample_labels(
    targets: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    *,
    losses: np.ndarray | None = None,
) -> Sample:
    """Returns the images as means of average precision and F1, and the loss, are computed from.

    Args:
        targets: As in `measure_multilabel`.
        probabilities: As in `measure_multilabel`.
        thresholds: As in `measure_multilabel`; they stay what they are in each resample.
        losses: As in `measure_multilabel`; without them there is no loss.
    """
    targets, predictions = targets.astype(np.float64), (probabilities >= thresholds).astype(float)

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        hits, support = counts @ (targets * predictions), counts @ targets
        both = support + counts @ predictions
        present = support > 0
        precision = np.stack(
            [_average_precisions(counts, *columns) for columns in
             zip(targets.T, probabilities.T, strict=True)], axis=1,
        )  # fmt: skip
        classes = np.maximum(present.sum(axis=1), 1)
        f1 = 2 * hits / np.maximum(both, 1)
        values = {
            "mean_average_precision": (precision * present).sum(axis=1) / classes,
            "micro_f1": 2 * hits.sum(axis=1) / np.maximum(both.sum(axis=1), 1),
            "macro_f1": (f1 * present).sum(axis=1) / classes,
        }
        if losses is not None:
            values["loss"] = counts @ losses.astype(np.float64) / counts.sum(axis=1)
        return values

    return Sample(len(targets), measure)


def sample_predictions(
    columns: Columns,
    classes: Sequence[str],
    state: Mapping[str, Any],
    section: MultilabelSection,
) -> Sample:
    """Returns images of predictions.csv as `sample_labels` does, without the loss.

    Args:
        columns: As in `tl_toolkit.tasks.predictions`.
        classes: Class names in the order of the model's outputs.
        state: What the task learned from data: a threshold for each class.
        section: The task's section, which says what stands between names.
    """
    named = [set(cell.split(section.separator)) for cell in columns["labels"]]
    targets = np.array([[name in names for name in classes] for names in named])
    probabilities = read_numbers(columns, name_columns("probability", classes))
    thresholds = np.array([state["thresholds"][name] for name in classes], np.float32)
    return sample_labels(targets, probabilities, thresholds)


def _average_precisions(
    counts: np.ndarray, targets: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """Returns the average precision of a class in each resample, 0 without an image of it."""
    order = np.argsort(-probabilities, kind="stable")
    ends = np.flatnonzero(np.diff(probabilities[order], append=-np.inf))  # equal ones go together
    ordered = counts[:, order]
    hits = np.cumsum(ordered * targets[order], axis=1)[:, ends]
    detected = np.cumsum(ordered, axis=1)[:, ends]
    recall = hits / np.maximum(hits[:, -1:], 1)
    steps = np.diff(recall, axis=1, prepend=0.0)
    return np.asarray((steps * hits / np.maximum(detected, 1)).sum(axis=1))


def choose_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Chooses for each class the threshold that has the greatest F1.

    All thresholds between two neighbouring probabilities decide alike. Their midpoint stands for
    them, so that a last bit which differs between a model and its export flips no decision; or 0.5,
    where it lies between the two. Among thresholds of equal F1 the one nearest to 0.5 is chosen,
    and of two equally near the higher.

    Args:
        targets: int (n, classes), of validation images, 1 where an image has a class, else 0.
        probabilities: float (n, classes), each in [0, 1].

    Returns:
        float64 (classes,), each in [0, 1]; 0.5 for a class that no image has.
    """
    columns = zip(targets.T, probabilities.astype(np.float64).T, strict=True)
    return np.array([_choose_threshold(*column) for column in columns])


def _choose_threshold(targets: np.ndarray, probabilities: np.ndarray) -> float:
    if not targets.any():
        return DEFAULT_THRESHOLD
    precision, recall, upper = metrics.precision_recall_curve(targets, probabilities)
    lower = np.concatenate([[0.0], upper[:-1]])
    precision, recall = precision[: len(upper)], recall[: len(upper)]
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    holds_default = (lower < DEFAULT_THRESHOLD) & (DEFAULT_THRESHOLD <= upper)
    candidates = np.where(holds_default, DEFAULT_THRESHOLD, (lower + upper) / 2)
    best = candidates[np.isclose(f1, f1.max(), rtol=1e-12, atol=0)]
    return float(min(best, key=lambda value: (abs(value - DEFAULT_THRESHOLD), -value)))


def _measure_class(
    targets: np.ndarray, predictions: np.ndarray, probabilities: np.ndarray
) -> dict[str, Any]:
    average_precision = 0.0  # scikit-learn warns of a class without images
    if targets.any():
        average_precision = float(metrics.average_precision_score(targets, probabilities))
    return {"average_precision": average_precision, **_measure_f1(targets, predictions)}


def _measure_f1(targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        targets, predictions, average="binary", zero_division=0.0
    )
    return {"f1": float(f1), "precision": float(precision), "recall": float(recall)}


def _measure_loss(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the mean binary cross-entropy of all decisions."""
    decisions = probabilities.astype(np.float64).ravel()
    return float(metrics.log_loss(targets.ravel(), decisions, labels=[0, 1]))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
