"""A fixed scale and offset of each output, set once and saved with the model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

__all__ = ["Affine"]


@keras.saving.register_keras_serializable(package="tl_toolkit")
class Affine(keras.layers.Layer):
    """Multiplies each channel by a scale and adds an offset; neither trains.

    Keras's `Normalization(invert=True)` computes with copies of its weights: a function that is
    compiled before the weights are set keeps the old copies.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights: a scale of 1, an offset of 0.

        Args:
            input_shape: (batch, ..., channels).
        """
        shape = (input_shape[-1],)
        self.scale = self.add_weight(shape=shape, initializer="ones", trainable=False, name="scale")
        self.offset = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="offset"
        )

    def set(self, scale: np.ndarray, offset: np.ndarray) -> None:
        """Sets scale and offset.

        Args:
            scale: (channels,).
            offset: (channels,).
        """
        self.scale.assign(scale)
        self.offset.assign(offset)

    def call(self, inputs: Any) -> Any:
        """Returns inputs * scale + offset.

        Args:
            inputs: (batch, ..., channels).
        """
        return inputs * self.scale + self.offset
