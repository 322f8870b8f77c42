"""The precision that the layers of a base compute in; their weights stay float32.

Keras's dtype policies do it. They are set on the layers of a model that is built, so that weights,
names and initial values do not depend on them, and the same model computes in float32 again when it
is evaluated, saved and exported.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.keras_private import flatten_layers
from tl_toolkit.transfer.assemble import HEAD, TransferModel

__all__ = ["choose_precision", "in_precision", "precision_of", "set_precision", "time_precisions"]

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
_MEASURED = ("float32", "bfloat16")
"""What `auto` chooses from; float16 lacks the range for some networks, and is never chosen."""
_MOST_IMAGES = 32
_CALLS = 5  # of which the fastest counts; other processes slow some down
_LEAST_GAIN = 1.1
"""How many times as fast bfloat16 must be to be chosen: less is lost in noise."""


def set_precision(transfer: TransferModel, precision: str) -> None:
    """Lets the layers of the base compute in a precision.

    The head, with pooling, softmax and loss, stays float32, and so do pixels before the base.
    Functions that are compiled already keep the precision that they were traced with.

    Args:
        transfer: The model.
        precision: float32, bfloat16 or float16.
    """
    if precision == precision_of(transfer):
        return
    for layer in _list_layers(transfer):
        layer.dtype_policy = _POLICIES[precision]


def precision_of(transfer: TransferModel) -> str:
    """Returns the precision that the layers of the base compute in.

    Args:
        transfer: The model.
    """
    dtypes = {layer.compute_dtype for layer in _list_layers(transfer)}
    return next((name for name in ("bfloat16", "float16") if name in dtypes), "float32")


@contextlib.contextmanager
def in_precision(transfer: TransferModel, precision: str) -> Iterator[None]:
    """Lets the layers of the base compute in a precision inside a block.

    Args:
        transfer: The model.
        precision: As in `set_precision`.
    """
    before = precision_of(transfer)
    set_precision(transfer, precision)
    try:
        yield
    finally:
        set_precision(transfer, before)


def _list_layers(transfer: TransferModel) -> list[keras.layers.Layer]:
    layers = [layer for part in transfer.parts if part.name != HEAD for layer in part.layers]
    return [member for layer in layers for member in flatten_layers(layer)]


def choose_precision(seconds: Mapping[str, float]) -> str:
    """Returns bfloat16 if it is faster by a tenth at least, else float32.

    Args:
        seconds: Seconds of an image in each precision, as of `time_precisions`.
    """
    is_faster = seconds["float32"] >= _LEAST_GAIN * seconds["bfloat16"]
    return "bfloat16" if is_faster else "float32"


def time_precisions(
    transfer: TransferModel, *, trains_base: bool, batch_size: int
) -> dict[str, float]:
    """Measures how long an image takes on this machine, in each precision.

    Args:
        transfer: The model, whose weights are not changed.
        trains_base: Whether gradients are computed too, as in phases that train units of the base.
        batch_size: Images in a step; at most 32 are measured.

    Returns:
        Seconds by precision: the fastest of five calls, after one that compiles.
    """
    random = np.random.default_rng(0)
    count = min(batch_size, _MOST_IMAGES)
    images = tf.constant(transfer.sample_images(random, count))
    further = transfer.task.sample_inputs(random, count, transfer.image.shape[1:3])
    inputs = transfer.join_inputs(images, [tf.constant(values) for values in further])
    runs = {}
    for precision in _MEASURED:
        with in_precision(transfer, precision):  # while it is traced
            runs[precision] = _compile(transfer.model, inputs, trains_base=trains_base)
            runs[precision]()
    # In turns: what else the machine does then slows down both.
    rounds = [{name: _time(run) for name, run in runs.items()} for _ in range(_CALLS)]
    return {name: min(times[name] for times in rounds) / count for name in runs}


def _compile(model: keras.Model, inputs: Any, *, trains_base: bool) -> Any:
    variables = [variable.value for variable in model.trainable_variables]

    @tf.function(autograph=False)
    def run() -> Any:
        if not trains_base:
            return model(inputs, training=False)
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=False)
        gradients = tape.gradient(outputs, variables)
        return [tf.reduce_sum(tf.abs(gradient)) for gradient in gradients if gradient is not None]

    return run


def _time(run: Any) -> float:
    began = time.perf_counter()
    for tensor in tf.nest.flatten(run()):
        tensor.numpy()  # a GPU returns before it has computed
    return time.perf_counter() - began
