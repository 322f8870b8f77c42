"""The temperature at which probabilities are as likely as they say (Guo et al., 2017)."""

from __future__ import annotations

import numpy as np

__all__ = ["find_temperature", "scale", "take_logarithms"]

_LEAST = 1e-30  # a probability of 0 has no logarithm
_COLDEST, _HOTTEST = 0.05, 20.0
_MOST_CELLS = 10_000_000  # of the probabilities that a temperature is found by: 80 MB


def scale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities of logits that are divided by a temperature.

    Args:
        probabilities: float (n, classes).
        temperature: Above 0; above 1 makes them less sure.
    """
    from scipy.special import softmax

    if temperature == 1.0:
        return probabilities
    return np.asarray(
        softmax(take_logarithms(probabilities) / temperature, axis=1), probabilities.dtype
    )


def find_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the least cross-entropy, in 0.05..20.

    Of very many rows it looks at some, spread evenly, as they may be in the order of the classes.

    Args:
        probabilities: float (n, classes), of images that have not trained.
        labels: int (n,).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    count, classes = probabilities.shape
    most = max(1, _MOST_CELLS // classes)
    rows = np.arange(count) if count <= most else np.arange(most) * count // most
    logs, own = take_logarithms(probabilities[rows]), labels[rows]

    def measure(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(own)), own]).mean())

    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    return float(np.exp(minimize_scalar(measure, bounds=bounds, method="bounded").x))


def take_logarithms(probabilities: np.ndarray) -> np.ndarray:
    """Returns logarithms, of a probability of 0 that of 1e-30.

    Args:
        probabilities: In [0, 1], of any shape.
    """
    return np.asarray(np.log(np.maximum(probabilities.astype(np.float64), _LEAST)))
