"""Probabilities of edges as maps and pictures, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.dense.maps import MapForm

__all__ = ["PICTURE", "build", "list_colors", "render"]

PICTURE = "edges"
"""Name of the prediction that is rendered."""

_LEGEND = (0, 0.25, 0.5, 0.75, 1)


def build(recipe: Recipe, classes: Sequence[str]) -> MapForm:
    """Returns the maps of the task.

    Args:
        recipe: Of no use.
        classes: Of no use: pixels are of no class.
    """
    return MapForm(PICTURE, (), None, _reduce, render, list_colors)


def _reduce(outputs: np.ndarray) -> dict[str, np.ndarray]:
    return {"probability": outputs[..., 0]}


def render(prediction: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
    """Returns a prediction as a grey image: white for a probability of 1; not thinned.

    Args:
        prediction: `probability`, float32 (h, w).
        palette: Not used.
    """
    return Image.fromarray((prediction["probability"] * 255).round().astype(np.uint8))


def list_colors(palette: np.ndarray) -> Mapping[str, Sequence[int]]:
    """Returns the grey of some probabilities of an edge.

    Args:
        palette: Not used.
    """
    return {f"probability {share:g}": (round(share * 255),) * 3 for share in _LEGEND}
