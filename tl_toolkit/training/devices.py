"""Where the gradient of a step is computed: on one device, or on replicas that share a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import tensorflow as tf

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.keras_private import flatten_layers
from tl_toolkit.plan.devices import DeviceChoice
from tl_toolkit.transfer.freezing import batch_norms

__all__ = [
    "Devices",
    "OneDevice",
    "Part",
    "Replicas",
    "choose_gpus",
    "find_devices",
    "random_streams",
    "refuse_small_batch",
]


@dataclass(frozen=True)
class Part:
    """The part of a batch that one replica computes.

    Attributes:
        mean: From one value for each example of the part: their share in the batch's mean.
        share: The part of the regularization loss, which has no examples, from 0 to 1.
    """

    mean: Callable[[tf.Tensor], tf.Tensor]
    share: float


Compute = Callable[[Any, Part], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""From the examples of a part to objective, loss and metric state. The values of the parts sum up
to those of the batch."""

Gradients = tuple[list[tf.Tensor | None], tf.Tensor, tf.Tensor]
"""The gradient of each variable, then loss and metric state of the whole batch."""


class Devices(Protocol):
    """Computes the gradient of a step; the loop of training does not know on how many devices.

    Weights, optimizer and averages lie on the first device in any case, once a process: a state
    that is written with one number of devices goes on with another.
    """

    @property
    def count(self) -> int:
        """Number of parts that a batch is split into."""

    @property
    def takes_single_steps(self) -> bool:
        """Whether each call of a compiled function must take one step."""

    def differentiate(
        self,
        compute: Compute,
        examples: Any,
        *,
        model: keras.Model,
        variables: Sequence[keras.Variable],
    ) -> Gradients:
        """Computes a step's gradients, inside a compiled function.

        Args:
            compute: What is differentiated.
            examples: Tensors (n, ...) of one batch, nested.
            model: The model, whose moving statistics and random streams go on.
            variables: The variables that train.
        """

    def agree(self, values: Sequence[float]) -> tuple[float, ...]:
        """Returns what the first host measured, on which training decides how it goes on.

        Args:
            values: What this host measured, which may differ in the last digits.
        """


class OneDevice:
    """Computes whole batches where TensorFlow places them: on the first GPU, or the CPU."""

    count = 1
    takes_single_steps = False

    def differentiate(
        self,
        compute: Compute,
        examples: Any,
        *,
        model: keras.Model,
        variables: Sequence[keras.Variable],
    ) -> Gradients:
        """Computes a step's gradients.

        Args:
            compute: As in `Devices`.
            examples: As in `Devices`.
            model: As in `Devices`.
            variables: As in `Devices`.
        """
        with tf.GradientTape() as tape:
            objective, loss, state = compute(examples, Part(tf.reduce_mean, 1.0))
        return tape.gradient(objective, [each.value for each in variables]), loss, state

    def agree(self, values: Sequence[float]) -> tuple[float, ...]:
        """Returns the values.

        Args:
            values: As in `Devices`.
        """
        return tuple(values)


