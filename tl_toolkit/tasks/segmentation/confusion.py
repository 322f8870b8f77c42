"""Metrics of segmentation, all from the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_toolkit.tasks.resampling import Sample

__all__ = ["count_confusion", "mean_iou", "measure_confusion", "sample_confusions"]


def count_confusion(
    targets: np.ndarray, predictions: np.ndarray, num_classes: int, ignore: int
) -> np.ndarray:
    """Counts pixels by target and prediction.

    Args:
        targets: Integers of any shape, in [0, num_classes), or `ignore`.
        predictions: Integers of the same shape, in [0, num_classes).
        num_classes: Number of classes.
        ignore: Pixels of this class count nowhere.

    Returns:
        int64 (classes, classes); rows are targets, columns predictions.
    """
    counted = targets != ignore
    cells = targets[counted].astype(np.int64) * num_classes + predictions[counted]
    counts = np.bincount(cells, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def mean_iou(confusion: np.ndarray) -> float:
    """Returns the mean IoU over the classes that occur, in targets or predictions.

    Args:
        confusion: int (classes, classes), rows are targets.
    """
    iou, occurs = _intersections_over_unions(confusion)
    return float(iou[occurs].mean()) if occurs.any() else 0.0


def measure_confusion(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the metrics of Long et al. (2015, section 5), and those of the majority class.

    Args:
        confusion: int (classes, classes), rows are targets.
        classes: Class names in the order of the rows.

    Returns:
        - pixel_accuracy: share of pixels with the right class;
        - mean_accuracy: mean recall of the classes that the targets have;
        - mean_iou: mean over the classes that occur, in targets or predictions;
        - frequency_weighted_iou: mean of the IoU weighted by target pixels;
        - per_class: of each class iou, precision, recall and pixels; an iou of a class that
          does not occur, and a recall of one that the targets lack, are None;
        - confusion: the matrix as lists;
        - majority: class, pixel_accuracy, mean_accuracy and mean_iou of predicting the most
          frequent class of the targets everywhere.

        All in [0, 1]; 0 where no pixel counts.
    """
    measured: dict[str, Any] = _summarize(confusion)
    hits = np.diag(confusion)
    pixels, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    iou, occurs = _intersections_over_unions(confusion)
    measured["per_class"] = {
        name: {
            "iou": float(iou[index]) if occurs[index] else None,
            "precision": float(hits[index] / predicted[index]) if predicted[index] else 0.0,
            "recall": float(hits[index] / pixels[index]) if pixels[index] else None,
            "pixels": int(pixels[index]),
        }
        for index, name in enumerate(classes)
    }
    measured["confusion"] = confusion.tolist()
    common = int(pixels.argmax())
    constant = np.zeros_like(confusion)
    constant[:, common] = pixels
    plain = _summarize(constant)
    del plain["frequency_weighted_iou"]
    measured["majority"] = {"class": classes[common], **plain}
    return measured


def sample_confusions(confusions: Sequence[np.ndarray]) -> Sample:
    """Returns the images as the means of `measure_confusion` are computed from them.

    Args:
        confusions: The confusion matrix of each image, at least one.
    """
    hits = np.stack([np.diag(confusion) for confusion in confusions]).astype(np.float64)
    pixels = np.stack([confusion.sum(axis=1) for confusion in confusions]).astype(np.float64)
    predicted = np.stack([confusion.sum(axis=0) for confusion in confusions]).astype(np.float64)

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        right, wanted = counts @ hits, counts @ pixels
        unions = wanted + counts @ predicted - right
        iou, recall = right / np.maximum(unions, 1), right / np.maximum(wanted, 1)
        total = np.maximum(wanted.sum(axis=1), 1)
        occurring = np.maximum((unions > 0).sum(axis=1), 1)
        return {
            "pixel_accuracy": right.sum(axis=1) / total,
            "mean_accuracy": recall.sum(axis=1) / np.maximum((wanted > 0).sum(axis=1), 1),
            "mean_iou": iou.sum(axis=1) / occurring,
            "frequency_weighted_iou": (iou * wanted).sum(axis=1) / total,
        }

    return Sample(len(confusions), measure)


def _summarize(confusion: np.ndarray) -> dict[str, float]:
    total = confusion.sum()
    if not total:
        names = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
        return dict.fromkeys(names, 0.0)
    hits, pixels = np.diag(confusion), confusion.sum(axis=1)
    occurs = pixels > 0
    iou, _ = _intersections_over_unions(confusion)
    return {
        "pixel_accuracy": float(hits.sum() / total),
        "mean_accuracy": float((hits[occurs] / pixels[occurs]).mean()),
        "mean_iou": mean_iou(confusion),
        "frequency_weighted_iou": float((iou * pixels).sum() / total),
    }


def _intersections_over_unions(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the IoU of each class, 0 for one that does not occur, and which classes occur."""
    hits = np.diag(confusion)
    unions = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return hits / np.maximum(unions, 1), unions > 0
