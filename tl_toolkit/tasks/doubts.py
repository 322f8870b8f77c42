"""Labels that probabilities of other models' making doubt: confident learning."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Doubt", "find_label_errors"]


class Doubt(NamedTuple):
    """A label that may be wrong.

    Attributes:
        image: Index of the image.
        suggested: Index of the class that the images without it make likely.
        own: The probability of its own class.
        other: That of the suggested one.
    """

    image: int
    suggested: int
    own: float
    other: float


def find_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> list[Doubt]:
    """Returns the images whose labels confident learning doubts (Northcutt et al., 2021).

    A class is likely for an image if its probability is at least the mean that images of the class
    have for it. An image is doubted if the most probable likely class is another than its own, and
    is the most probable of all. The thresholds make up for classes of which a model is less sure.

    Args:
        probabilities: float (n, classes), each by a model that was trained without the image.
        labels: int (n,).

    Returns:
        The doubts, the gravest first: by how much the other class is more probable.
    """
    count, classes = probabilities.shape
    thresholds = np.full(classes, np.inf)
    for label in np.unique(labels):
        thresholds[label] = probabilities[labels == label, label].mean()
    likely = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = likely.argmax(axis=1)
    is_doubted = likely.max(axis=1) >= 0
    is_doubted &= (suggested != labels) & (suggested == probabilities.argmax(axis=1))
    places = np.arange(count)
    own, other = probabilities[places, labels], probabilities[places, suggested]
    order = sorted(np.flatnonzero(is_doubted).tolist(), key=lambda index: own[index] - other[index])
    return [
        Doubt(index, int(suggested[index]), float(own[index]), float(other[index]))
        for index in order
    ]
