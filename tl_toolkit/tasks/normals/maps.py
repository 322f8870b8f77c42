"""Normals as maps and pictures, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.dense.maps import MapForm

__all__ = ["PICTURE", "build", "list_colors", "render"]

PICTURE = "normals"
"""Name of the prediction that is rendered."""

_SHORTEST = np.float32(1e-12)  # the square of a length, as in `tf.math.l2_normalize`


def build(recipe: Recipe, classes: Sequence[str]) -> MapForm:
    """Returns the maps of the task.

    Args:
        recipe: Of no use.
        classes: Of no use: pixels are of no class.
    """
    return MapForm(PICTURE, (), None, _reduce, render, list_colors)


def _reduce(outputs: np.ndarray) -> dict[str, np.ndarray]:
    squares = np.sum(outputs * outputs, axis=-1, keepdims=True)
    return {"normal": outputs / np.sqrt(np.maximum(squares, _SHORTEST))}


def render(prediction: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
    """Returns a prediction as an RGB image of 8 bits, coded as the files of targets.

    Args:
        prediction: `normal`, float32 (h, w, 3).
        palette: Not used.
    """
    return Image.fromarray(((prediction["normal"] + 1) / 2 * 255).round().astype(np.uint8))


def list_colors(palette: np.ndarray) -> Mapping[str, Sequence[int]]:
    """Returns the colours of the normals along each axis.

    Args:
        palette: Not used.
    """
    axes = {f"{sign}{axis}": ("-", "+").index(sign) * 255 for axis in "xyz" for sign in "+-"}
    return {
        name: [value if axis == name[1] else 128 for axis in "xyz"] for name, value in axes.items()
    }
