"""Heads: pooling, hidden layers, dropout and the output, built onto a base's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import keras

from tl_toolkit.keras_private import producer_of

__all__ = [
    "OUTPUT_LAYER",
    "HeadLayers",
    "HiddenLayer",
    "build_dense",
    "build_head",
    "build_regularizer",
    "pool_features",
]

OUTPUT_LAYER = "predictions"

Pooling = Literal["average", "max", "sum", "flatten"]


@dataclass(frozen=True)
class HiddenLayer:
    """A dense layer between the pooled features and the output.

    Attributes:
        units: Outputs of the layer.
        activation: A name that Keras knows.
        dropout: Fraction of outputs dropped in training, [0, 1).
        l1: L1 regularization factor of the kernel, 0 or more.
        l2: L2 regularization factor of the kernel, 0 or more.
    """

    units: int
    activation: str = "relu"
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0


@dataclass(frozen=True)
class HeadLayers:
    """The layers of a head.

    Attributes:
        pooling: How a map becomes a vector; None for average.
        hidden: Dense layers before the output, input to output.
        dropout: Fraction of features dropped before the output in training, [0, 1).
        l1: L1 regularization factor of the output's kernel, 0 or more.
        l2: L2 regularization factor of the output's kernel, 0 or more.
    """

    pooling: Pooling | None = None
    hidden: tuple[HiddenLayer, ...] = ()
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> HeadLayers:
        """Returns the layers that plain values describe, as a catalog's record has them.

        Args:
            values: The attributes; `hidden` as a list of mappings. `activation`, which belongs to
                the output, is ignored.
        """
        fields = {name: value for name, value in values.items() if name != "activation"}
        hidden = tuple(HiddenLayer(**layer) for layer in fields.pop("hidden", None) or ())
        return cls(**fields, hidden=hidden)


def build_head(
    features: keras.KerasTensor, head: HeadLayers, *, units: int, activation: str
) -> keras.KerasTensor:
    """Builds the head of a task with one vector of outputs for each image.

    Args:
        features: A base's output: a map (batch, h, w, channels) or a vector (batch, channels).
        head: Its layers.
        units: Outputs.
        activation: Activation of the outputs.

    Returns:
        float32 (batch, units).
    """
    pooled = pool_features(features, head.pooling)
    return build_dense(pooled, head, units=units, activation=activation)


def build_dense(
    x: keras.KerasTensor, head: HeadLayers, *, units: int, activation: str
) -> keras.KerasTensor:
    """Builds hidden layers, dropout and the output on features (..., channels).

    Args:
        x: The features; all but the last axis are kept.
        head: Hidden layers, dropout and regularization.
        units: Outputs.
        activation: Activation of the outputs.

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
            # Each phase resets the stream of its masks, with a seed of its own.
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


def pool_features(features: keras.KerasTensor, pooling: str | None) -> keras.KerasTensor:
    """Reduces a map to a vector.

    Args:
        features: A map (batch, h, w, channels), or a vector, which stays as it is.
        pooling: One of `HeadLayers.pooling`.

    Returns:
        (batch, channels), or (batch, h * w * channels) with "flatten".
    """
    if len(features.shape) == 2:
        return features
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(name="head_pool")(features)
    if pooling == "sum":
        pooled = keras.ops.sum(features, axis=(1, 2))  # a plain op: Keras has no such layer
        producer_of(pooled).name = "head_sum"  # Keras's own, `sum`, may be taken by the base
        return pooled
    if pooling == "flatten":
        return keras.layers.Flatten(name="head_pool")(features)
    return keras.layers.GlobalAveragePooling2D(name="head_pool")(features)


def build_regularizer(l1: float, l2: float) -> keras.regularizers.Regularizer | None:
    """Returns the regularizer l1 * sum(|w|) + l2 * sum(w^2), None where both are 0.

    Args:
        l1: 0 or more.
        l2: 0 or more.
    """
    if not l1 and not l2:
        return None
    return keras.regularizers.L1L2(l1=l1, l2=l2)
