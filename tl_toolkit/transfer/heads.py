"""The head of a model: its layers, their initial weights, and the rates of its dropouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras

from tl_toolkit.architectures.heads import OUTPUT_LAYER
from tl_toolkit.architectures.layers import GeneralizedMeanPooling2D
from tl_toolkit.runtime import derive_seed
from tl_toolkit.transfer.wrappers import VariableDropout


def is_head(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer is part of a head, by its name.

    Args:
        layer: Any layer of a model.
    """
    name = str(layer.name)
    return name == OUTPUT_LAYER or name.startswith("head_")


def is_head_dropout(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer is a dropout of the recipe's head.

    Args:
        layer: Any layer of a model.
    """
    return is_head(layer) and isinstance(layer, keras.layers.Dropout)


def pools_by_weights(layers: Iterable[keras.layers.Layer]) -> bool:
    """Returns whether a head pools with trainable weights, which then belong to its suffix.

    Args:
        layers: The layers of the head.
    """
    return any(isinstance(layer, GeneralizedMeanPooling2D) for layer in layers)


def set_dropout(layers: Iterable[VariableDropout], rates: Mapping[str, float]) -> None:
    """Sets the rates of the dropouts of a suffix.

    Args:
        layers: The dropouts.
        rates: Rates by the name of the layer that a dropout replaces.
    """
    for layer in layers:
        layer.set_rate(rates[layer.layer.name])


def initialize_head(layers: Iterable[keras.layers.Layer], seed: int) -> None:
    """Samples new initial weights of a head: Glorot uniform kernels, biases of zero.

    Moving statistics of a head that normalizes, and exponents of its pooling, are reset too.

    Args:
        layers: The layers of the head.
        seed: The weights follow from it and from the layers' names.
    """
    for layer in layers:
        if isinstance(layer, keras.layers.Dense):
            initializer = keras.initializers.GlorotUniform(derive_seed(seed, layer.name))
            layer.kernel.assign(initializer(layer.kernel.shape))
            layer.bias.assign(keras.ops.zeros_like(layer.bias))
        elif isinstance(layer, GeneralizedMeanPooling2D):
            layer.p.assign(layer.exponent)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(keras.ops.zeros_like(layer.moving_mean))
            layer.moving_variance.assign(keras.ops.ones_like(layer.moving_variance))
