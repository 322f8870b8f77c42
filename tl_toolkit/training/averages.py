"""Exponential moving averages of the weights that train (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

__all__ = ["Averages"]


class Averages:
    """Averages weights over the steps, and lends the averages to the model between them.

    After a step, an average is momentum * average + (1 - momentum) * weight, and the weight itself
    after the first step, as Keras's optimizers have it.

    Args:
        weights: The variables that train.
        momentum: Above 0 and below 1; None for no averages, and methods without effect.

    Attributes:
        variables: The averages.
    """

    def __init__(self, weights: Sequence[keras.Variable], momentum: float | None) -> None:
        self._weights = list(weights) if momentum is not None else []
        self._momentum = momentum
        self.variables = [tf.Variable(weight.value, trainable=False) for weight in self._weights]
        self._lent: list[tf.Tensor] = []

    def update(self, steps: tf.Tensor, *, before: tf.Tensor) -> None:
        """Adds the weights as they are, inside a compiled function.

        Batches whose gradients are only accumulated change no weight, and no average.

        Args:
            steps: Steps of the phase so far, the one that they come from included.
            before: Steps of the phase before the batch; as many where it was no step.
        """
        # Until the first step the averages are the weights that the phase begins with.
        is_new = (steps > before) | (steps == 0)
        for weight, average in zip(self._weights, self.variables, strict=True):
            momentum = tf.where(steps > 1, tf.cast(self._momentum, average.dtype), 0)
            value = momentum * average + (1 - momentum) * weight.value
            average.assign(tf.where(is_new, value, average))

    @property
    def are_lent(self) -> bool:
        """Whether the model has the averages in place of its weights."""
        return bool(self._lent)

    def swap_in(self) -> None:
        """Gives the model the averages, and keeps its weights."""
        if self._lent:
            return
        self._lent = [tf.identity(weight.value) for weight in self._weights]
        for weight, average in zip(self._weights, self.variables, strict=True):
            weight.assign(average)

    def swap_out(self) -> None:
        """Gives the model its weights back, if it has the averages."""
        for weight, value in zip(self._weights, self._lent, strict=False):
            weight.assign(value)
        self.forget_weights()

    def forget_weights(self) -> None:
        """Lets the model keep what it has: a new phase begins with other weights."""
        self._lent = []
