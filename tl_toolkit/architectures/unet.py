"""U-Net: a contracting path, and one that expands and reads it again (Ronneberger et al., 2015)."""

import math
from functools import partial

import keras
from keras import layers

__all__ = ["build_unet"]

_LEVELS = 4


def build_unet(
    inputs: keras.KerasTensor,
    *,
    padding: str = "same",
    filters: int = 64,
    batch_norm: bool = False,
    dropout: float = 0.5,
) -> keras.KerasTensor:
    """Builds U-Net up to its last 3 x 3 convolution; the 1 x 1 classifier is the head's.

    Initial weights have the paper's deviation, the root of 2 / fan-in. The up-convolutions are
    transposed convolutions of 2 x 2, without an activation.

    Args:
        inputs: float32 (batch, h, w, c). Each of four poolings must halve an even size: with
            "same" h and w are multiples of 16, with "valid" 188 + 16n (572 in the paper).
        padding: "valid" as in the paper: the output is 184 pixels smaller and a skip is cut to its
            centre; "same" keeps the size.
        filters: Maps of the first level; each level below has twice as many.
        batch_norm: Normalize after each 3 x 3 convolution; not in the paper.
        dropout: Fraction dropped at the end of the contracting path: of the last skip and of the
            bottom.

    Returns:
        (batch, h, w, filters), or (batch, h - 184, w - 184, filters) with "valid".
    """
    convolve = partial(_convolve_twice, padding=padding, batch_norm=batch_norm)
    x = inputs
    skips = []
    for level in range(1, _LEVELS + 1):
        rate = dropout if level == _LEVELS else 0.0
        x = convolve(x, filters * 2 ** (level - 1), f"down{level}", rate)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level}_pool")(x)
    x = convolve(x, filters * 2**_LEVELS, "bottom", dropout)
    for level in range(_LEVELS, 0, -1):
        maps = filters * 2 ** (level - 1)
        # Each new pixel reads one pixel below, all its maps; he_normal would take its fan-in from
        # the maps that come out, as a transposed kernel has them where others have the incoming.
        start = keras.initializers.RandomNormal(stddev=math.sqrt(2 / x.shape[-1]))
        x = layers.Conv2DTranspose(
            maps, 2, strides=2, kernel_initializer=start, name=f"up{level}_conv"
        )(x)
        skip = _crop(skips[level - 1], x, name=f"up{level}_crop")
        x = layers.Concatenate(name=f"up{level}_concat")([skip, x])
        x = convolve(x, maps, f"up{level}", 0.0)
    return x


def _convolve_twice(
    x: keras.KerasTensor, filters: int, name: str, dropout: float, *, padding: str, batch_norm: bool
) -> keras.KerasTensor:
    for index in (1, 2):
        x = layers.Conv2D(
            filters,
            3,
            padding=padding,
            kernel_initializer="he_normal",
            name=f"{name}_conv{index}",
        )(x)
        if batch_norm:
            x = layers.BatchNormalization(momentum=0.9, name=f"{name}_conv{index}_bn")(x)
        x = layers.ReLU(name=f"{name}_conv{index}_relu")(x)
    return layers.Dropout(dropout, name=f"{name}_drop")(x) if dropout else x


def _crop(skip: keras.KerasTensor, x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Cuts a skip to its centre of the size of `x`; nothing where they are equal."""
    rows, columns = (skip.shape[axis] - x.shape[axis] for axis in (1, 2))
    if not rows and not columns:
        return skip
    return layers.Cropping2D(
        ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)), name=name
    )(skip)
