"""Steps of training and passes of evaluation, compiled once: whole stretches of rows at a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, pad_batch, take_examples
from tl_toolkit.tasks.base import Task
from tl_toolkit.training.optimizers import RateTable
from tl_toolkit.transfer.freezing import Split
from tl_toolkit.transfer.wrappers import VariableDropout


class Steps:
    """Trains and evaluates the suffix of a split.

    The loop over batches is part of the compiled functions: a step of a small head takes less time
    than the call of a function does. One row or many, it is the same step, bit for bit.

    Args:
        split: Where the trainable part begins.
        optimizer: A fresh optimizer.
        task: Gives loss and tally of each row.
        batch_size: Batch of each step.
        schedule: The table that the optimizer reads its rate from, if it has a schedule.

    Attributes:
        model: The suffix.
        optimizer: The optimizer.
        task: The task.
        last_outputs: For the last examples that were evaluated, (n, ...); None before.
    """

    def __init__(
        self,
        split: Split,
        optimizer: keras.optimizers.Optimizer,
        *,
        task: Task,
        batch_size: int,
        schedule: RateTable | None = None,
    ) -> None:
        self.model = split.suffix.model
        self.optimizer = optimizer
        self.task = task
        self.last_outputs: np.ndarray | None = None
        self._evaluated = split.suffix.batch_size
        self._split = split
        self._batch_size = batch_size
        self._schedule = schedule
        optimizer.build(list(split.trainable))  # its variables must exist before the step is traced
        self._fresh = [variable.numpy() for variable in optimizer.variables]
        signature = [self._features(), task.targets]
        self._train = tf.function(self._train_rows, input_signature=signature)
        self._evaluate = tf.function(self._evaluate_rows, input_signature=signature)
        self._regularize = tf.function(self._regularization, input_signature=[])

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

    def restart(self, learning_rate: float | np.ndarray) -> None:
        """Makes the optimizer a fresh one again.

        Args:
            learning_rate: Its rate; of an optimizer with a schedule, that of each step.
        """
        for variable, value in zip(self.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        if isinstance(learning_rate, float):
            self.optimizer.learning_rate = learning_rate
        elif self._schedule is not None:
            self._schedule.set(learning_rate)

    def trace(self) -> None:
        """Compiles what the first epoch would."""
        self._train.get_concrete_function()
        self._evaluate.get_concrete_function()

    def train(self, features: Batch, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes a step on each batch of the rows, in their order; the last one may be shorter.

        Args:
            features: What crosses the cut, any number of rows.
            targets: One for each row.

        Returns:
            Of each step the mean loss of its batch before it, without the regularization loss, and
            the metric state of its batch.
        """
        losses, states = self._train(features, targets)
        return losses.numpy(), states.numpy()

    def evaluate(
        self,
        chunks: Iterable[tuple[Batch, np.ndarray]],
        *,
        report: Callable[[float, float], None] | None = None,
    ) -> tuple[float, float]:
        """Returns mean loss, without the regularization loss, and the task's score over all rows.

        Args:
            chunks: Features and targets; whole multiples of the suffix's batch size but for the
                last one: batches are padded, so that an example's loss depends on no other.
            report: Is told both, of all rows so far, after each chunk.
        """
        losses: list[np.ndarray] = []
        states: list[np.ndarray] = []

        def so_far() -> tuple[float, float]:
            loss = float(np.concatenate(losses).mean(dtype=np.float64))
            return loss, self.task.score_of(np.sum(states, axis=0))

        for loss, outputs, state in self._assess(chunks):
            losses.append(loss)
            states.append(state.sum(axis=0, dtype=wide_type(state)))
            self.last_outputs = outputs
            if report is not None:
                report(*so_far())
        return so_far()

    def assess(self, chunks: Iterable[tuple[Batch, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the loss of each example, float32 (n,), and its outputs, float32 (n, ...).

        Args:
            chunks: As in `evaluate`.
        """
        assessed = [(losses, outputs) for losses, outputs, _ in self._assess(chunks)]
        losses, outputs = zip(*assessed, strict=True)
        return np.concatenate(losses), np.concatenate(outputs)

    def _assess(self, chunks: Iterable[tuple[Batch, np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Yields losses, outputs and metric states of the rows of each chunk."""
        for features, targets in chunks:
            missing = -len(targets) % self._evaluated
            padding = [(0, missing)] + [(0, 0)] * (targets.ndim - 1)
            rows = self._evaluate(pad_batch(features, missing), np.pad(targets, padding))
            yield [column.numpy()[: len(targets)] for column in rows]

    def regularization_loss(self) -> float:
        """The L1 and L2 loss of what trains; a step's gradient includes it."""
        return float(self._regularize()) if self.model.losses else 0.0

    def _train_rows(self, features: Batch, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.shape(targets)[0]
        steps = -(-rows // self._batch_size)
        losses = tf.TensorArray(tf.float32, steps)
        states = tf.TensorArray(self.task.state_dtype, steps)
        for step in tf.range(steps):
            start = step * self._batch_size
            stop = tf.minimum(start + self._batch_size, rows)
            loss, state = self._take_step(take_examples(features, start, stop), targets[start:stop])
            losses = losses.write(step, loss)
            states = states.write(step, state)
        return losses.stack(), states.stack()

    def _take_step(self, features: Batch, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        variables = list(self._split.trainable)
        with tf.GradientTape() as tape:
            losses, states = self.task.compare(self.model(features, training=True), targets)
            loss = tf.reduce_mean(losses)
            objective = loss + self._regularization()
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        self.optimizer.apply(gradients, variables)
        return loss, tf.reduce_sum(states, axis=0)

    def _evaluate_rows(self, features: Batch, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
        size = self._evaluated
        batches = tf.shape(targets)[0] // size
        kinds = (tf.float32, tf.float32, self.task.state_dtype)
        columns = [tf.TensorArray(kind, batches) for kind in kinds]
        for batch in tf.range(batches):
            start = batch * size
            # A fixed size, known while it is traced: kernels choose their algorithm by it.
            rows = tf.nest.map_structure(
                lambda tensor: tf.ensure_shape(tensor, (size, *tensor.shape[1:])),
                take_examples((features, targets), start, start + size),
            )
            outputs = self.model(rows[0], training=False)
            losses, states = self.task.compare(outputs, rows[1])
            values = (losses, outputs, states)
            columns = [
                column.write(batch, value) for column, value in zip(columns, values, strict=True)
            ]
        return tuple(column.concat() for column in columns)

    def _regularization(self) -> tf.Tensor:
        return tf.add_n([tf.constant(0.0), *self.model.losses])


def wide_type(state: np.ndarray) -> type[np.generic]:
    """Returns the type that metric states are added up in without loss.

    Args:
        state: Whole numbers or floats.
    """
    return np.float64 if np.issubdtype(state.dtype, np.floating) else np.int64
