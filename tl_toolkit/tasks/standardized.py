"""Features of many images, standardized some columns at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tl_toolkit.architectures.heads import VARIANCE_EPSILON

__all__ = ["Standardized", "blas_threads"]

_NUMBERS = 16_000_000  # at a time: 128 MB of float64
_LARGE = 10_000_000  # numbers in a matrix from which threads are worth it


class Standardized:
    """Features with columns of mean 0 and variance 1.

    They are float64 where they are asked for, some columns at a time: all would take gigabytes.

    Args:
        features: (n, features), of any float type; they are not copied.
        groups: Places of features, int (n,), by a name for them; each feature is in one group. A
            solver may leave out the features of a group together. None for no groups.

    Attributes:
        groups: As in the arguments; empty for none.
        mean: float64 (features,).
        variance: float64 (features,).
        scale: float64 (features,), what columns less their mean are divided by.
    """

    def __init__(
        self, features: np.ndarray, groups: Mapping[str, np.ndarray] | None = None
    ) -> None:
        self._features = features
        self.groups = dict(groups or {})
        count = features.shape[1]
        self.mean, self.variance = np.empty(count), np.empty(count)
        for part in self._parts(np.arange(count)):
            values = features[:, part].astype(np.float64)
            self.mean[part], self.variance[part] = values.mean(axis=0), values.var(axis=0)
        self.scale = np.sqrt(self.variance + VARIANCE_EPSILON)

    def __len__(self) -> int:
        return len(self._features)

    def _parts(self, columns: np.ndarray) -> Iterator[np.ndarray]:
        """Yields columns, so many together that they fit."""
        step = max(1, _NUMBERS // max(1, len(self)))
        yield from (columns[start : start + step] for start in range(0, len(columns), step))

    def take(self, columns: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns some columns, float64 (n, columns).

        Args:
            columns: Their places.
            rows: Places of the examples; None for all.
        """
        places = (slice(None), columns) if rows is None else np.ix_(rows, columns)
        values = self._features[places].astype(np.float64)
        values -= self.mean[columns]
        values /= self.scale[columns]
        return values

    def multiply(self, columns: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns the products of examples with each other, float64 (n, n).

        Args:
            columns: Places of the columns that they consist of, at least one.
            rows: As in `take`.
        """
        count = len(self) if rows is None else len(rows)
        product = np.zeros((count, count))
        with blas_threads(count * len(columns)):
            for part in self._parts(columns):
                values = self.take(part, rows)
                product += values @ values.T
        return product

    def project(self, columns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Returns the products of columns with vectors, float64 (columns, vectors).

        Args:
            columns: Their places.
            vectors: (n, vectors).
        """
        with blas_threads(len(self) * len(columns)):
            return np.concatenate([self.take(part).T @ vectors for part in self._parts(columns)])


def blas_threads(numbers: int) -> Any:
    """Returns a context of one thread for a small matrix, of all for a large one.

    The many small products of a path take 40 times as long in threads that wait for each other.

    Args:
        numbers: In the matrix.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1 if numbers < _LARGE else None, user_api="blas")
