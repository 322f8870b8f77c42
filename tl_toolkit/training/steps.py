"""One step of training and one pass of evaluation, compiled once for each phase."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.transfer.freezing import Split


class Steps:
    """Trains and evaluates the suffix of a split.

    Args:
        split: Where the trainable part begins.
        optimizer: A fresh optimizer.
    """

    def __init__(self, split: Split, optimizer: keras.optimizers.Optimizer) -> None:
        self._split = split
        self._model = split.suffix.model
        self._optimizer = optimizer
        optimizer.build(list(split.trainable))  # its variables must exist before the step is traced
        features = tf.TensorSpec((None, *self._model.input.shape[1:]), tf.float32)
        labels = tf.TensorSpec((None,), tf.int32)
        self._step = tf.function(self._take_step, input_signature=[features, labels])
        self._measure = tf.function(
            self._compare,
            input_signature=[
                tf.TensorSpec((None, *self._model.output.shape[1:]), tf.float32),
                labels,
            ],
        )

    def train(self, features: tf.Tensor, labels: tf.Tensor) -> tuple[float, int]:
        """Takes one step; returns the batch's mean loss before it, and its correct answers."""
        loss, correct = self._step(features, labels)
        return float(loss), int(correct)

    def evaluate(self, batches: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> tuple[float, float]:
        """Returns mean loss (regularization included) and accuracy in [0, 1] over all batches."""
        probabilities, labels = [], []
        for features, answers in batches:
            probabilities.append(self._split.suffix(features))
            labels.append(answers)
        loss, correct = self._measure(tf.concat(probabilities, 0), tf.concat(labels, 0))
        return float(loss), int(correct) / sum(len(answers) for answers in labels)

    def _take_step(self, features: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        variables = list(self._split.trainable)
        with tf.GradientTape() as tape:
            probabilities = self._model(features, training=True)
            loss, correct = self._compare(probabilities, labels)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        self._optimizer.apply(gradients, variables)
        return loss, correct

    def _compare(self, probabilities: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean loss with regularization, and the number of correct answers."""
        if probabilities.shape[-1] == 1:
            targets = tf.cast(labels[:, None], tf.float32)
            losses = keras.losses.binary_crossentropy(targets, probabilities)
            answers = tf.cast(probabilities[:, 0] > 0.5, tf.int32)
        else:
            losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
            answers = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        regularization = tf.add_n([tf.constant(0.0), *self._model.losses])
        correct = tf.reduce_sum(tf.cast(answers == labels, tf.int32))
        return tf.reduce_mean(losses) + regularization, correct


def class_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Turns a sigmoid's single column into two; leaves a softmax's columns as they are.

    Args:
        outputs: float32 (n, 1) or (n, classes).

    Returns:
        float32 (n, classes), at least two columns.
    """
    if outputs.shape[1] > 1:
        return outputs
    return np.concatenate([1.0 - outputs, outputs], axis=1)
