"""Layers that replace others inside a suffix while it trains; they are never saved."""

from __future__ import annotations

from typing import Any

import keras


class InInferenceMode(keras.layers.Layer):
    """Calls a layer in inference mode, whatever the mode of the model around it.

    Args:
        layer: The layer, which still owns its weights.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = layer
        self.trainable = False

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer with `training=False`."""
        return self.layer(*args, training=False, **kwargs)


class VariableDropout(keras.layers.Layer):
    """Keras's Dropout with its rate in a variable, equal to it bit for bit.

    Compiled steps keep a number that they were traced with; with a variable they can use any rate.
    At rate 0 all values pass unchanged.

    Args:
        layer: The dropout layer that it replaces, without a noise shape; has the rate and the seed.
    """

    def __init__(self, layer: keras.layers.Dropout, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = layer
        self._rate = keras.Variable(0.0, trainable=False, name="rate")
        self._scale = keras.Variable(1.0, trainable=False, name="scale")
        self.set_rate(layer.rate)

    def set_rate(self, rate: float) -> None:
        """Sets the fraction that is dropped from the next step on.

        Args:
            rate: The fraction, 0 to below 1.
        """
        self._rate.assign(rate)
        self._scale.assign(1 / (1 - rate))  # in double precision, as a constant of Keras's would be

    def call(self, x: Any, training: bool = False) -> Any:
        """Returns the input; in training, with the fraction dropped and the rest scaled up.

        Args:
            x: Values of any shape.
            training: Whether the model is training.
        """
        if not training:
            return x
        noise = keras.random.uniform(keras.ops.shape(x), seed=self.layer.seed_generator)
        return keras.ops.where(noise >= self._rate, x * self._scale, 0.0)
