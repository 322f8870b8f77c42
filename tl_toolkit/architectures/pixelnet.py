"""PixelNet's base: VGG-16 with its dense layers made convolutional (Bansal et al., 2016, 2017).

What makes it PixelNet, the hypercolumn and the predictor of single pixels, is a head that any base
can have (`tl_toolkit.tasks.dense.heads`).
"""

import keras
from keras import layers

from tl_toolkit.architectures.vgg import CONVOLUTIONS, FILTERS

__all__ = ["build_pixelnet"]

_DEPTH = 16
_DENSE_UNITS = 4096


def build_pixelnet(
    inputs: keras.KerasTensor,
    *,
    conv7: bool = True,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> keras.KerasTensor:
    """Builds VGG-16's convolutions and, by default, its first two dense layers as convolutions.

    Of the published variants this is the later one: conv6 has `same` padding and the stride of 32,
    where the first models pad the image by 100 pixels and place conv7 wrongly over it. Layers are
    named as in keras.applications' VGG16 with its top, `fc1` and `fc2` included, so that its file
    fits.

    Args:
        inputs: float32 (batch, h, w, c), preprocessed; h, w multiples of 32.
        conv7: Build conv6 (7 x 7) and conv7 (1 x 1), 4,096 maps each; without, the base ends before
            the last pooling.
        batch_norm: Normalize after each convolution, without scale and shift as Caffe does: the
            form that is trained from random weights, its kernels sampled with a deviation of 0.01.
        dropout: Fraction dropped after conv6 and conv7; 0.95 in the authors' linear model that is
            trained from random weights.

    Returns:
        (batch, h / 32, w / 32, 4096), or (batch, h / 16, w / 16, 512) without conv7.
    """
    x = inputs
    for block, (count, filters) in enumerate(
        zip(CONVOLUTIONS[_DEPTH], FILTERS, strict=True), start=1
    ):
        for index in range(1, count + 1):
            x = _convolve(x, filters, 3, batch_norm=batch_norm, name=f"block{block}_conv{index}")
        if block < len(FILTERS) or conv7:
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    if conv7:
        for name, size in (("fc1", 7), ("fc2", 1)):
            x = _convolve(x, _DENSE_UNITS, size, batch_norm=batch_norm, name=name)
            if dropout:
                x = layers.Dropout(dropout, name=f"{name}_drop")(x)
    return x


def _convolve(
    x: keras.KerasTensor, filters: int, size: int, *, batch_norm: bool, name: str
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        size,
        padding="same",
        activation=None if batch_norm else "relu",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01)
        if batch_norm
        else "he_uniform",
        name=name,
    )(x)
    if batch_norm:
        x = layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, center=False, scale=False, name=f"{name}_bn"
        )(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    return x
