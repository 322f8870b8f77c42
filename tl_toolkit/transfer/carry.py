"""The head of a run in another model: outputs are carried over by the names of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np

from tl_toolkit.architectures.heads import OUTPUT_LAYER
from tl_toolkit.errors import Problem, WeightsError
from tl_toolkit.transfer.weights import inspect_weights, read_tensors

__all__ = ["carry_head", "initialize_outputs"]


def carry_head(
    layers: Iterable[keras.layers.Layer],
    path: Path,
    *,
    before: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Gives a head the weights of a saved one; outputs of new classes keep what they have.

    Args:
        layers: The layers of the head.
        path: The whole model that a run saved, whose head has the same layers.
        before: Its classes, in the order of its outputs.
        classes: The classes of the head.

    Raises:
        WeightsError: The file's head has other layers or shapes. No weight has changed then.
    """
    saved = inspect_weights(path).layers
    holding = [layer for layer in layers if layer.weights]
    missing = [layer.name for layer in holding if layer.name not in saved]
    if missing:
        raise _misfit(path, f"has no {', '.join(missing)}")
    values = read_tensors(path, {layer.name: saved[layer.name] for layer in holding})
    places = {name: place for place, name in enumerate(before)}
    kept = [place for place, name in enumerate(classes) if name in places]
    sources = [places[classes[place]] for place in kept]
    assigned = []
    for layer in holding:
        for variable, value in zip(layer.weights, values[layer.name], strict=True):
            is_by_class = layer.name == OUTPUT_LAYER and variable.shape[-1] == len(classes)
            if is_by_class and value.shape[-1] == len(before):
                merged = variable.numpy()
                merged[..., kept] = value[..., sources]
                value = merged
            if value.shape != tuple(variable.shape):
                shapes = f"{list(value.shape)} for {list(variable.shape)}"
                raise _misfit(path, f"has other shapes in {layer.name}, {shapes}")
            assigned.append((variable, value))
    for variable, value in assigned:
        variable.assign(value)


def _misfit(path: Path, what: str) -> WeightsError:
    expected = "The head must have the layers of the run that training starts from."
    return WeightsError(Problem(str(path), what, expected, "its recipe.yaml, model.head"))


def initialize_outputs(
    layer: keras.layers.Dense, features: np.ndarray, members: np.ndarray, new: Sequence[int]
) -> None:
    """Begins the outputs of new classes with the means of their features.

    The weights of a class point from the mean of all images to the mean of its own, and are as
    long as those of the other outputs are on average. Its bias gives it the mean logit that the
    others have, over all images. Without others a class has the logit 1 at its own mean, and 0 at
    that of all images.

    Args:
        layer: The output layer, whose other outputs are trained.
        features: What enters it, for the training images, (n, features).
        members: (n, outputs), above 0 where an image is of a class.
        new: Places of the outputs of new classes.
    """
    kernel, bias = (np.array(weight, np.float64) for weight in (layer.kernel, layer.bias))
    kept = [place for place in range(len(bias)) if place not in new]
    centre = features.mean(axis=0, dtype=np.float64)
    length, level = 0.0, 0.0
    if kept:
        length = float(np.linalg.norm(kernel[:, kept], axis=0).mean())
        level = float((centre @ kernel[:, kept] + bias[kept]).mean())
    for place in new:
        chosen = members[:, place] > 0
        direction = features[chosen].mean(axis=0, dtype=np.float64) - centre
        norm = max(float(np.linalg.norm(direction)), 1e-12)
        kernel[:, place] = direction * ((length if kept else 1 / norm) / norm)
        bias[place] = level - centre @ kernel[:, place]
    layer.kernel.assign(kernel.astype(np.float32))
    layer.bias.assign(bias.astype(np.float32))
