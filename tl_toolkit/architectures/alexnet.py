"""AlexNet, which won ImageNet's challenge of 2012 (Krizhevsky, Sutskever & Hinton, NIPS 2012)."""

import keras
from keras import layers

from tl_toolkit.architectures.layers import LocalResponseNormalization

__all__ = ["build_alexnet"]


def build_alexnet(
    inputs: keras.KerasTensor, *, groups: int = 1, normalization: str = "lrn"
) -> keras.KerasTensor:
    """Builds AlexNet's convolutions, up to the third pooling.

    A map passes convolution, ReLU, response normalization and overlapping pooling in this order, as
    in the paper. Initial weights are the paper's: normal with deviation 0.01, biases 1 in conv2,
    conv4 and conv5. The two dense layers with their dropouts are the head's (`head: paper`).

    Args:
        inputs: float32 (batch, h, w, c), preprocessed; h, w >= 67. The paper prints 224 pixels and
            means 227.
        groups: 1 builds one tower, 62,378,344 parameters with the paper's head of 1000 classes;
            2 the paper's, in which conv2, conv4 and conv5 see the maps of one GPU: 60,965,224.
        normalization: "lrn" (k=2, n=5, alpha=1e-4, beta=0.75) after conv1 and conv2, or "none".

    Returns:
        (batch, h', w', 256); 6 x 6 for 227 pixels.

    Raises:
        ValueError: There is no such normalization.
    """
    x = _convolve(inputs, 96, 11, strides=4, padding="valid", bias=0, name="conv1")
    x = _normalize(x, normalization, name="conv1_norm")
    x = layers.MaxPooling2D(3, strides=2, name="conv1_pool")(x)
    x = _convolve(x, 256, 5, groups=groups, bias=1, name="conv2")
    x = _normalize(x, normalization, name="conv2_norm")
    x = layers.MaxPooling2D(3, strides=2, name="conv2_pool")(x)
    x = _convolve(x, 384, 3, bias=0, name="conv3")
    x = _convolve(x, 384, 3, groups=groups, bias=1, name="conv4")
    x = _convolve(x, 256, 3, groups=groups, bias=1, name="conv5")
    outputs: keras.KerasTensor = layers.MaxPooling2D(3, strides=2, name="conv5_pool")(x)
    return outputs


def _convolve(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    *,
    strides: int = 1,
    padding: str = "same",
    groups: int = 1,
    bias: float,
    name: str,
) -> keras.KerasTensor:
    x = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        groups=groups,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(bias),
        name=f"{name}_conv",
    )(x)
    outputs: keras.KerasTensor = layers.ReLU(name=f"{name}_relu")(x)
    return outputs


def _normalize(x: keras.KerasTensor, normalization: str, *, name: str) -> keras.KerasTensor:
    if normalization == "none":
        return x
    if normalization != "lrn":
        raise ValueError(f"normalization: expected 'lrn' or 'none', got {normalization!r}")
    return LocalResponseNormalization(name=name)(x)
