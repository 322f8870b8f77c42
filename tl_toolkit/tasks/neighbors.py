"""Nearest neighbours by the cosine of their features, with a number chosen on training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Neighbors", "fit_neighbors"]

_NUMBERS = (1, 3, 5, 10, 20, 50)
_MOST_LEFT_OUT = 2_000
"""Training images that the number of neighbours is chosen by; of more, so many evenly spaced."""


@dataclass(frozen=True)
class Neighbors:
    """Training images as a predictor: the mean of what the nearest ones have.

    Attributes:
        features: float (n, features), of the training images.
        values: float (n, m), what each has.
        number: How many neighbours are asked.
    """

    features: np.ndarray
    values: np.ndarray
    number: int

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns the mean of the nearest neighbours' values, float64 (q, m).

        Args:
            features: (q, features).
        """
        nearest = _find_nearest(self.features, features, self.number)
        return _average(nearest, self.values)


def fit_neighbors(
    features: np.ndarray,
    values: np.ndarray,
    judge: Callable[[np.ndarray, np.ndarray], float],
) -> Neighbors:
    """Chooses the number of neighbours by leaving out one training image at a time.

    Args:
        features: (n, features), n >= 2.
        values: (n, m), what the neighbours of an image predict the mean of.
        judge: From predictions and values (q, m) to their error; the smallest number of
            neighbours with the least error is chosen.
    """
    most = min(max(_NUMBERS), len(features) - 1)
    places = np.unique(np.linspace(0, len(features) - 1, _MOST_LEFT_OUT).round().astype(int))
    nearest = _find_nearest(features, features[places], most + 1)
    others = np.stack(
        [row[row != place][:most] for row, place in zip(nearest, places, strict=True)]
    )
    numbers = [number for number in _NUMBERS if number <= most]
    errors = [judge(_average(others[:, :number], values), values[places]) for number in numbers]
    return Neighbors(features, values, numbers[int(np.argmin(errors))])


def _find_nearest(known: np.ndarray, asked: np.ndarray, number: int) -> np.ndarray:
    """Returns the places of the nearest known images, the nearest first, int (q, number)."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=number, metric="cosine", algorithm="brute")
    nearest: np.ndarray = search.fit(known).kneighbors(asked, return_distance=False)
    return nearest


def _average(nearest: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the mean of the values at places (q, number), without an array of (q, number, m)."""
    from scipy import sparse

    count, number = nearest.shape
    shares = sparse.csr_array(
        (
            np.full(nearest.size, 1 / number),
            nearest.ravel(),
            np.arange(0, nearest.size + 1, number),
        ),
        shape=(count, len(values)),
    )
    return np.asarray(shares @ values)
