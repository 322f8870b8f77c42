"""Steps of training and passes of evaluation, compiled once: many batches in each call."""

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

    The compiled functions contain the loop over batches, because a step of a small head takes less
    time than a call. The number of batches in a call changes no bit of a step.

    Args:
        split: Where the trainable part begins.
        optimizer: A fresh optimizer.
        task: Computes loss and metric state of each example.
        batch_size: Number of examples in each step.
        schedule: The table that the optimizer reads its rate from, if it has a schedule.

    Attributes:
        model: The suffix.
        optimizer: The optimizer.
        task: The task.
        last_outputs: Outputs of the last examples that were evaluated, (n, ...); None before.
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
        self._train = tf.function(self._train_batches, input_signature=signature)
        self._evaluate = tf.function(self._evaluate_batches, input_signature=signature)
        self._regularize = tf.function(self._regularization, input_signature=[])

    def _features(self) -> Any:
        """Returns the input signature of the compiled functions, for each tensor of the cut."""
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
        """Resets the optimizer to its initial state.

        Args:
            learning_rate: Its rate; for an optimizer with a schedule, the rate of each step.
        """
        for variable, value in zip(self.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        if isinstance(learning_rate, float):
            self.optimizer.learning_rate = learning_rate
        elif self._schedule is not None:
            self._schedule.set(learning_rate)

    def trace(self) -> None:
        """Compiles the functions that the first epoch would compile."""
        self._train.get_concrete_function()
        self._evaluate.get_concrete_function()

    def train(self, features: Batch, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes a step on each batch of the examples, in order; the last batch may be shorter.

        Args:
            features: The tensors that cross the cut, for any number of examples.
            targets: A target for each example.

        Returns:
            For each step: the mean loss of its batch before the step, without the regularization
            loss, and the metric state of its batch.
        """
        losses, states = self._train(features, targets)
        return losses.numpy(), states.numpy()

    def evaluate(
        self,
        chunks: Iterable[tuple[Batch, np.ndarray]],
        *,
        report: Callable[[float, float], None] | None = None,
    ) -> tuple[float, float]:
        """Returns the mean loss, without the regularization loss, and the score of all examples.

        Args:
            chunks: Features and targets. All chunks but the last have whole multiples of the
                suffix's batch size: batches are padded, so that an example's loss depends on no
                other example.
            report: Receives the loss and the score of all examples so far, after each chunk.
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
        """Yields losses, outputs and metric states of the examples of each chunk."""
        for features, targets in chunks:
            missing = -len(targets) % self._evaluated
            padding = [(0, missing)] + [(0, 0)] * (targets.ndim - 1)
            results = self._evaluate(pad_batch(features, missing), np.pad(targets, padding))
            yield [result.numpy()[: len(targets)] for result in results]

    def regularization_loss(self) -> float:
        """Returns the L1 and L2 loss of the trainable weights, which a step's gradient includes."""
        return float(self._regularize()) if self.model.losses else 0.0

    def _train_batches(self, features: Batch, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        examples = tf.shape(targets)[0]
        steps = -(-examples // self._batch_size)
        losses = tf.TensorArray(tf.float32, steps)
        states = tf.TensorArray(self.task.state_dtype, steps)
        for step in tf.range(steps):
            start = step * self._batch_size
            stop = tf.minimum(start + self._batch_size, examples)
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

    def _evaluate_batches(self, features: Batch, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
        size = self._evaluated
        batches = tf.shape(targets)[0] // size
        kinds = (tf.float32, tf.float32, self.task.state_dtype)
        results = [tf.TensorArray(kind, batches) for kind in kinds]
        for batch in tf.range(batches):
            start = batch * size
            # The size is known while it is traced: kernels choose their algorithm by it.
            examples = tf.nest.map_structure(
                lambda tensor: tf.ensure_shape(tensor, (size, *tensor.shape[1:])),
                take_examples((features, targets), start, start + size),
            )
            outputs = self.model(examples[0], training=False)
            losses, states = self.task.compare(outputs, examples[1])
            values = (losses, outputs, states)
            results = [
                result.write(batch, value) for result, value in zip(results, values, strict=True)
            ]
        return tuple(result.concat() for result in results)

    def _regularization(self) -> tf.Tensor:
        return tf.add_n([tf.constant(0.0), *self.model.losses])


def wide_type(state: np.ndarray) -> type[np.generic]:
    """Returns a type in which metric states can be summed without loss.

    Args:
        state: Whole numbers or floats.
    """
    return np.float64 if np.issubdtype(state.dtype, np.floating) else np.int64