class Replicas:
    """Splits each batch over the replicas of a strategy, and adds up their gradients.

    A replica takes the values of all weights as tensors, and gives back gradients and what the
    model's other variables become: nothing is assigned on it. Dropout samples other masks on each
    replica. BatchNormalization that trains takes its statistics from the whole batch.

    Args:
        strategy: A `tf.distribute` strategy; no variable is made in its scope.
    """

    takes_single_steps = False

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy

    @property
    def count(self) -> int:
        """Number of parts that a batch is split into."""
        return int(self.strategy.num_replicas_in_sync)

    def differentiate(
        self,
        compute: Compute,
        examples: Any,
        *,
        model: keras.Model,
        variables: Sequence[keras.Variable],
    ) -> Gradients:
        """Computes a step's gradients.

        Args:
            compute: As in `Devices`.
            examples: As in `Devices`.
            model: As in `Devices`.
            variables: As in `Devices`.
        """
        tensors = tf.nest.flatten(examples)
        trained = [tf.convert_to_tensor(variable.value) for variable in variables]
        changes = _Changes(model)
        connected: list[bool] = []  # the variables with a gradient, found while it is traced

        def replicate() -> Any:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            part, taken = _take_part(tensors, replica, self.count)
            divisor = tf.where(taken.is_whole, taken.total * self.count, taken.total)
            own = Part(
                lambda values: tf.reduce_sum(values) / tf.cast(divisor, values.dtype),
                1 / self.count,
            )
            scope = keras.StatelessScope(
                [*zip(variables, trained, strict=True), *changes.seed(replica)]
            )
            with tf.GradientTape() as tape, scope:
                tape.watch(trained)
                objective, loss, state = compute(tf.nest.pack_sequence_as(examples, part), own)
            # A whole batch on each replica counts once.
            counts = tf.logical_or(tf.equal(replica, 0), tf.logical_not(taken.is_whole))
            gradients = tape.gradient(objective, trained)
            statistics, streams = changes.collect(scope, replica)
            means = [value / self.count for value in statistics]
            connected[:] = [gradient is not None for gradient in gradients]
            found = [each for each in gradients if each is not None]
            # What is added up is one tensor: hosts exchange one message a step.
            return _join([loss, *found, *means]), state * tf.cast(counts, state.dtype), streams

        with _synchronized(model):  # around all replicas: each is traced in a thread of its own
            joined, state, streams = self.strategy.run(replicate)
        shapes = [each.shape for each, is_in in zip(trained, connected, strict=True) if is_in]
        shapes = [tf.TensorShape([]), *shapes, *changes.shapes]
        loss, *values = _split(self.strategy.reduce("sum", joined, axis=None), shapes)
        changes.assign(
            values[sum(connected) :],
            [self.strategy.experimental_local_results(stream)[0] for stream in streams],
        )
        rest = iter(values)
        gradients = [next(rest) if is_connected else None for is_connected in connected]
        return gradients, loss, self.strategy.reduce("sum", state, axis=None)

    def agree(self, values: Sequence[float]) -> tuple[float, ...]:
        """Returns the values.

        Args:
            values: As in `Devices`.
        """
        return tuple(values)


@dataclass(frozen=True)
class _Taken:
    """What a replica takes: of `total` examples a part, or all of them."""

    total: tf.Tensor
    is_whole: tf.Tensor


