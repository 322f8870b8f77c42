"""Probabilities that mean what they say, and sets of labels that hold the right one as often.

A temperature (Guo et al., 2017) divides the logits: of confident networks it is above 1. Split
conformal prediction (Vovk et al., 2005; Sadinle et al., 2019) keeps each class whose probability
is high enough that, of images like those it was fitted to, the right one is among them at the
coverage that was asked for. Half of the validation images fit the temperature, the others the
sets: a threshold from images that the temperature was fitted to would promise too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Calibration", "fit_calibration", "measure_calibration", "measure_error"]

_BINS = 15
_LOGARITHMS = (-3.0, 3.0)  # of the temperature, 0.05 to 20
_LEAST = 1e-12


@dataclass(frozen=True)
class Calibration:
    """What was fitted to validation images.

    Attributes:
        temperature: Divides the logits; 1 changes nothing.
        threshold: Probability from which on a class is in the set of labels; 0 for all classes,
            where too few images were left to promise the coverage.
        coverage: The share of sets that are to hold the right class.
        images: Images that the threshold was fitted to.
    """

    temperature: float
    threshold: float
    coverage: float
    images: int

    def scale(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns the probabilities of the logits that the temperature has divided.

        Args:
            probabilities: (n, classes) in [0, 1]; each row sums to 1.
        """
        from scipy.special import softmax

        logits = np.log(np.maximum(probabilities, _LEAST))
        scaled: np.ndarray = softmax(logits / self.temperature, axis=1)
        return scaled

    def select(self, probabilities: np.ndarray) -> np.ndarray:
        """Returns which classes are in the set of each image, bool (n, classes); one at least.

        Args:
            probabilities: (n, classes), from `scale`.
        """
        chosen = probabilities >= self.threshold
        chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
        return np.asarray(chosen)


def fit_calibration(
    labels: np.ndarray, probabilities: np.ndarray, coverage: float, *, seed: int = 0
) -> Calibration:
    """Fits temperature and threshold to halves of the validation images.

    Args:
        labels: int (n,), n >= 2.
        probabilities: (n, classes), of the model.
        coverage: In (0, 1).
        seed: Of the halves.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    temperature = _fit_temperature(labels[first], probabilities[first])
    fitted = Calibration(temperature, 0.0, coverage, len(second))
    scores = 1 - fitted.scale(probabilities[second])[np.arange(len(second)), labels[second]]
    place = int(np.ceil((len(second) + 1) * coverage))  # of the sorted scores, from 1 on
    threshold = 1 - float(np.sort(scores)[place - 1]) if place <= len(second) else 0.0
    return Calibration(temperature, threshold, coverage, len(second))


def _fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the temperature at which the labels are likeliest."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), _LEAST))

    def loss(logarithm: float) -> float:
        scaled = log_softmax(logits / np.exp(logarithm), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=_LOGARITHMS, method="bounded").x))


def measure_calibration(
    calibration: Calibration, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, Any]:
    """Returns how well the probabilities and sets hold on images.

    Args:
        calibration: What was fitted.
        labels: int (n,), n >= 1.
        probabilities: (n, classes), of the model.

    Returns:
        temperature; error and error_before, the expected calibration error with and without it;
        coverage, the share of sets with the right class, its 95 % interval by Clopper and Pearson,
        and the coverage that was asked for; set_size, the mean; and abstained, the share of sets
        with more than one class.
    """
    from scipy.stats import binomtest

    scaled = calibration.scale(probabilities)
    sets = calibration.select(scaled)
    covered = sets[np.arange(len(labels)), labels]
    interval = binomtest(int(covered.sum()), len(labels)).proportion_ci(0.95)
    sizes = sets.sum(axis=1)
    return {
        "temperature": calibration.temperature,
        "error": measure_error(labels, scaled),
        "error_before": measure_error(labels, probabilities),
        "coverage": float(covered.mean()),
        "coverage_interval": [float(interval.low), float(interval.high)],
        "coverage_asked": calibration.coverage,
        "set_size": float(sizes.mean()),
        "abstained": float((sizes > 1).mean()),
    }


def measure_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Returns the expected calibration error (Naeini et al., 2015) of the most probable class.

    Args:
        labels: int (n,).
        probabilities: (n, classes).

    Returns:
        The mean of |accuracy - confidence| over 15 bins of the confidence, weighed by their images.
    """
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))
