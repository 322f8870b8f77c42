"""Labels of training images that are likely wrong, by features that a run has at hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from tl_toolkit.audit.labels import FOLDS, find_label_errors, predict_out_of_fold
from tl_toolkit.images.pipeline import Images

__all__ = ["find_training_doubts"]

_MOST_WORK = 1e9
"""Multiplications of a fit above which it would take more than a few percent of a short run."""

_MOST_LISTED = 24


def find_training_doubts(
    vectors: np.ndarray, images: Images, classes: tuple[str, ...]
) -> dict[str, Any] | None:
    """Returns the labels of training images that confident learning doubts.

    Each image is predicted by a linear classifier that was solved without it, and without images
    that equal it. Labels of classes with fewer different images than folds are not doubted.

    Args:
        vectors: float (n, features), of the untrained base.
        images: The training images.
        classes: In the order of the outputs.

    Returns:
        `images`, how many were asked about, their number that is doubted as `doubted`, and
        `labels`, the gravest of them: path, label, suggested, own and other probability. None
        where targets are no classes that exclude each other, or there are too many images to ask.
    """
    targets = np.asarray(images.targets)
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        return None
    count, width = vectors.shape
    if count * width * min(count, width) > _MOST_WORK:
        return None
    names = [example.sha256 for example in images.examples]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    groups = np.array([numbers[name] for name in names])
    present = [
        place for place in range(len(classes)) if len(np.unique(groups[targets == place])) >= FOLDS
    ]
    if len(present) < 2:
        return None
    places = np.flatnonzero(np.isin(targets, present))
    labels = np.searchsorted(present, targets[places])
    probabilities = predict_out_of_fold(vectors[places], labels, groups[places], len(present))
    doubts = find_label_errors(probabilities, labels)
    return {
        "images": len(places),
        "doubted": len(doubts),
        "labels": [
            {
                "path": str(images.examples[places[doubt.image]].path),
                "label": classes[present[labels[doubt.image]]],
                "suggested": classes[present[doubt.suggested]],
                "own": doubt.own,
                "other": doubt.other,
            }
            for doubt in doubts[:_MOST_LISTED]
        ],
    }
