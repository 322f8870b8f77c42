"""Metrics of classification, from labels and probabilities (scikit-learn's definitions).

Keras imports scikit-learn where it is installed: after Keras, `sklearn.metrics` costs 0.03 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics

__all__ = ["measure_classification"]


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
        images, accuracy, balanced_accuracy and macro_f1 (means over the classes that have images),
        loss (mean cross-entropy in nats), per_class (precision, recall, f1, images; 0 where a
        ratio is undefined) and confusion (rows are labels, columns predictions).
    """
    predictions = probabilities.argmax(axis=1)
    indices = np.arange(len(classes))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predictions, labels=indices, zero_division=0.0
    )
    present = support > 0  # sklearn's balanced accuracy warns of classes that have no images
    return {
        "images": len(labels),
        "accuracy": float(metrics.accuracy_score(labels, predictions)),
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
        "confusion": metrics.confusion_matrix(labels, predictions, labels=indices).tolist(),
    }


def _measure_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the mean cross-entropy in nats; NaN for a model whose outputs are not finite."""
    if not np.isfinite(probabilities).all():
        return float("nan")
    # As float64, a float32 softmax misses a sum of 1 by more than scikit-learn lets pass.
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    return float(metrics.log_loss(labels, exact, labels=np.arange(exact.shape[1])))
