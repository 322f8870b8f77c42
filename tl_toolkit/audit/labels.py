"""Doubtful labels by confident learning, and outliers, from a vector of features for each image."""

from __future__ import annotations

import warnings

import numpy as np

from tl_toolkit.tasks.doubts import Doubt, find_label_errors

__all__ = [
    "Doubt",
    "find_label_errors",
    "find_outliers",
    "predict_out_of_fold",
]

FOLDS = 5

_FAR = 3.5
"""The modified z-score above which Iglewicz and Hoaglin call a value an outlier."""

_NORMAL = 1.4826  # by which the median deviation of a normal distribution is its standard deviation
_NEIGHBOUR = 5
_MOST_SOUGHT = 2_000
_CHUNK = 4_096


def predict_out_of_fold(
    vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int
) -> np.ndarray:
    """Returns the probabilities of each image by a linear classifier that was solved without it.

    Images of one group are predicted by one that has seen none of them: copies with one wrong label
    would confirm each other.

    Args:
        vectors: float (n, features).
        labels: int (n,), indices into the classes.
        groups: int (n,), the group of each image.
        classes: Number of classes.

    Returns:
        float64 (n, classes).
    """
    from scipy.special import softmax
    from sklearn.model_selection import StratifiedGroupKFold

    from tl_toolkit.tasks.solvers import solve_classes
    from tl_toolkit.tasks.standardized import Standardized

    probabilities = np.zeros((len(vectors), classes))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small classes, whose images are not doubted
        for train, held_out in folds.split(vectors, labels, groups):
            solution = solve_classes(Standardized(vectors[train]), labels[train], classes, "ridge")
            logits = vectors[held_out] @ solution.kernel + solution.bias
            probabilities[held_out] = softmax(logits, axis=1)
    return probabilities


def find_outliers(vectors: np.ndarray) -> list[tuple[int, float]]:
    """Returns images that are far from all others, and how far, the farthest first.

    What counts is the cosine distance to the fifth nearest neighbour (Sun et al., 2022), so that
    four copies of an odd image do not hide it, and its modified z-score (Iglewicz and Hoaglin,
    1993). Neighbours are sought among at most 2,000 images, so that the time grows with their
    number and not with its square.

    Args:
        vectors: float (n, features).

    Returns:
        Indices and z-scores above 3.5.
    """
    if len(vectors) <= _NEIGHBOUR:
        return []
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    points = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    sample = np.random.default_rng(0).permutation(len(points))[:_MOST_SOUGHT]
    distances = np.zeros(len(points))
    for start in range(0, len(points), _CHUNK):
        likeness = points[start : start + _CHUNK] @ points[sample].T
        own = (sample >= start) & (sample < start + _CHUNK)
        likeness[sample[own] - start, np.flatnonzero(own)] = -np.inf  # no neighbour of itself
        nearest = np.partition(likeness, -_NEIGHBOUR, axis=1)[:, -_NEIGHBOUR]
        distances[start : start + _CHUNK] = 1 - nearest
    middle = np.median(distances)
    deviation = _NORMAL * np.median(np.abs(distances - middle))
    scores = (distances - middle) / max(float(deviation), 1e-12)
    far = np.flatnonzero(scores > _FAR)
    return sorted(((int(i), float(scores[i])) for i in far), key=lambda pair: -pair[1])
