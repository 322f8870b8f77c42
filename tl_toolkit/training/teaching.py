"""What a step minimizes where a teacher is learned from (Hinton et al., 2015)."""

from __future__ import annotations

import tensorflow as tf

__all__ = ["Distillation"]

_LEAST = 1e-30
"""Probabilities are not taken below: log(0) has no gradient; from here one step leads back."""


class Distillation:
    """(1 - w) * objective + w * T^2 * KL(teacher at T, model at T), for each example.

    Temperature T and weight w are variables, so that compiled steps serve every pair of them.
    """

    def __init__(self) -> None:
        self._temperature = tf.Variable(1.0, trainable=False)
        self._weight = tf.Variable(0.0, trainable=False)

    def set(self, *, temperature: float, weight: float) -> None:
        """Sets what the coming steps learn by.

        Args:
            temperature: T.
            weight: w.
        """
        self._temperature.assign(temperature)
        self._weight.assign(weight)

    def join(self, objective: tf.Tensor, shares: tf.Tensor, taught: tf.Tensor) -> tf.Tensor:
        """Returns what is minimized for each example.

        Args:
            objective: What is minimized without a teacher, float32 (batch,).
            shares: Probabilities of the classes, float32 (batch, classes).
            taught: The teacher's, likewise.
        """
        expected, found = (self._soften(values) for values in (taught, shares))
        divergence = tf.reduce_sum(tf.exp(expected) * (expected - found), axis=-1)
        scale = self._weight * tf.square(self._temperature)
        return (1 - self._weight) * objective + scale * divergence

    def _soften(self, shares: tf.Tensor) -> tf.Tensor:
        """Returns logarithms of the shares that their logits, divided by T, give."""
        # Logarithms of shares are logits but for a constant, which a softmax ignores.
        logits = tf.math.log(tf.maximum(shares, _LEAST)) / self._temperature
        return tf.nn.log_softmax(logits, axis=-1)
