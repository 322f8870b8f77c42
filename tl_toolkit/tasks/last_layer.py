"""A temperature inside a graph of Keras's own operations, which every format holds."""

from __future__ import annotations

import keras
import numpy as np

from tl_toolkit.keras_private import producer_of

__all__ = ["scale_last_layer"]


def scale_last_layer(model: keras.Model, temperature: float) -> keras.Model:
    """Returns a model whose logits are divided by a temperature.

    The weights of the last layer are divided: the graph has no operation more, and whole numbers of
    8 bits find the ranges of the scaled logits.

    Args:
        model: Ends in a dense layer with its activation.
        temperature: Above 0; at 1 the model itself is returned.
    """
    if temperature == 1.0:
        return model
    layer = producer_of(model.output)
    scaled = keras.layers.Dense.from_config(layer.get_config())
    outputs = scaled(layer.input)
    scaled.set_weights([weight / np.float32(temperature) for weight in layer.get_weights()])
    inputs = model.inputs if len(model.inputs) > 1 else model.input
    return keras.Model(inputs, outputs, name=model.name)
