"""Calls of one fixed batch size, and rows of what crosses a cut: one tensor, or several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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
    "count_rows",
    "join_batches",
    "pad_batch",
    "take_examples",
]

PREFIX_BATCH = 32
"""Images per call of a compiled prefix. One size for all: kernels choose their algorithm, and so
the last bits of their result, by batch size."""

Batch: TypeAlias = np.ndarray | tf.Tensor | Sequence[tf.Tensor]
"""A tensor (n, ...), or the list of tensors that cross a boundary together, n rows in each."""


def as_list(tensors: Any) -> list[Any]:
    """Returns one tensor, or several, as a list."""
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def count_rows(rows: Batch) -> int:
    """Returns n."""
    return len(tf.nest.flatten(rows)[0])


def take_examples(rows: Batch, start: int, stop: int | None = None) -> Batch:
    """Returns the rows from `start` to before `stop`, by default to the end."""
    return tf.nest.map_structure(lambda tensor: tensor[start:stop], rows)


def pad_batch(rows: Batch, missing: int) -> Batch:
    """Returns the rows with `missing` rows of zeros below them."""
    if not missing:
        return rows
    return tf.nest.map_structure(
        lambda tensor: tf.pad(tensor, [[0, missing]] + [[0, 0]] * (len(tensor.shape) - 1)), rows
    )


def join_batches(pieces: Sequence[Batch]) -> Batch:
    """Returns the rows of several pieces, one below the other; at least one piece."""
    if len(pieces) == 1:
        return pieces[0]
    return tf.nest.map_structure(lambda *tensors: tf.concat(tensors, axis=0), *pieces)


class FixedBatch:
    """A model in inference mode as one compiled function of one fixed batch size.

    Short batches are padded with zeros and cut, so that an image's outputs are the same, bit for
    bit, whatever batch it comes in.

    Args:
        model: Any Keras model; it may have several inputs or outputs.
        batch_size: Images per call, at least 1.
        folded: Make constants of the weights as they are at the first call: layers are merged, the
            last digits change, and later changes of the weights do not show.
    """

    def __init__(
        self, model: keras.Model, *, batch_size: int = PREFIX_BATCH, folded: bool = False
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self._folded = folded
        signature = tf.nest.map_structure(
            lambda tensor: tf.TensorSpec((batch_size, *tensor.shape[1:]), tf.float32), model.input
        )
        self._function = tf.function(
            lambda x: model(x, training=False), input_signature=[signature]
        )

    @functools.cached_property
    def _run(self) -> Callable[[Batch], Batch]:
        if not self._folded:
            return self._function
        traced = self._function.get_concrete_function()
        folded = fold_constants(traced)
        return lambda rows: tf.nest.pack_sequence_as(
            traced.structured_outputs, folded(*tf.nest.flatten(rows))
        )

    def __call__(self, values: Batch) -> Batch:
        """Returns the float32 outputs for any number of rows, at least 1."""
        outputs = []
        for start in range(0, count_rows(values), self.batch_size):
            rows = tf.nest.map_structure(
                lambda tensor: tf.cast(tensor, tf.float32),
                take_examples(values, start, start + self.batch_size),
            )
            missing = self.batch_size - count_rows(rows)
            found = self._run(pad_batch(rows, missing))
            outputs.append(take_examples(found, 0, self.batch_size - missing))
        return join_batches(outputs)


def connect(
    source: Any, tensors: Sequence[keras.KerasTensor], *, batch_size: int, folded: bool = False
) -> Callable[[Batch], list[tf.Tensor]]:
    """Returns the function from some tensors of a graph to others, as a `FixedBatch`.

    Tensors that are among the source's own are handed on: Keras draws no model of which an input is
    an output.

    Args:
        source: A tensor of the graph, or the list of those that cross a cut.
        tensors: What is wanted.
        batch_size: As of `FixedBatch`.
        folded: As of `FixedBatch`.
    """
    given = list(map(id, as_list(source)))
    missing = {id(tensor): tensor for tensor in tensors if id(tensor) not in given}
    computed = list(missing.values())
    run: Callable[[Batch], Batch] | None = None
    if computed:
        model = keras.Model(source, computed)
        run = FixedBatch(model, batch_size=batch_size, folded=folded)

    def compute(rows: Batch) -> list[tf.Tensor]:
        found = dict(zip(given, as_list(rows), strict=True))
        found |= dict(zip(missing, as_list(run(rows)) if run else (), strict=True))
        return [tf.convert_to_tensor(found[id(tensor)]) for tensor in tensors]

    return compute
