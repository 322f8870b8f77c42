"""Calls of one fixed batch size, and batches of the tensors that cross a cut."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.keras_private import fold_constants

__all__ = [
    "PREFIX_BATCH",
    "FixedBatch",
    "Batch",
    "as_list",
    "connect",
    "count_examples",
    "in_batches",
    "join_batches",
    "pad_batch",
    "skip_examples",
    "take_examples",
]

PREFIX_BATCH = 32
"""Images per call of a compiled prefix. One size for all: kernels choose their algorithm, and so
the last bits of their result, by batch size."""

Batch: TypeAlias = np.ndarray | tf.Tensor | Sequence[tf.Tensor]
"""A tensor (n, ...), or the list of tensors that cross a cut together, n examples in each."""


def as_list(tensors: Any) -> list[Any]:
    """Returns one tensor, or several, as a list.

    Args:
        tensors: A tensor, or a list or tuple of tensors.
    """
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def count_examples(batch: Batch) -> int:
    """Returns the number of examples of a batch.

    Args:
        batch: A tensor (n, ...), or the list of those that cross a cut.
    """
    return len(tf.nest.flatten(batch)[0])


def take_examples(batch: Batch, start: int, stop: int | None = None) -> Batch:
    """Returns consecutive examples of a batch.

    Args:
        batch: A tensor (n, ...), or the list of those that cross a cut.
        start: Place of the first example.
        stop: Place after the last example; None stands for the end.
    """
    return tf.nest.map_structure(lambda tensor: tensor[start:stop], batch)


def pad_batch(batch: Batch, missing: int) -> Batch:
    """Returns a batch, followed by examples of zeros.

    Args:
        batch: A tensor (n, ...), or the list of those that cross a cut.
        missing: How many examples of zeros.
    """
    if not missing:
        return batch
    return tf.nest.map_structure(
        lambda tensor: tf.pad(tensor, [[0, missing]] + [[0, 0]] * (len(tensor.shape) - 1)), batch
    )


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Returns the examples of several batches, one batch after the next.

    Args:
        batches: At least one.
    """
    if len(batches) == 1:
        return batches[0]
    return tf.nest.map_structure(lambda *tensors: tf.concat(tensors, axis=0), *batches)


class FixedBatch:
    """A model in inference mode as one compiled function of one fixed batch size.

    Short batches are padded with zeros and cut, so that an image's outputs are the same, bit for
    bit, whatever batch it comes in.

    Args:
        model: Any Keras model; it may have several inputs or outputs.
        batch_size: Images per call, at least 1.
        constant_folded: Use the weights of the first call as constants: layers are merged, the last
            digits change, and later changes of the weights have no effect.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        batch_size: int = PREFIX_BATCH,
        constant_folded: bool = False,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self._constant_folded = constant_folded
        signature = tf.nest.map_structure(
            lambda tensor: tf.TensorSpec((batch_size, *tensor.shape[1:]), tf.float32), model.input
        )
        self._function = tf.function(
            lambda x: tf.nest.map_structure(_as_float32, model(x, training=False)),
            input_signature=[signature],
            autograph=False,
        )

    @functools.cached_property
    def _run(self) -> Callable[[Batch], Batch]:
        if not self._constant_folded:
            function: Callable[[Batch], Batch] = self._function
            return function
        traced = self._function.get_concrete_function()
        folded = fold_constants(traced)
        return lambda batch: tf.nest.pack_sequence_as(
            traced.structured_outputs, folded(*tf.nest.flatten(batch))
        )

    def __call__(self, batch: Batch) -> Batch:
        """Returns the float32 outputs of any number of examples, at least 1."""
        outputs = []
        for start in range(0, count_examples(batch), self.batch_size):
            part = tf.nest.map_structure(
                lambda tensor: tf.cast(tensor, tf.float32),
                take_examples(batch, start, start + self.batch_size),
            )
            missing = self.batch_size - count_examples(part)
            padded = self._run(pad_batch(part, missing))
            outputs.append(take_examples(padded, 0, self.batch_size - missing))
        return join_batches(outputs)


def _as_float32(tensor: tf.Tensor) -> tf.Tensor:
    """Returns a tensor of a base that computes in bfloat16 or float16 as float32, exactly."""
    return tf.cast(tensor, tf.float32)


def connect(
    source: Any,
    tensors: Sequence[keras.KerasTensor],
    *,
    batch_size: int,
    constant_folded: bool = False,
) -> Callable[[Batch], list[tf.Tensor]]:
    """Builds the function from some tensors of a graph to others, as a `FixedBatch`.

    A tensor that is part of the source is returned as it is: Keras builds no model in which an
    input is an output.

    Args:
        source: A tensor of the graph, or the list of those that cross a cut.
        tensors: The tensors that the function computes.
        batch_size: As in `FixedBatch`.
        constant_folded: As in `FixedBatch`.
    """
    entering = list(map(id, as_list(source)))
    missing = {id(tensor): tensor for tensor in tensors if id(tensor) not in entering}
    run: Callable[[Batch], Batch] | None = None
    if missing:
        model = keras.Model(source, list(missing.values()))
        run = FixedBatch(model, batch_size=batch_size, constant_folded=constant_folded)

    def compute(batch: Batch) -> list[tf.Tensor]:
        values = dict(zip(entering, as_list(batch), strict=True))
        values |= dict(zip(missing, as_list(run(batch)) if run else (), strict=True))
        return [tf.convert_to_tensor(values[id(tensor)]) for tensor in tensors]

    return compute


def in_batches(
    chunks: Iterator[tuple[Batch, np.ndarray]], size: int
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields the same examples in single batches.

    Args:
        chunks: Inputs and targets, in pieces of whole batches; only the last batch may be shorter.
        size: Examples in a batch.
    """
    for features, targets in chunks:
        for start in range(0, len(targets), size):
            yield take_examples(features, start, start + size), targets[start : start + size]


def skip_examples(
    chunks: Iterator[tuple[Batch, np.ndarray]], count: int
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields the same examples without the first ones.

    Args:
        chunks: Inputs and targets.
        count: How many to leave out.
    """
    for features, targets in chunks:
        if count < len(targets):
            yield (
                (take_examples(features, count), targets[count:]) if count else (features, targets)
            )
        count = max(0, count - len(targets))
