"""VGG: blocks of 3 x 3 convolutions, each block ended by pooling (Simonyan & Zisserman, 2014)."""

from collections.abc import Sequence

import keras
from keras import layers

__all__ = ["build_vgg_tiny"]

TINY = ((8, 16), (24, 24), (48, 48), (96,))


def build_vgg_tiny(inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Draws a VGG for images of 32 pixels: 7 convolutions in 4 blocks, 83,496 parameters in grey.

    It is no network of the paper, but drawn by its rules, with batch normalization: the base that
    comes with this package.

    Args:
        inputs: float32 (batch, h, w, c), h, w >= 8.

    Returns:
        (batch, h / 8, w / 8, 96).
    """
    return _draw_blocks(inputs, TINY)


def _draw_blocks(x: keras.KerasTensor, blocks: Sequence[Sequence[int]]) -> keras.KerasTensor:
    """Draws blocks of convolution, normalization and ReLU; all but the last end in pooling."""
    for number, filters in enumerate(blocks, start=1):
        for index, count in enumerate(filters, start=1):
            name = f"block{number}_conv{index}"
            x = layers.Conv2D(count, 3, padding="same", use_bias=False, name=name)(x)
            # Few steps are enough for these statistics: the default of 0.99 needs hundreds.
            x = layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        if number < len(blocks):
            x = layers.MaxPooling2D(2, name=f"block{number}_pool")(x)
    return x
