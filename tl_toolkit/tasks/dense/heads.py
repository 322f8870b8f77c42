"""The head of a task with an answer for each pixel: the hypercolumn, and a predictor on it.

After PixelNet (Bansal et al., 2016, 2017): maps of several depths are read at the pixels that are
asked for, put one after the other, and go through dense layers that all pixels share. No map is
made as large as the image, so that training pays for the pixels drawn and not for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tl_toolkit.architectures.sampling import PixelSample
from tl_toolkit.architectures.taps import find_stride
from tl_toolkit.recipe.schema import Head
from tl_toolkit.transfer.heads import build_dense

__all__ = ["build_pixel_head"]


def build_pixel_head(
    taps: Sequence[keras.KerasTensor],
    image: keras.KerasTensor,
    pixels: keras.KerasTensor,
    head: Head,
    *,
    units: int,
    activation: str,
    normalize: bool = False,
) -> keras.KerasTensor:
    """Draws hypercolumn and predictor.

    Args:
        taps: Maps (batch, h, w, channels), each on a whole stride of the image.
        image: The image as the base sees it, padded to whole cells; only its size counts.
        pixels: float32 (batch, n, 2), y and x of the pixels asked for.
        head: Hidden layers and dropout, as in the recipe; no hidden layer is a linear predictor.
            Without hidden layers its dropout lies on the hypercolumn.
        units: Outputs for each pixel.
        activation: Of the outputs.
        normalize: Normalize each map first, without scale and shift.

    Returns:
        float32 (batch, n, units).
    """
    columns = []
    for number, tap in enumerate(taps, start=1):
        stride = find_stride(image, tap)
        if stride is None:
            raise ValueError(f"{tap.name}: the image has no whole number of pixels for each cell")
        if normalize:
            tap = keras.layers.BatchNormalization(
                momentum=0.9, center=False, scale=False, name=f"head_tap{number}_bn"
            )(tap)
        columns.append(PixelSample(stride, name=f"head_tap{number}")(tap, pixels))
    x = columns[0]
    if len(columns) > 1:
        x = keras.layers.Concatenate(name="head_hypercolumn")(columns)
    return build_dense(x, head, units=units, activation=activation)
