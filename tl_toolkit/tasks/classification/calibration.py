"""Predictions that know their limits: label sets, distance from what is known.

All are learned from the validation images after the last step, kept in task.json, and computed
inside the exported model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.batches import PREFIX_BATCH, FixedBatch
from tl_toolkit.architectures.heads import NORMALIZE_LAYER, OUTPUT_LAYER, POOLED_LAYERS
from tl_toolkit.tasks.types import SplitView

__all__ = [
    "Limits",
    "Outliers",
    "find_features",
    "find_outliers",
    "find_threshold",
    "read_features",
]

_AT_ONCE = 1024  # images whose likeness to all classes is in memory
_STILL = 0.1  # of the mean deviation is added to each, for features that hardly vary


@dataclass(frozen=True)
class Outliers:
    """What images that are known look like, in the features that the head reads of the base.

    Attributes:
        centre: float32 (features,), the mean of all.
        weights: float32 (features,), by which differences from the centre are multiplied: the
            inverse of the deviation within classes.
        means: float32 (classes, features), weighted means of the classes, of length 1.
        threshold: The score above which a known image lies as rarely as label sets miss its class.
    """

    centre: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    threshold: float


@dataclass(frozen=True)
class Limits:
    """What a model learned of its own limits.

    Attributes:
        temperature: Logits are divided by it; 1 changes nothing.
        threshold: The least probability of a class in a label set; None for no label sets.
        outliers: What known images look like; None where that was not asked for.
    """

    temperature: float = 1.0
    threshold: float | None = None
    outliers: Outliers | None = field(default=None, compare=False)

    def as_state(self) -> dict[str, Any]:
        """Returns plain values."""
        known = self.outliers
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "outliers": None if known is None else {
                "centre": known.centre.tolist(), "weights": known.weights.tolist(),
                "means": known.means.tolist(), "threshold": known.threshold,
            },
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Limits:
        """Returns what `as_state` has written.

        Args:
            state: Plain values.
        """
        known = state.get("outliers")
        outliers = known and Outliers(
            np.array(known["centre"], np.float32),
            np.array(known["weights"], np.float32),
            np.array(known["means"], np.float32),
            float(known["threshold"]),
        )
        return cls(state.get("temperature", 1.0), state.get("threshold"), outliers)


def find_threshold(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> float:
    """Returns the least probability of a class in a label set (Sadinle et al., 2019).

    Split-conformal: of n images the label sets of the ceil((n + 1) * coverage) best hold their
    label, so that those of a new image hold it with at least this probability. 0, so that all
    classes are in each set, where n is too small for that. It lies halfway between the last of
    these probabilities and the next lower one: equal to one of them, a rounding in an exported
    model would change a set.

    Args:
        probabilities: (n, classes), of images that have not trained.
        labels: int (n,).
        coverage: Share of the label sets that hold the label, above 0 and below 1.
    """
    own = np.sort(probabilities[np.arange(len(labels)), labels].astype(np.float64))[::-1]
    rank = int(np.ceil((len(own) + 1) * coverage))
    if rank > len(own):
        return 0.0
    least = own[rank - 1]
    return float((least + own[own < least].max(initial=0.0)) / 2)


def find_outliers(features: np.ndarray, labels: np.ndarray, classes: int, share: float) -> Outliers:
    """Returns what known images look like.

    The threshold comes from scores of images by the means of all others, as those of a new one.

    Args:
        features: float (n, features), of images that have not trained.
        labels: int (n,).
        classes: Number of classes.
        share: Share of known images that lie below the threshold.
    """
    features = features.astype(np.float64)
    centre = features.mean(axis=0)
    present = np.unique(labels)
    own = {place: features[labels == place].mean(axis=0) for place in present}
    deviation = (features - np.stack([own[label] for label in labels])).std(axis=0)
    weights = 1 / (deviation + max(_STILL * deviation.mean(), 1e-12))
    moved = (features - centre) * weights
    sums = np.stack([moved[labels == place].sum(axis=0) for place in range(classes)])
    means = _normalize(sums)
    scores = np.empty(len(features))
    for start in range(0, len(features), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        rows, own_class = _normalize(moved[part]), labels[part]
        likeness = rows @ means.T
        others = _normalize(sums[own_class] - moved[part])  # of the own class, without the image
        likeness[np.arange(len(rows)), own_class] = (rows * others).sum(axis=1)
        scores[part] = 1 - likeness.max(axis=1)
    rank = min(int(np.ceil((len(scores) + 1) * share)), len(scores))
    threshold = float(np.sort(scores)[rank - 1])
    centre, weights, means = (array.astype(np.float32) for array in (centre, weights, means))
    return Outliers(centre, weights, means, threshold)


def _normalize(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def find_features(model: keras.Model) -> keras.KerasTensor:
    """Returns the vector that a head reads of its base: standardized, pooled, or as it is.

    What a head makes of it tells its classes apart, and forgets what else there is in an image.

    Args:
        model: A whole model of an image task.
    """
    layers = {layer.name: layer for layer in model.layers}
    for name in (NORMALIZE_LAYER, *POOLED_LAYERS):
        if name in layers:
            return layers[name].output
    first = next(layer for layer in model.layers if _is_head(layer.name))
    return first.input


def _is_head(name: str) -> bool:
    return name == OUTPUT_LAYER or name.startswith("head_")


def read_features(view: SplitView, count: int) -> np.ndarray:
    """Returns the vectors of `find_features`, float32 (n, features).

    Args:
        view: The split as the model sees it.
        count: Its images.
    """
    source = view.model.input if view.source is None else view.source
    wanted = find_features(view.model)
    chunks = view.features.chunks(np.arange(count), PREFIX_BATCH)
    if source is wanted:  # the model is cut there
        return np.concatenate([np.asarray(batch) for batch, _ in chunks])
    rest = FixedBatch(keras.Model(source, wanted))
    return np.concatenate([np.asarray(rest(batch)) for batch, _ in chunks])