def _take_part(
    tensors: Sequence[tf.Tensor], replica: tf.Tensor, count: int
) -> tuple[list[tf.Tensor], _Taken]:
    """Returns a replica's examples: its part, or the whole of a batch that is too small for parts.

    No part is empty: kernels for the CPU give a wrong shape to the convolution of no image.
    """
    has_gpu = bool(tf.config.list_logical_devices("GPU"))
    # Where the batch is, or goes first: else each device would receive the whole of it.
    with tf.device("GPU:0" if has_gpu else "CPU:0"):
        total = tf.shape(tensors[0])[0]
        is_whole = total < count
        start = tf.where(is_whole, 0, total * replica // count)
        stop = tf.where(is_whole, total, total * (replica + 1) // count)
        return [tensor[start:stop] for tensor in tensors], _Taken(total, is_whole)


class _Changes:
    """What a model's other variables become in a step: moving statistics and random streams.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model) -> None:
        sampled = {id(stream) for _, stream in random_streams(model)}
        others = list(model.non_trainable_variables)
        self._streams = [each for each in others if id(each) in sampled]
        self._others = [each for each in others if id(each) not in sampled]
        self._changed: list[keras.Variable] = []

    @property
    def shapes(self) -> list[tf.TensorShape]:
        """Shapes of the statistics that `collect` found."""
        return [tf.TensorShape(each.shape) for each in self._changed]

    def seed(self, replica: tf.Tensor) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Returns each random stream, at another place for each replica.

        Args:
            replica: Number of the replica.
        """
        return [(each, each.value + _offset(replica, each)) for each in self._streams]

    def collect(
        self, scope: keras.StatelessScope, replica: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns the new values of statistics, and those of streams as of replica 0.

        Args:
            scope: In which the model was called.
            replica: Number of the replica.
        """
        values = [(each, scope.get_current_value(each)) for each in self._others]
        self._changed = [each for each, value in values if value is not None]
        streams = [scope.get_current_value(each) - _offset(replica, each) for each in self._streams]
        return [value for _, value in values if value is not None], streams

    def assign(self, statistics: Sequence[tf.Tensor], streams: Sequence[tf.Tensor]) -> None:
        """Assigns what `collect` found.

        Args:
            statistics: Their means over all replicas.
            streams: As of replica 0.
        """
        for variable, value in zip(self._changed, statistics, strict=True):
            variable.assign(value)
        for variable, value in zip(self._streams, streams, strict=True):
            variable.assign(value)


def _join(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(each, [-1]) for each in tensors], axis=0)


def _split(joined: tf.Tensor, shapes: Sequence[tf.TensorShape]) -> list[tf.Tensor]:
    parts = tf.split(joined, [shape.num_elements() for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]


_STRIDE = 0x9E3779B9
"""Between the random streams of two replicas: 2**32 divided by the golden ratio."""


def _offset(replica: tf.Tensor, stream: keras.Variable) -> tf.Tensor:
    offset = tf.cast(replica, tf.int64) * _STRIDE % 2**32
    return tf.cast(tf.stack([offset, tf.constant(0, tf.int64)]), stream.dtype)


@contextlib.contextmanager
def _synchronized(model: keras.Model) -> Iterator[None]:
    """Lets BatchNormalization take its statistics from all replicas in the block.

    It is no trait of the model, which is saved as it was.
    """
    layers = [(layer, layer.synchronized) for layer in batch_norms(model)]
    try:
        for layer, _ in layers:
            layer.synchronized = True
        yield
    finally:
        for layer, was_synchronized in layers:
            layer.synchronized = was_synchronized


def random_streams(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """Yields the name of every layer that samples in training, and the state it samples from.

    Args:
        model: The model; nested models are searched too.
    """
    for layer in flatten_layers(model):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            yield layer.name, generator.state


def find_devices(choice: DeviceChoice) -> Devices:
    """Returns the devices that are meant: GPUs, or where there are none, logical CPUs.

    Args:
        choice: The devices.

    Raises:
        RecipeError: There are fewer, or TensorFlow has started with others.
    """
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    places = choose_gpus(choice)
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    if kind == "CPU":
        places = choice.select(len(names), kind)
    if places is not None:
        names = [names[place] for place in places]
    return Replicas(tf.distribute.MirroredStrategy(names)) if len(names) > 1 else OneDevice()


def choose_gpus(choice: DeviceChoice) -> list[int] | None:
    """Lets TensorFlow use no other GPUs than those that are meant, for the life of the process.

    Where it has started it keeps those that it has. Replicas take some of them, but one device
    alone is the first of them.

    Args:
        choice: The devices.

    Returns:
        Places among the GPUs that TensorFlow uses; None for all of them.

    Raises:
        RecipeError: There are fewer, or TensorFlow has started with others.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or not (choice.places or choice.count):
        return None
    meant = [gpus[place] for place in choice.select(len(gpus), "GPU")]
    try:
        tf.config.set_visible_devices(meant, "GPU")
        return None
    except RuntimeError as error:
        used = tf.config.get_visible_devices("GPU")
        places = [used.index(gpu) for gpu in meant if gpu in used]
        if len(places) < len(meant) or (len(places) == 1 and places != [0]):
            listed = ",".join(str(gpus.index(gpu)) for gpu in used) or "no GPU"
            raise RecipeError(
                Problem(
                    where="--devices",
                    what=f"{choice.text}: TensorFlow has started in this process, with {listed}",
                    expected="It takes the GPUs of a process before its first operation.",
                    hint="a new process; in a notebook, restart the kernel",
                )
            ) from error
        return places


def refuse_small_batch(devices: Devices, batch_size: int) -> None:
    """Refuses a batch with fewer examples than there are devices.

    Args:
        devices: The devices.
        batch_size: Examples of all devices together in a step.

    Raises:
        RecipeError: Some devices would have nothing to do.
    """
    if batch_size < devices.count:
        raise RecipeError(
            Problem(
                where="data.batch_size",
                what=f"{batch_size} images on {devices.count} devices",
                expected="A batch is shared by all devices: each needs an image of it at least.",
                hint=f"data.batch_size={devices.count * max(8, batch_size)}",
            )
        )
