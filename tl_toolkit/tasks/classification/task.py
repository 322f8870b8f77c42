"""One class for each image."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

__all__ = ["Classification"]


class Classification:
    """Cross-entropy over classes; the score is the fraction of right answers.

    Args:
        num_classes: Number of classes, at least 2.
        activation: softmax, or sigmoid: one output for both of two classes.
    """

    name = "classification"
    score = "accuracy"
    answers_pixels = False
    targets = tf.TensorSpec((None,), tf.int32)

    def __init__(self, num_classes: int, activation: str = "softmax") -> None:
        self.units = 1 if activation == "sigmoid" else num_classes
        self.activation = activation

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each image, and (right answers, answers) of each.

        Given a model's own output, Keras finds the logits behind it: a confident error costs its
        full price in training and in evaluation alike, where a clipped probability caps it.

        Args:
            outputs: Probabilities (batch, classes); with a sigmoid (batch, 1).
            targets: int32 (batch,), indices into the classes.
        """
        if self.units == 1:
            wanted = tf.cast(targets[:, None], tf.float32)
            losses = keras.losses.binary_crossentropy(wanted, outputs)
            answers = tf.cast(outputs[:, 0] > 0.5, tf.int32)
        else:
            losses = keras.losses.sparse_categorical_crossentropy(targets, outputs)
            answers = tf.argmax(outputs, axis=-1, output_type=tf.int32)
        hits = tf.cast(answers == targets, tf.int32)
        return losses, tf.stack([hits, tf.ones_like(hits)], axis=-1)

    def weigh(self, count: Callable[[], np.ndarray]) -> None:
        """Has no use for it."""

    def score_of(self, tally: np.ndarray) -> float:
        """Returns the accuracy."""
        hits, answers = tally
        return float(hits / answers)
