"""DenseNet: each layer reads all maps before it (Huang et al., 2016, arXiv:1608.06993).

Layers with weights have the names of keras.applications, so that its weight files fit.
"""

import keras
from keras import layers

__all__ = ["build_cifar_densenet", "build_densenet"]

# Table 1 of the paper; 161 is of the authors' repository, with a growth rate of 48.
LAYERS = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}

_EPSILON = 1.001e-5  # as in Keras's files
_BOTTLENECK = 4  # maps of a 1 x 1 convolution, in growth rates


def build_densenet(
    inputs: keras.KerasTensor,
    *,
    depth: int = 121,
    growth_rate: int = 32,
    compression: float = 0.5,
    transition_pool: str = "average",
    dropout: float = 0.0,
) -> keras.KerasTensor:
    """Builds DenseNet-BC for images of ImageNet's size, from its stem to the last normalization.

    By default it is keras.applications' network, tensor for tensor, but for what only training
    sees: He-uniform initial weights and statistics with a momentum of 0.9 instead of 0.99.

    Args:
        inputs: float32 (batch, h, w, c), preprocessed; h, w >= 32.
        depth: 121, 161, 169, 201 or 264.
        growth_rate: Maps that each dense layer adds; the stem has twice as many. 48 in 161.
        compression: Share of the maps that a transition keeps, above 0 to 1, rounded down.
        transition_pool: "average", as in the paper, or "max".
        dropout: Fraction dropped after each convolution of a dense layer.

    Returns:
        (batch, h / 32, w / 32, c'); 1024 maps for 121.
    """
    x = layers.ZeroPadding2D(3, name="conv1_pad")(inputs)
    x = _conv(x, 2 * growth_rate, 7, strides=2, padding="valid", name="conv1_conv")
    x = _normalize(x, name="conv1")
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for block, count in enumerate(LAYERS[depth], start=2):
        if block > 2:
            x = _transition(x, compression, transition_pool, name=f"pool{block - 1}")
        for index in range(1, count + 1):
            name = f"conv{block}_block{index}"
            x = _dense_layer(x, growth_rate, bottleneck=True, dropout=dropout, name=name)
    return _finish(x)


def build_cifar_densenet(
    inputs: keras.KerasTensor,
    *,
    depth: int = 100,
    growth_rate: int = 12,
    bottleneck: bool = False,
    compression: float = 1.0,
    transition_pool: str = "average",
    dropout: float = 0.0,
) -> keras.KerasTensor:
    """Builds the paper's DenseNet for images of 32 pixels: three dense blocks.

    Args:
        inputs: float32 (batch, h, w, c), preprocessed; h, w >= 8.
        depth: 3n + 4 for n layers in each block, 6n + 4 with bottlenecks.
        growth_rate: Maps that each dense layer adds.
        bottleneck: A 1 x 1 convolution before each 3 x 3 (the B of BC); then the stem has twice
            `growth_rate` maps, else 16.
        compression: Share of the maps that a transition keeps (the C of BC: one half).
        transition_pool: "average", as in the paper, or "max".
        dropout: Fraction dropped after each convolution of a dense layer; 0.2 in the paper where
            images are not augmented.

    Returns:
        (batch, h / 4, w / 4, c').

    Raises:
        ValueError: `depth` gives no whole number of layers.
    """
    count, rest = divmod(depth - 4, 6 if bottleneck else 3)
    if rest or count < 1:
        expected = "6n + 4" if bottleneck else "3n + 4"
        raise ValueError(f"Expected a depth of {expected}, got {depth}.")
    x = _conv(inputs, 2 * growth_rate if bottleneck else 16, 3, name="conv1_conv")
    for block in (2, 3, 4):
        if block > 2:
            x = _transition(x, compression, transition_pool, name=f"pool{block - 1}")
        for index in range(1, count + 1):
            name = f"conv{block}_block{index}"
            x = _dense_layer(x, growth_rate, bottleneck=bottleneck, dropout=dropout, name=name)
    return _finish(x)


def _dense_layer(
    x: keras.KerasTensor, growth_rate: int, *, bottleneck: bool, dropout: float, name: str
) -> keras.KerasTensor:
    """Builds normalization, ReLU and convolution, and joins the new maps to all before them."""
    y = _normalize(x, name=f"{name}_0")
    if bottleneck:
        y = _conv(y, _BOTTLENECK * growth_rate, 1, name=f"{name}_1_conv")
        y = _drop(y, dropout, name=f"{name}_1_drop")
        y = _normalize(y, name=f"{name}_1")
    y = _conv(y, growth_rate, 3, name=f"{name}_2_conv")
    y = _drop(y, dropout, name=f"{name}_2_drop")
    outputs: keras.KerasTensor = layers.Concatenate(name=f"{name}_concat")([x, y])
    return outputs


def _transition(
    x: keras.KerasTensor, compression: float, pooling: str, *, name: str
) -> keras.KerasTensor:
    x = _normalize(x, name=name)
    x = _conv(x, max(1, int(x.shape[-1] * compression)), 1, name=f"{name}_conv")
    pool = {"average": layers.AveragePooling2D, "max": layers.MaxPooling2D}[pooling]
    outputs: keras.KerasTensor = pool(2, name=f"{name}_pool")(x)
    return outputs


def _finish(x: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=0.9, epsilon=_EPSILON, name="bn")(x)
    outputs: keras.KerasTensor = layers.ReLU(name="relu")(x)
    return outputs


def _normalize(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=0.9, epsilon=_EPSILON, name=f"{name}_bn")(x)
    outputs: keras.KerasTensor = layers.ReLU(name=f"{name}_relu")(x)
    return outputs


def _conv(
    x: keras.KerasTensor,
    filters: int,
    size: int,
    *,
    strides: int = 1,
    padding: str = "same",
    name: str,
) -> keras.KerasTensor:
    outputs: keras.KerasTensor = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_uniform",
        name=name,
    )(x)
    return outputs


def _drop(x: keras.KerasTensor, rate: float, *, name: str) -> keras.KerasTensor:
    return layers.Dropout(rate, name=name)(x) if rate else x
