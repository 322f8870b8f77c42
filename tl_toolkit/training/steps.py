"""Steps of training and passes of evaluation, compiled once: many batches in each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, pad_batch, take_examples
from tl_toolkit.tasks.base import Task
from tl_toolkit.training.averages import Averages
from tl_toolkit.training.optimizers import RateTable
from tl_toolkit.training.starting_point import StartingPoint
from tl_toolkit.training.teaching import Distillation
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
        factors: What the steps of each part are multiplied by, by its name; by default 1.
        ema: Momentum of the moving averages of the weights that train; None for no averages. Those
            of Keras (`use_ema`) would be of weights as they are before `factors` shorten the steps.
        starting_point: A further regularization loss; None for none.
        distillation: What is learned of a teacher; None for nothing.

    Attributes:
        model: The suffix.
        optimizer: The optimizer.
        task: The task.
        starting_point: As in the arguments.
        distillation: As in the arguments.
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
        factors: Mapping[str, float] | None = None,
        ema: float | None = None,
        starting_point: StartingPoint | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        self.model = split.suffix.model
        self.optimizer = optimizer
        self.task = task
        self.starting_point = starting_point
        self.distillation = distillation
        self.last_outputs: np.ndarray | None = None
        self._evaluated = split.suffix.batch_size
        self._split = split
        self._batch_size = batch_size
        self._schedule = schedule
        self._factors = [(factors or {}).get(part, 1.0) for part in split.parts]
        optimizer.build(list(split.trainable))  # its variables must exist before the step is traced
        self._averages = Averages(split.trainable, ema)
        self._fresh = [variable.numpy() for variable in self.state]
        # What metric states are added up in, without loss.
        self._wide = tf.float64 if task.state_dtype.is_floating else tf.int64
        examples, state = [self._features(), task.targets], tf.TensorSpec(None, self._wide)
        count = tf.TensorSpec((), tf.int32)
        taught = tf.TensorSpec((None, len(task.classes)), tf.float32)
        more = [] if distillation is None else [taught]
        self._train = tf.function(self._train_batches, input_signature=[*examples, state, *more])
        self._evaluate = tf.function(
            self._evaluate_batches, input_signature=[*examples, count, state]
        )
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

    @property
    def state(self) -> list[Any]:
        """The variables of optimizer and averages, which a pause must keep."""
        return [*self.optimizer.variables, *self._averages.variables]

    def use_averages(self) -> None:
        """Gives the model the averages of its weights, if there are any, until `use_weights`."""
        self._averages.swap_in()

    def use_weights(self) -> None:
        """Gives the model the weights back that the next step begins with."""
        self._averages.swap_out()

    def restart(self, learning_rate: float | np.ndarray) -> None:
        """Resets the optimizer to its initial state.

        Args:
            learning_rate: Its rate; for an optimizer with a schedule, the rate of each step.
        """
        self._averages.forget_weights()
        for variable, value in zip(self.state, self._fresh, strict=True):
            variable.assign(value)
        if isinstance(learning_rate, float):
            self.optimizer.learning_rate = learning_rate
        elif self._schedule is not None:
            self._schedule.set(learning_rate)

    def trace(self, *, training: bool = True) -> None:
        """Compiles the functions that the first epoch would compile.

        Args:
            training: Whether steps will be taken; else the suffix is evaluated alone.
        """
        if training:
            self._train.get_concrete_function()
        self._evaluate.get_concrete_function()

    def train(
        self,
        features: Batch,
        targets: np.ndarray,
        state: np.ndarray | int = 0,
        taught: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes a step on each batch of the examples, in order; the last batch may be shorter.

        Args:
            features: The tensors that cross the cut, for any number of examples.
            targets: A target for each example.
            state: The metric state of the examples before them.
            taught: A teacher's probabilities of each example, where steps learn from one.

        Returns:
            For each step, the mean loss of its batch before the step, without the regularization
            loss; and the metric state of all examples so far, each before the step on it.
        """
        more = [] if taught is None else [taught]
        losses, total = self._train(features, targets, self._widen(state), *more)
        return losses.numpy(), total.numpy()

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
        state: np.ndarray | int = 0

        def so_far() -> tuple[float, float]:
            loss = float(np.concatenate(losses).mean(dtype=np.float64))
            return loss, self.task.score_of(np.asarray(state))

        for loss, outputs, total in self._assess(chunks):
            losses.append(loss)
            state = total
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

    def _assess(
        self, chunks: Iterable[tuple[Batch, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields losses and outputs of the examples of each chunk, and the metric state so far."""
        state = self._widen(0)
        for features, targets in chunks:
            count = len(targets)
            missing = -count % self._evaluated
            padding = [(0, missing)] + [(0, 0)] * (targets.ndim - 1)
            losses, outputs, state = self._evaluate(
                pad_batch(features, missing), np.pad(targets, padding), tf.constant(count), state
            )
            yield losses.numpy()[:count], outputs.numpy()[:count], state.numpy()

    def _widen(self, state: np.ndarray | int) -> tf.Tensor:
        return tf.constant(state, self._wide)

    def regularization_loss(self) -> float:
        """Returns the L1 and L2 loss of the trainable weights, which a step's gradient includes."""
        has_any = self.model.losses or self.starting_point is not None
        return float(self._regularize()) if has_any else 0.0

    def _train_batches(
        self, features: Batch, targets: tf.Tensor, state: tf.Tensor, taught: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        examples = tf.shape(targets)[0]
        steps = -(-examples // self._batch_size)
        losses = tf.TensorArray(tf.float32, steps)
        for step in tf.range(steps):
            # From the number 0 it grows to a vector.
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[(state, tf.TensorShape(None))]
            )
            start = step * self._batch_size
            stop = tf.minimum(start + self._batch_size, examples)
            loss, states = self._take_step(
                take_examples(features, start, stop),
                targets[start:stop],
                None if taught is None else taught[start:stop],
            )
            losses = losses.write(step, loss)
            state += self._add_up(states)
        return losses.stack(), state

    def _add_up(self, states: tf.Tensor) -> tf.Tensor:
        """Adds up the metric states of a batch: those of all examples would take gigabytes."""
        return tf.cast(tf.reduce_sum(states, axis=0), self._wide)

    def _take_step(
        self, features: Batch, targets: tf.Tensor, taught: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        variables = list(self._split.trainable)
        with tf.GradientTape() as tape:
            outputs = self.model(features, training=True)
            losses, states = self.task.compare(outputs, targets)
            loss = tf.reduce_mean(losses)
            minimized = self.task.find_objective(outputs, targets, losses)
            if self.distillation is not None:
                shares = self.task.find_shares(outputs)
                minimized = self.distillation.join(minimized, shares, taught)
            objective = tf.reduce_mean(minimized) + self._regularization()
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        # Every optimizer here moves a weight by its rate times something without it, so that a
        # part of the move is the move at that part of the rate.
        slowed = [
            (variable, factor, tf.identity(variable.value))
            for variable, factor in zip(variables, self._factors, strict=True)
            if factor != 1
        ]
        self.optimizer.apply(gradients, variables)
        for variable, factor, before in slowed:
            variable.assign(before + factor * (variable.value - before))
        self._averages.update(self.optimizer.iterations)
        return loss, states

    def _evaluate_batches(
        self, features: Batch, targets: tf.Tensor, count: tf.Tensor, state: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        size = self._evaluated
        batches = tf.shape(targets)[0] // size
        columns = [tf.TensorArray(tf.float32, batches) for _ in range(2)]
        for batch in tf.range(batches):
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[(state, tf.TensorShape(None))]
            )
            start = batch * size
            # The size is known while it is traced: kernels choose their algorithm by it.
            examples = tf.nest.map_structure(
                lambda tensor: tf.ensure_shape(tensor, (size, *tensor.shape[1:])),
                take_examples((features, targets), start, start + size),
            )
            outputs = self.model(examples[0], training=False)
            losses, states = self.task.compare(outputs, examples[1])
            values = (losses, outputs)
            columns = [
                column.write(batch, value) for column, value in zip(columns, values, strict=True)
            ]
            is_padding = start + tf.range(size) >= count
            state += self._add_up(
                tf.where(is_padding[:, tf.newaxis], tf.zeros_like(states), states)
            )
        return (*[column.concat() for column in columns], state)

    def _regularization(self) -> tf.Tensor:
        distance = [] if self.starting_point is None else [self.starting_point.loss()]
        return tf.add_n([tf.constant(0.0), *self.model.losses, *distance])
