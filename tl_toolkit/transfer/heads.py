"""The head: pooling, hidden layers, dropout and the output, drawn onto a base's features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras

from tl_toolkit.recipe.schema import Head
from tl_toolkit.runtime import derive_seed
from tl_toolkit.transfer.wrappers import VariableDropout

OUTPUT_LAYER = "predictions"


def build_head(features: keras.KerasTensor, head: Head, *, num_classes: int) -> keras.KerasTensor:
    """Draws the head of a classifier; `initialize_head` gives it its weights.

    Args:
        features: A base's output: a map (batch, h, w, channels) or a vector (batch, channels).
        head: Pooling, hidden layers, dropout and activation, as in the recipe.
        num_classes: Number of classes, at least 2; exactly 2 with a sigmoid.

    Returns:
        float32 probabilities: (batch, num_classes) with a softmax; with a sigmoid (batch, 1), the
        probability of the second class.
    """
    return build_dense(
        _pool(features, head.pooling),
        head,
        units=1 if head.activation == "sigmoid" else num_classes,
        activation=head.activation,
    )


def build_dense(
    x: keras.KerasTensor, head: Head, *, units: int, activation: str
) -> keras.KerasTensor:
    """Draws hidden layers, dropout and the output on features (..., channels).

    Args:
        x: The features; all but the last axis are kept.
        head: Hidden layers, dropout and penalties.
        units: Outputs.
        activation: Of the outputs.

    Returns:
        float32 (..., units).
    """
    for number, hidden in enumerate(head.hidden, start=1):
        x = keras.layers.Dense(
            hidden.units,
            activation=hidden.activation,
            kernel_regularizer=build_regularizer(hidden.l1, hidden.l2),
            name=f"head_hidden{number}",
        )(x)
        if hidden.dropout:
            # Each phase starts the stream of its masks anew, from a seed of its own.
            name = f"head_hidden{number}_dropout"
            x = keras.layers.Dropout(hidden.dropout, seed=0, name=name)(x)
    if head.dropout:
        x = keras.layers.Dropout(head.dropout, seed=0, name="head_dropout")(x)
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_regularizer=build_regularizer(head.l1, head.l2),
        dtype="float32",  # a half-precision softmax loses small probabilities
        name=OUTPUT_LAYER,
    )(x)


def is_head(layer: keras.layers.Layer) -> bool:
    """Tells whether a layer was drawn as part of a head, by its name.

    Args:
        layer: Any layer of a model.
    """
    name = str(layer.name)
    return name == OUTPUT_LAYER or name.startswith("head_")


def is_head_dropout(layer: keras.layers.Layer) -> bool:
    """Tells whether a layer is a dropout that the recipe's head asks for.

    Args:
        layer: Any layer of a model.
    """
    return is_head(layer) and isinstance(layer, keras.layers.Dropout)


def set_dropout(layers: Iterable[VariableDropout], rates: Mapping[str, float]) -> None:
    """Gives the dropouts of a suffix their rates.

    Args:
        layers: The dropouts.
        rates: By the name of the layer that each stands in for.
    """
    for layer in layers:
        layer.set_rate(rates[layer.layer.name])


def initialize_head(layers: Iterable[keras.layers.Layer], seed: int) -> None:
    """Draws the initial weights of a head anew: Glorot uniform kernels, biases of zero.

    Statistics that normalize maps begin anew too.

    Args:
        layers: The layers of the head.
        seed: The weights follow from it and from the layers' names.
    """
    for layer in layers:
        if isinstance(layer, keras.layers.Dense):
            draw = keras.initializers.GlorotUniform(derive_seed(seed, layer.name))
            layer.kernel.assign(draw(layer.kernel.shape))
            layer.bias.assign(keras.ops.zeros_like(layer.bias))
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(keras.ops.zeros_like(layer.moving_mean))
            layer.moving_variance.assign(keras.ops.ones_like(layer.moving_variance))


def _pool(features: keras.KerasTensor, pooling: str | None) -> keras.KerasTensor:
    if len(features.shape) == 2:
        return features
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(name="head_pool")(features)
    if pooling == "sum":
        return keras.ops.sum(features, axis=(1, 2))  # a plain op: Keras has no such layer
    if pooling == "flatten":
        return keras.layers.Flatten(name="head_pool")(features)
    return keras.layers.GlobalAveragePooling2D(name="head_pool")(features)


def build_regularizer(l1: float, l2: float) -> keras.regularizers.Regularizer | None:
    """Returns the penalty l1 * sum(|w|) + l2 * sum(w^2), None where both are 0.

    Args:
        l1: Factor of the sum of absolute values, 0 or more.
        l2: Factor of the sum of squares, 0 or more.
    """
    if not l1 and not l2:
        return None
    return keras.regularizers.L1L2(l1=l1, l2=l2)
