"""The limits of a classifier inside a graph of Keras's own operations, which every format holds."""

from __future__ import annotations

import keras
import numpy as np

from tl_toolkit.tasks.classification.calibration import Limits, find_features
from tl_toolkit.tasks.last_layer import scale_last_layer

__all__ = ["build_limits"]


def build_limits(model: keras.Model, limits: Limits) -> keras.Model:
    """Returns a model whose probabilities are scaled, with what they say of themselves.

    Args:
        model: Images to probabilities of a dense last layer, (batch, units).
        limits: What the task learned.

    Returns:
        The model itself where it learned nothing; probabilities (batch, units) where that is a
        temperature alone; else `probabilities` (batch, classes), with label sets `label_set` bool
        (batch, classes), with outliers `ood_score` (batch,), and `abstain` bool (batch,).
    """
    scaled = scale_last_layer(model, limits.temperature)
    named = _name_limits(model, scaled.output, limits)
    if named is scaled.output:
        return scaled
    return keras.Model(model.input, named, name=model.name)


def _name_limits(
    model: keras.Model, outputs: keras.KerasTensor, limits: Limits
) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
    """Returns the outputs by name; the probabilities alone where there are no others."""
    ops, known = keras.ops, limits.outliers
    if limits.threshold is None and known is None:
        return outputs
    if outputs.shape[-1] == 1:
        outputs = ops.concatenate([1.0 - outputs, outputs], axis=-1)
    named = {"probabilities": outputs}
    doubts = []
    if limits.threshold is not None:
        named["label_set"] = outputs >= np.float32(limits.threshold)
        sizes = ops.sum(ops.cast(named["label_set"], "int32"), axis=-1)
        doubts.append(ops.not_equal(sizes, 1))
    if known is not None:
        moved = (find_features(model) - known.centre) * known.weights
        length = ops.sqrt(ops.sum(ops.square(moved), axis=-1, keepdims=True))
        likeness = ops.matmul(moved / ops.maximum(length, 1e-6), known.means.T)
        named["ood_score"] = 1.0 - ops.max(likeness, axis=-1)
        doubts.append(named["ood_score"] > np.float32(known.threshold))
    named["abstain"] = doubts[0] if len(doubts) == 1 else ops.logical_or(*doubts)
    return named
