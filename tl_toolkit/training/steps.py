"""Steps of training and passes of evaluation, compiled once: whole stretches of rows at a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.transfer.batches import PREFIX_BATCH, Rows, pad_rows, take_rows
from tl_toolkit.transfer.freezing import Split
from tl_toolkit.transfer.wrappers import VariableDropout


class Steps:
    """Trains and evaluates the suffix of a split.

    The loop over batches is part of the compiled functions: a step of a small head takes less time
    than the call of a function does. One row or many, it is the same step, bit for bit.

    Args:
        split: Where the trainable part begins.
        optimizer: A fresh optimizer.
        batch_size: Rows of each step.

    Attributes:
        model: The suffix.
        optimizer: The optimizer.
    """

    def __init__(
        self, split: Split, optimizer: keras.optimizers.Optimizer, *, batch_size: int
    ) -> None:
        self.model = split.suffix.model
        self.optimizer = optimizer
        self._split = split
        self._batch_size = batch_size
        optimizer.build(list(split.trainable))  # its variables must exist before the step is traced
        self._fresh = [variable.numpy() for variable in optimizer.variables]
        signature = [self._features(), tf.TensorSpec((None,), tf.int32)]
        self._train = tf.function(self._train_rows, input_signature=signature)
        self._evaluate = tf.function(self._evaluate_rows, input_signature=signature)
        self._penalize = tf.function(self._penalty, input_signature=[])

    def _features(self) -> Any:
        """Returns what the compiled functions take: rows of each tensor of the cut."""
        return tf.nest.map_structure(
            lambda tensor: tf.TensorSpec((None, *tensor.shape[1:]), tf.float32), self.model.input
        )

    @property
    def dropouts(self) -> list[VariableDropout]:
        """The dropouts of the head, whose rates may be set between epochs."""
        return [layer for layer in self.model.layers if isinstance(layer, VariableDropout)]

    @property
    def learning_rate(self) -> float:
        """The optimizer's rate as it is now, to the digits that a float32 has."""
        return float(f"{float(self.optimizer.learning_rate):.7g}")

    def restart(self, learning_rate: float) -> None:
        """Makes the optimizer a fresh one again, at this rate."""
        for variable, value in zip(self.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        self.optimizer.learning_rate = learning_rate

    def trace(self) -> None:
        """Compiles what the first epoch would."""
        self._train.get_concrete_function()
        self._evaluate.get_concrete_function()

    def train(self, features: Rows, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes a step on each batch of the rows, in their order; the last one may be shorter.

        Args:
            features: What crosses the cut, any number of rows.
            labels: int32, one for each row.

        Returns:
            Of each step the mean loss of its batch before it, without the penalty, and the number
            of right answers.
        """
        losses, hits = self._train(features, labels)
        return losses.numpy(), hits.numpy()

    def evaluate(self, chunks: Iterable[tuple[Rows, np.ndarray]]) -> tuple[float, float]:
        """Returns mean loss, without the penalty, and accuracy in [0, 1] over all rows.

        Args:
            chunks: Features and labels; whole multiples of `PREFIX_BATCH` rows but for the last
                one: batches are padded, so that a row's loss does not hang on its batch.
        """
        losses, _, hits = self._assess(chunks)
        return float(losses.mean(dtype=np.float64)), float(hits.mean())

    def predict(self, chunks: Iterable[tuple[Rows, np.ndarray]]) -> np.ndarray:
        """Returns float32 probabilities (n, classes), at least two columns; `chunks` as above."""
        return class_probabilities(self._assess(chunks)[1])

    def _assess(self, chunks: Iterable[tuple[Rows, np.ndarray]]) -> list[np.ndarray]:
        found = []
        for features, labels in chunks:
            missing = -len(labels) % PREFIX_BATCH
            rows = self._evaluate(pad_rows(features, missing), np.pad(labels, (0, missing)))
            found.append([column.numpy()[: len(labels)] for column in rows])
        return [np.concatenate(column) for column in zip(*found, strict=True)]

    def penalty(self) -> float:
        """The sum of all L1 and L2 penalties on what trains; a step's gradient includes theirs."""
        return float(self._penalize()) if self.model.losses else 0.0

    def _train_rows(self, features: Rows, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.shape(labels)[0]
        steps = -(-rows // self._batch_size)
        losses = tf.TensorArray(tf.float32, steps)
        hits = tf.TensorArray(tf.int32, steps)
        for step in tf.range(steps):
            start = step * self._batch_size
            stop = tf.minimum(start + self._batch_size, rows)
            loss, correct = self._take_step(take_rows(features, start, stop), labels[start:stop])
            losses = losses.write(step, loss)
            hits = hits.write(step, correct)
        return losses.stack(), hits.stack()

    def _take_step(self, features: Rows, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        variables = list(self._split.trainable)
        with tf.GradientTape() as tape:
            losses, _, hits = self._compare(self.model(features, training=True), labels)
            loss = tf.reduce_mean(losses)
            objective = loss + self._penalty()
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        self.optimizer.apply(gradients, variables)
        return loss, tf.reduce_sum(tf.cast(hits, tf.int32))

    def _evaluate_rows(self, features: Rows, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        batches = tf.shape(labels)[0] // PREFIX_BATCH
        kinds = (tf.float32, tf.float32, tf.bool)
        columns = [tf.TensorArray(kind, batches) for kind in kinds]
        for batch in tf.range(batches):
            start = batch * PREFIX_BATCH
            # A fixed size, known while it is traced: kernels choose their algorithm by it.
            rows = tf.nest.map_structure(
                lambda tensor: tf.ensure_shape(tensor, (PREFIX_BATCH, *tensor.shape[1:])),
                take_rows((features, labels), start, start + PREFIX_BATCH),
            )
            found = self._compare(self.model(rows[0], training=False), rows[1])
            columns = [
                column.write(batch, value) for column, value in zip(columns, found, strict=True)
            ]
        return tuple(column.concat() for column in columns)

    def _compare(self, probabilities: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Loss of each row, the probabilities, and whether its answer is right.

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
        return losses, probabilities, answers == labels

    def _penalty(self) -> tf.Tensor:
        return tf.add_n([tf.constant(0.0), *self.model.losses])


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
