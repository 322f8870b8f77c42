"""Steps of training and passes of evaluation, compiled once: many batches in each call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, pad_batch, take_examples
from tl_toolkit.tasks.base import Task
from tl_toolkit.training.averages import Averages
from tl_toolkit.training.changes import MixedTargets, TaughtTargets
from tl_toolkit.training.devices import Devices, OneDevice, Part
from tl_toolkit.training.loss_scale import LossScaler
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
        optimizer: A fresh optimizer. One of Keras's `LossScaleOptimizer` scales what is
            differentiated; a step whose gradients are not finite then changes nothing but the scale
            and the random streams.
        task: Computes loss and metric state of each example.
        batch_size: Number of examples in each step.
        schedule: The table that the optimizer reads its rate from, if it has a schedule.
        has_factors: Whether the steps of parts are multiplied by factors, as `set_factors` says.
        ema: Momentum of the moving averages of the weights that train; None for no averages. Those
            of Keras (`use_ema`) would be of weights as they are before factors shorten the steps.
        starting_point: A further regularization loss; None for none.
        distillation: What is learned of a teacher; None for nothing.
        devices: Where the gradients of steps are computed; None for one device.

    Attributes:
        model: The suffix.
        optimizer: The optimizer.
        task: The task.
        starting_point: As in the arguments.
        distillation: As in the arguments.
        devices: Where the gradients of steps are computed.
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
        has_factors: bool = False,
        ema: float | None = None,
        starting_point: StartingPoint | None = None,
        distillation: Distillation | None = None,
        devices: Devices | None = None,
    ) -> None:
        self.model = split.suffix.model
        self.optimizer = optimizer
        self.task = task
        self.starting_point = starting_point
        self.distillation = distillation
        self.last_outputs: np.ndarray | None = None
        self._evaluated = split.suffix.batch_size
        self._split = split
        self.devices = devices or OneDevice()
        self._batch_size = batch_size
        self._schedule = schedule
        # A variable, so that compiled steps serve all factors.
        self._factors = tf.Variable(tf.ones(len(split.parts))) if has_factors else None
        optimizer.build(list(split.trainable))  # its variables must exist before the step is traced
        self._scaler = LossScaler.of(optimizer, self.model)
        self._averages = Averages(split.trainable, ema)
        self._fresh = [variable.numpy() for variable in self.state]
        # What metric states are added up in, without loss.
        self._wide = tf.float64 if task.state_dtype.is_floating else tf.int64
        examples, state = [self._features(), task.targets], tf.TensorSpec(None, self._wide)
        count = tf.TensorSpec((), tf.int32)
        compiled = functools.partial(tf.function, autograph=False)
        mixes = (task.targets, tf.TensorSpec((None,), tf.float32))
        taught = tf.TensorSpec((None, len(task.classes)), tf.float32)
        epoch = [*examples, state]
        self._train = compiled(self._train_batches, input_signature=epoch)
        self._train_mixed = compiled(self._train_batches, input_signature=[*epoch, mixes])
        self._train_taught = compiled(self._train_batches, input_signature=[*epoch, (), taught])
        self._evaluate = compiled(self._evaluate_batches, input_signature=[*examples, count, state])
        self._weigh = compiled(self._relative_gradients, input_signature=examples)
        self._weigh_mixed = compiled(self._relative_gradients, input_signature=[*examples, mixes])
        self._weigh_taught = compiled(
            self._relative_gradients, input_signature=[*examples, (), taught]
        )
        self._regularize = compiled(self._regularization, input_signature=[])

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

    def agree(self, *values: float) -> tuple[float, ...]:
        """Returns what the first host measured, if several train.

        Args:
            *values: What this host measured.
        """
        return self.devices.agree(values)

    def set_factors(self, factors: Mapping[str, float]) -> None:
        """Sets what the steps of each part are multiplied by.

        Args:
            factors: By the name of each part that trains.
        """
        if self._factors is not None:
            self._factors.assign([factors[part] for part in self._split.parts])

    @property
    def factors(self) -> dict[int, float]:
        """What the steps of each variable are multiplied by, by the variable's identity."""
        count = len(self._split.trainable)
        values = [1.0] * count if self._factors is None else self._factors.numpy().tolist()
        return dict(zip(map(id, self._split.trainable), values, strict=True))

    @property
    def state(self) -> list[Any]:
        """The variables of optimizer and averages, which a pause must keep."""
        return [*self.optimizer.variables, *self._averages.variables]

    @property
    def uses_averages(self) -> bool:
        """Whether the model has the averages of its weights now."""
        return self._averages.are_lent

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

    def set_rate(self, rate: float) -> None:
        """Sets the rate of all coming steps, until `restart`.

        Args:
            rate: Above 0.
        """
        if self._schedule is not None:
            self._schedule.set(np.array([rate], np.float32))
        else:
            self.optimizer.learning_rate = rate

    def scale_rates(self, factor: float) -> None:
        """Multiplies all rates of the optimizer's schedule, if it has one.

        Args:
            factor: Of the rates that `restart` set.
        """
        if self._schedule is not None:
            self._schedule.scale(factor)

    def trace(self, *, training: bool = True, mixed: bool = False) -> None:
        """Compiles the functions that the first epoch would compile.

        Args:
            training: Whether steps will be taken; else the suffix is evaluated alone.
            mixed: Whether they will be taken on mixed examples.
        """
        if training and self.distillation is not None:
            self._train_taught.get_concrete_function()
        elif training:
            (self._train_mixed if mixed else self._train).get_concrete_function()
        self._evaluate.get_concrete_function()

    def train(
        self,
        features: Batch,
        targets: np.ndarray | MixedTargets | TaughtTargets,
        state: np.ndarray | int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes a step on each batch of the examples, in order; the last batch may be shorter.

        Args:
            features: The tensors that cross the cut, for any number of examples.
            targets: A target for each example; of mixed examples both, and their shares; where
                steps learn from a teacher, with its probabilities.
            state: The metric state of the examples before them.

        Returns:
            For each step, the mean loss of its batch before the step, without the regularization
            loss; and the metric state of all examples so far, each before the step on it, that of a
            mixed example by the target with the larger share.
        """
        if isinstance(targets, MixedTargets):
            mixes = (targets.others, targets.shares)
            losses, total = self._train_mixed(features, targets.own, self._widen(state), mixes)
        elif isinstance(targets, TaughtTargets):
            losses, total = self._train_taught(
                features, targets.own, self._widen(state), (), targets.taught
            )
        else:
            losses, total = self._train(features, targets, self._widen(state))
        return losses.numpy(), total.numpy()

    def weigh_gradients(
        self, features: Batch, targets: np.ndarray | MixedTargets | TaughtTargets
    ) -> dict[str, float]:
        """Returns the norm of each part's gradient, divided by that of its weights.

        The model is in inference mode, and nothing of it changes. The loss is without the
        regularization loss.

        Args:
            features: The tensors that cross the cut, for one batch.
            targets: As in `train`.
        """
        self.use_weights()  # the next step begins with them, not with their averages
        if isinstance(targets, MixedTargets):
            norms = self._weigh_mixed(features, targets.own, (targets.others, targets.shares))
        elif isinstance(targets, TaughtTargets):
            norms = self._weigh_taught(features, targets.own, (), targets.taught)
        else:
            norms = self._weigh(features, targets)
        return dict(zip(dict.fromkeys(self._split.parts), norms.numpy().tolist(), strict=True))

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

    def find_non_finite(self) -> str:
        """Returns the path of a variable with an infinite number, or with none; "" without one."""
        floats = [each for each in self.model.variables if each.dtype.startswith("float")]
        for variable in floats:
            if not np.isfinite(variable.numpy()).all():
                return str(variable.path)
        return ""

    def regularization_loss(self) -> float:
        """Returns the L1 and L2 loss of the trainable weights, which a step's gradient includes."""
        has_any = self.model.losses or self.starting_point is not None
        return float(self._regularize()) if has_any else 0.0

    def _train_batches(
        self,
        features: Batch,
        targets: tf.Tensor,
        state: tf.Tensor,
        mixes: tuple[tf.Tensor, ...] = (),
        taught: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        examples = tf.shape(targets)[0]
        steps = -(-examples // self._batch_size)

        def take(
            step: tf.Tensor, losses: tf.TensorArray, state: tf.Tensor
        ) -> tuple[tf.Tensor, tf.TensorArray, tf.Tensor]:
            start = step * self._batch_size
            stop = tf.minimum(start + self._batch_size, examples)
            loss, added = self._take_step(
                take_examples(features, start, stop),
                targets[start:stop],
                tuple(tensor[start:stop] for tensor in mixes),
                None if taught is None else taught[start:stop],
            )
            return step + 1, losses.write(step, loss), state + added

        losses, state = _repeat(steps, take, tf.TensorArray(tf.float32, steps), state)
        return losses.stack(), state

    def _add_up(self, states: tf.Tensor) -> tf.Tensor:
        """Adds up the metric states of a batch: those of all examples would take gigabytes."""
        return tf.cast(tf.reduce_sum(states, axis=0), self._wide)

    def _take_step(
        self,
        features: Batch,
        targets: tf.Tensor,
        mixes: tuple[tf.Tensor, ...],
        taught: tf.Tensor | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        variables = list(self._split.trainable)
        statistics = self._scaler.read_statistics()
        gradients, loss, state = self.devices.differentiate(
            self._compute,
            (features, targets, mixes, () if taught is None else (taught,)),
            model=self.model,
            variables=variables,
        )
        # Every optimizer here moves a weight by its rate times something without it, so that a
        # part of the move is the move at that part of the rate.
        factors = [] if self._factors is None else tf.unstack(self._factors)
        before = [tf.identity(variable.value) for variable in variables[: len(factors)]]
        steps = tf.identity(self.optimizer.iterations)
        self._scaler.restore_statistics(statistics, gradients)
        self.optimizer.apply(gradients, variables)
        for variable, factor, start in zip(variables, factors, before, strict=False):
            moved = start + factor * (variable.value - start)
            # At a factor of 1 the sum would differ in its last bit.
            variable.assign(tf.where(factor == 1, variable.value, moved))
        self._averages.update(tf.convert_to_tensor(self.optimizer.iterations), before=steps)
        return loss, state

    def _compute(self, examples: Any, part: Part) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns objective, loss and metric state of a part of a batch, as `Devices` adds up."""
        features, targets, mixes, taught = examples
        outputs = self.model(features, training=True)
        losses, states, minimized = self._compare(outputs, targets, mixes)
        minimized = self._join_teacher(minimized, outputs, *taught)
        objective = part.mean(minimized) + part.share * self._regularization()
        return self._scaler.scale(objective), part.mean(losses), self._add_up(states)

    def _relative_gradients(
        self,
        features: Batch,
        targets: tf.Tensor,
        mixes: tuple[tf.Tensor, ...] = (),
        taught: tf.Tensor | None = None,
    ) -> tf.Tensor:
        variables = list(self._split.trainable)
        with tf.GradientTape() as tape:
            outputs = self.model(features, training=False)
            minimized = self._compare(outputs, targets, mixes)[-1]
            objective = tf.reduce_mean(self._join_teacher(minimized, outputs, taught))
        values = [variable.value for variable in variables]
        gradients = tape.gradient(objective, values, unconnected_gradients="zero")
        ratios = []
        for part in dict.fromkeys(self._split.parts):
            places = [place for place, owner in enumerate(self._split.parts) if owner == part]
            gradient = tf.linalg.global_norm([gradients[place] for place in places])
            weight = tf.linalg.global_norm([values[place] for place in places])
            ratios.append(tf.math.divide_no_nan(gradient, weight))
        return tf.stack(ratios)

    def _compare(
        self, outputs: tf.Tensor, targets: tf.Tensor, mixes: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, ...]:
        """Returns loss, metric state and objective of each example, mixed or not."""
        losses, states = self.task.compare(outputs, targets)
        minimized = self.task.find_objective(outputs, targets, losses)
        if not mixes:
            return losses, states, minimized
        others, shares = mixes
        other_losses, other_states, other_minimized = self._compare(outputs, others, ())
        losses = shares * losses + (1 - shares) * other_losses
        minimized = shares * minimized + (1 - shares) * other_minimized
        states = tf.where(shares[:, tf.newaxis] >= 0.5, states, other_states)
        return losses, states, minimized

    def _join_teacher(
        self, minimized: tf.Tensor, outputs: tf.Tensor, taught: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns what is minimized for each example, with what is learned of a teacher."""
        if self.distillation is None or taught is None:
            return minimized
        return self.distillation.join(minimized, self.task.find_shares(outputs), taught)

    def _evaluate_batches(
        self, features: Batch, targets: tf.Tensor, count: tf.Tensor, state: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        size = self._evaluated
        batches = tf.shape(targets)[0] // size

        def assess(
            batch: tf.Tensor, columns: tuple[tf.TensorArray, ...], state: tf.Tensor
        ) -> tuple[tf.Tensor, tuple[tf.TensorArray, ...], tf.Tensor]:
            start = batch * size
            # The size is known while it is traced: kernels choose their algorithm by it.
            examples = tf.nest.map_structure(
                lambda tensor: tf.ensure_shape(tensor, (size, *tensor.shape[1:])),
                take_examples((features, targets), start, start + size),
            )
            outputs = self.model(examples[0], training=False)
            losses, states = self.task.compare(outputs, examples[1])
            written = [
                column.write(batch, value)
                for column, value in zip(columns, (losses, outputs), strict=True)
            ]
            is_padding = start + tf.range(size) >= count
            added = self._add_up(tf.where(is_padding[:, tf.newaxis], tf.zeros_like(states), states))
            return batch + 1, tuple(written), state + added

        columns = tuple(tf.TensorArray(tf.float32, batches) for _ in range(2))
        columns, state = _repeat(batches, assess, columns, state)
        return (*[column.concat() for column in columns], state)

    def _regularization(self) -> tf.Tensor:
        distance = [] if self.starting_point is None else [self.starting_point.loss()]
        return tf.add_n([tf.constant(0.0), *self.model.losses, *distance])


def _repeat(
    times: tf.Tensor,
    step: Callable[[tf.Tensor, Any, tf.Tensor], Any],
    arrays: Any,
    state: tf.Tensor,
) -> tuple[Any, tf.Tensor]:
    """Returns what a step makes of tensor arrays and a state, called with 0, 1, 2 and so on.

    A loop of AutoGraph would be the same, but it takes half a second to translate its source.
    """
    shapes = tf.nest.map_structure(lambda _: tf.TensorShape(None), arrays)
    _, arrays, state = tf.while_loop(
        lambda number, *_: number < times,
        step,
        (tf.constant(0), arrays, state),
        # From the number 0 the state grows to a vector.
        shape_invariants=(tf.TensorShape(()), shapes, tf.TensorShape(None)),
        maximum_iterations=times,
    )
    return arrays, state
