"""Layers that stand in for others inside a suffix, for as long as it trains; never saved."""

from __future__ import annotations

from typing import Any

import keras


class InInferenceMode(keras.layers.Layer):
    """A layer that never trains, whatever the model around it does.

    Args:
        layer: The layer; it stays the owner of its weights.
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

    Compiled steps keep a number that they were traced with; a variable lets them serve every rate.
    At rate 0 every value passes as it is.

    Args:
        layer: The dropout layer it stands in for, without a noise shape; gives rate and seed.
    """

    def __init__(self, layer: keras.layers.Dropout, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = layer
        self._rate = keras.Variable(0.0, trainable=False, name="rate")
        self._scale = keras.Variable(1.0, trainable=False, name="scale")
        self.set_rate(layer.rate)

    def set_rate(self, rate: float) -> None:
        """Drops this fraction from the next step on, 0 to below 1.

        Args:
            rate: The fraction.
        """
        self._rate.assign(rate)
        self._scale.assign(1 / (1 - rate))  # in double precision, as a constant of Keras's would be

    def call(self, x: Any, training: bool = False) -> Any:
        """Returns the input, in training with the fraction dropped and the rest scaled up.

        Args:
            x: Values of any shape.
            training: Whether it is training.
        """
        if not training:
            return x
        drawn = keras.random.uniform(keras.ops.shape(x), seed=self.layer.seed_generator)
        return keras.ops.where(drawn >= self._rate, x * self._scale, 0.0)
