"""Masks of probabilities, and their pictures, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.dense.maps import MapForm

__all__ = ["PICTURE", "build", "render"]

PICTURE = "mask"
"""Name of the prediction that is rendered."""


def build(recipe: Recipe, classes: Sequence[str]) -> MapForm:
    """Returns the maps of the task.

    Args:
        recipe: The recipe, which may have colours of masks.
        classes: Class names in the order of the outputs.
    """
    names = tuple(classes)

    def list_colors(palette: np.ndarray) -> Mapping[str, Sequence[int]]:
        return dict(zip(names, palette.tolist(), strict=True))

    masks = recipe.data.masks
    colors = None if masks is None else masks.colors
    palette = None if colors is None else np.array(colors, np.uint8)
    return MapForm(PICTURE, names, palette, _reduce, render, list_colors)


def _reduce(outputs: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "mask": outputs.argmax(axis=-1).astype(np.uint8),
        "probability": outputs.max(axis=-1),
    }


def render(prediction: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
    """Returns a mask as a palette image: its values are indices into the classes.

    Args:
        prediction: `mask`, uint8 (h, w); IGNORE, where nothing was seen, is black.
        palette: uint8 (classes, 3), a colour for each class.
    """
    # All 256 colours: with fewer, Pillow saves fewer bits, and IGNORE would become a class.
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    image = Image.fromarray(prediction["mask"], mode="P")
    image.putpalette(colors.tobytes())
    return image
