"""VGG: blocks of 3 x 3 convolutions, each block ended by pooling (Simonyan & Zisserman, 2014)."""

from collections.abc import Sequence

import keras
from keras import layers

__all__ = ["build_vgg", "build_vgg_tiny"]

# Table 1 of the paper, columns A, B, D and E: convolutions in each block.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
FILTERS = (64, 128, 256, 512, 512)

TINY = ((8, 16), (24, 24), (48, 48), (96,))


def build_vgg(
    inputs: keras.KerasTensor, *, depth: int = 16, batch_norm: bool = False
) -> keras.KerasTensor:
    """Builds VGG's convolutions, under the names that keras.applications gives them.

    The three dense layers are left out: a head builds them (`head: paper` in a recipe). Initial
    weights are He-uniform (the paper initialized the deep nets from the trained shallow one).

    Args:
        inputs: float32 (batch, h, w, c), preprocessed; h, w >= 32.
        depth: Weighted layers, the dense ones counted: 11, 13, 16 or 19.
        batch_norm: Normalize after each convolution, which keeps its bias: the later variant of
            torchvision, not in the paper.

    Returns:
        (batch, h / 32, w / 32, 512).
    """
    x = inputs
    for block, (count, filters) in enumerate(
        zip(CONVOLUTIONS[depth], FILTERS, strict=True), start=1
    ):
        for index in range(1, count + 1):
            x = _convolve(x, filters, batch_norm=batch_norm, name=f"block{block}_conv{index}")
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return x


def _convolve(
    x: keras.KerasTensor, filters: int, *, batch_norm: bool, name: str
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        3,
        padding="same",
        activation=None if batch_norm else "relu",
        kernel_initializer="he_uniform",
        name=name,
    )(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    return x


def build_vgg_tiny(inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Builds a VGG for images of 32 pixels: 7 convolutions in 4 blocks, 83,496 parameters in grey.

    The paper does not have this network. It follows the paper's rules, with batch normalization,
    and is the base that comes with this package.

    Args:
        inputs: float32 (batch, h, w, c), h, w >= 8.

    Returns:
        (batch, h / 8, w / 8, 96).
    """
    return _build_blocks(inputs, TINY)


def _build_blocks(x: keras.KerasTensor, blocks: Sequence[Sequence[int]]) -> keras.KerasTensor:
    """Builds blocks of convolution, normalization and ReLU; all but the last end in pooling."""
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
