"""Metrics of classification, from labels and probabilities (scikit-learn's definitions).

They are counted here because scikit-learn takes 0.8 s to import, a tenth of a short fine-tune
(medians of three starts on two cores). A test holds each against scikit-learn's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tl_toolkit.tasks.predictions import Columns, name_columns, read_numbers
from tl_toolkit.tasks.resampling import Sample, sum_groups

__all__ = ["find_interval", "measure_classification", "sample_classes", "sample_predictions"]

_Z95 = 1.959963984540054  # 97.5 % of a normal distribution lie below it


def measure_classification(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    losses: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compares the predicted probabilities of a split with its labels.

    Args:
        labels: int (n,), n >= 1, indices into `classes`.
        probabilities: float (n, classes) in [0, 1]; each row sums to 1.
        classes: Class names in the order of the columns.
        losses: float (n,), the training loss of each image, computed from logits. Probabilities
            are rounded: without the losses, a confident mistake (a probability of 0) costs at
            most 36 nats in the reported loss, whatever it cost in training.

    Returns:
        images, accuracy, accuracy_interval (95 %), balanced_accuracy and macro_f1 (means over the
        classes that have images), loss (mean cross-entropy in nats), per_class (precision, recall,
        f1, images; 0 where a
        ratio is undefined), confusion (rows are labels, columns predictions), intervals (95 %, of
        the accuracy) and majority (class, accuracy, balanced_accuracy and macro_f1 of predicting
        the most frequent class of the split everywhere).
    """
    number = len(classes)
    pairs = labels * number + probabilities.argmax(axis=1)
    confusion = np.bincount(pairs, minlength=number**2).reshape(number, number)
    hits, support, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision = _divide(hits, predicted)
    recall = _divide(hits, support)
    f1 = _divide(2 * hits, support + predicted)
    present = support > 0
    interval = list(find_interval(int(hits.sum()), len(labels)))
    return {
        "images": len(labels),
        "accuracy": float(hits.sum() / len(labels)),
        "accuracy_interval": interval,
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "loss": _measure_loss(labels, probabilities)
        if losses is None
        else float(losses.mean(dtype=np.float64)),
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
        "intervals": {"accuracy": interval},
        "majority": _measure_majority(support, classes),
    }


def sample_classes(
    labels: np.ndarray, probabilities: np.ndarray, *, losses: np.ndarray | None = None
) -> Sample:
    """Returns the images as accuracy, balanced accuracy, macro F1 and loss are computed from them.

    Args:
        labels: As in `measure_classification`.
        probabilities: As in `measure_classification`.
        losses: As in `measure_classification`; without them there is no loss.
    """
    predictions = probabilities.argmax(axis=1)
    right, number = predictions == labels, probabilities.shape[1]

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        images = counts.sum(axis=1)
        hits = sum_groups(counts * right, labels, number)
        support = sum_groups(counts, labels, number)
        both = support + sum_groups(counts, predictions, number)
        classes = (support > 0).sum(axis=1)
        values = {
            "accuracy": hits.sum(axis=1) / images,
            "balanced_accuracy": (hits / np.maximum(support, 1)).sum(axis=1) / classes,
            "macro_f1": (2 * hits / np.maximum(both, 1)).sum(axis=1) / classes,
        }
        if losses is not None:
            values["loss"] = counts @ losses.astype(np.float64) / images
        return values

    return Sample(len(labels), measure, right)


def sample_predictions(
    columns: Columns, classes: Sequence[str], state: Mapping[str, Any], section: Any
) -> Sample:
    """Returns images of predictions.csv as `sample_classes` does, without the loss.

    Args:
        columns: As in `tl_toolkit.tasks.predictions`.
        classes: Class names in the order of the model's outputs.
        state: Not used.
        section: Not used.
    """
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array([places[label] for label in columns["label"]])
    return sample_classes(labels, read_numbers(columns, name_columns("probability", classes)))


def _measure_majority(support: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the metrics of a constant prediction: the class with the most images."""
    most, images = int(support.argmax()), int(support.sum())
    present = int((support > 0).sum())
    return {
        "class": classes[most],
        "accuracy": int(support[most]) / images,
        "balanced_accuracy": 1 / present,
        "macro_f1": 2 * int(support[most]) / (images + int(support[most])) / present,
    }


def find_interval(hits: int, images: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a share, by Wilson's score (1927).

    It holds for small numbers and for shares of 0 and 1, as the normal interval does not.

    Args:
        hits: Images that are predicted right.
        images: All images, at least 1.
    """
    share, z2 = hits / images, _Z95**2 / images
    middle = (share + z2 / 2) / (1 + z2)
    margin = _Z95 / (1 + z2) * math.sqrt(share * (1 - share) / images + z2 / (4 * images))
    return max(0.0, middle - margin), min(1.0, middle + margin)


def _divide(counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Returns the ratios of counts, 0 where the total is 0."""
    ratios = np.zeros(len(counts))
    np.divide(counts, totals, out=ratios, where=totals > 0)
    return ratios


def _measure_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the mean cross-entropy in nats; NaN for a model whose outputs are not finite."""
    if not np.isfinite(probabilities).all():
        return float("nan")
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    answers = exact[np.arange(len(labels)), labels]
    return float(-np.log(answers.clip(min=np.finfo(np.float64).eps)).mean())
