"""The head: pooling, hidden layers, dropout and the output, drawn onto a base's features."""

from __future__ import annotations

import keras

from tl_toolkit.recipe.schema import Head
from tl_toolkit.runtime import derive_seed

OUTPUT_LAYER = "predictions"


def build_head(
    features: keras.KerasTensor, head: Head, *, num_classes: int, seed: int = 0
) -> keras.KerasTensor:
    """Draws the head of a classifier.

    Args:
        features: A base's output: a map (batch, h, w, channels) or a vector (batch, channels).
        head: Pooling, hidden layers, dropout and activation, as in the recipe.
        num_classes: Number of classes, at least 2; exactly 2 with a sigmoid.
        seed: Initial weights and dropout masks follow from it.

    Returns:
        float32 probabilities: (batch, num_classes) with a softmax; with a sigmoid (batch, 1), the
        probability of the second class.
    """
    x = _pool(features, head.pooling)
    for number, hidden in enumerate(head.hidden, start=1):
        x = keras.layers.Dense(
            hidden.units,
            activation=hidden.activation,
            kernel_initializer=keras.initializers.GlorotUniform(derive_seed(seed, number)),
            kernel_regularizer=build_regularizer(hidden.l1, hidden.l2),
            name=f"head_hidden{number}",
        )(x)
        if hidden.dropout:
            x = keras.layers.Dropout(
                hidden.dropout,
                seed=derive_seed(seed, number, "dropout"),
                name=f"head_hidden{number}_dropout",
            )(x)
    if head.dropout:
        x = keras.layers.Dropout(
            head.dropout, seed=derive_seed(seed, "dropout"), name="head_dropout"
        )(x)
    return keras.layers.Dense(
        1 if head.activation == "sigmoid" else num_classes,
        activation=head.activation,
        kernel_initializer=keras.initializers.GlorotUniform(derive_seed(seed, "output")),
        kernel_regularizer=build_regularizer(head.l1, head.l2),
        dtype="float32",  # a half-precision softmax loses small probabilities
        name=OUTPUT_LAYER,
    )(x)


def is_head(layer: keras.layers.Layer) -> bool:
    """Tells whether a layer was drawn by `build_head`, by its name."""
    return layer.name == OUTPUT_LAYER or layer.name.startswith("head_")


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
    """Returns the penalty l1 * sum(|w|) + l2 * sum(w^2), None where both are 0."""
    if not l1 and not l2:
        return None
    return keras.regularizers.L1L2(l1=l1, l2=l2)
