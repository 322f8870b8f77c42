"""One step of training and one pass of evaluation, compiled once for each phase."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.transfer.batches import PREFIX_BATCH, Rows, pad_rows
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
        labels = tf.TensorSpec((None,), tf.int32)
        self._step = tf.function(self._take_step, input_signature=[self._features(None), labels])
        self._assess = tf.function(
            lambda features, labels: self._compare(self._model(features, training=False), labels),
            input_signature=[
                self._features(PREFIX_BATCH),
                tf.TensorSpec((PREFIX_BATCH,), tf.int32),
            ],
        )

    def _features(self, rows: int | None) -> Any:
        """Returns what the compiled functions take: that many rows of each tensor of the cut."""
        return tf.nest.map_structure(
            lambda tensor: tf.TensorSpec((rows, *tensor.shape[1:]), tf.float32), self._model.input
        )

    def train(self, features: Rows, labels: tf.Tensor) -> tuple[float, int]:
        """Takes one step; returns the batch's mean loss before it, and its correct answers."""
        loss, correct = self._step(features, labels)
        return float(loss), int(correct)

    def evaluate(self, batches: Iterable[tuple[Rows, tf.Tensor]]) -> tuple[float, float]:
        """Returns mean loss (regularization included) and accuracy in [0, 1] over all batches.

        Args:
            batches: Features and labels of at most `PREFIX_BATCH` rows; shorter ones are padded, so
                that an image's loss does not hang on the batch it is in.
        """
        losses, hits = [], []
        for features, labels in batches:
            missing = PREFIX_BATCH - len(labels)
            found = self._assess(pad_rows(features, missing), pad_rows(labels, missing))
            losses.append(found[0][: len(labels)].numpy())
            hits.append(found[1][: len(labels)].numpy())
        mean = float(np.concatenate(losses).mean(dtype=np.float64))
        return mean + float(self._regularize()), float(np.concatenate(hits).mean())

    def _take_step(self, features: Rows, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        variables = list(self._split.trainable)
        with tf.GradientTape() as tape:
            losses, hits = self._compare(self._model(features, training=True), labels)
            loss = tf.reduce_mean(losses) + self._regularize()
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        self._optimizer.apply(gradients, variables)
        return loss, tf.reduce_sum(tf.cast(hits, tf.int32))

    def _compare(self, probabilities: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Loss of each row, and whether its answer is right.

        Given a model's own output, Keras finds the logits behind it: a confident error costs its
        full price in training and in evaluation alike, where a clipped probability caps it.
        """
        if probabilities.shape[-1] == 1:
            targets = tf.cast(labels[:, None], tf.float32)
            losses = keras.losses.binary_crossentropy(targets, probabilities)
            answers = tf.cast(probabilities[:, 0] > 0.5, tf.int32)
        else:
            losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
            answers = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        return losses, answers == labels

    def _regularize(self) -> tf.Tensor:
        return tf.add_n([tf.constant(0.0), *self._model.losses])


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
