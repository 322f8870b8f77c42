"""Where the trainable part begins: prefix and suffix, trainable flags, and digests."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.architectures.heads import NORMALIZE_LAYER, POOLED_LAYERS
from tl_toolkit.errors import CheckFailedError, Problem
from tl_toolkit.keras_private import flatten_layers, keep_input_calls
from tl_toolkit.transfer.assemble import HEAD, Part, TransferModel
from tl_toolkit.transfer.heads import is_head, is_head_dropout, pools_by_weights
from tl_toolkit.transfer.wrappers import InInferenceMode, VariableDropout

WHOLE_LIMIT = 1e-5
"""Largest difference between the outputs of the whole model and of its two parts, in probability or
in what else the task measures differences in. Kernels may sum in
another order when graphs are fused otherwise; anything above is a difference of graphs."""

_CHECK_IMAGES = 2


@dataclass(frozen=True)
class Cut:
    """Where the trainable part begins.

    Attributes:
        name: Name of the first part that trains.
        position: Its place among the model's parts, from 0.
        tensors: Its inputs: one tensor, or the list of tensors that cross together.
    """

    name: str
    position: int
    tensors: keras.KerasTensor | list[keras.KerasTensor]


@dataclass(frozen=True)
class Split:
    """A model cut in two at the first trainable part.

    Attributes:
        prefix: Images to the cut; frozen, in inference mode.
        suffix: The cut, and the sampled pixels of a dense task, to probabilities. Its `model`
            trains; frozen layers in it are fixed to inference mode, and the rates of the head's
            dropouts are variables.
        trainable: The variables that a step changes.
        cut: Where it is cut.
        parts: For each of these variables the name of its part.
    """

    prefix: FixedBatch
    suffix: FixedBatch
    trainable: tuple[keras.Variable, ...]
    cut: Cut
    parts: tuple[str, ...]


def split_at(
    transfer: TransferModel, units: Sequence[str], *, train_batch_norm: bool = False
) -> Split:
    """Sets every trainable flag and cuts the model before the first trainable part.

    Nothing else writes `trainable`. The head always trains.

    Args:
        transfer: The assembled model.
        units: Names of the units to train, in any order; none trains the head alone.
        train_batch_norm: Train BatchNormalization inside those units and move its statistics. By
            default it stays frozen at every depth: small batches would wreck its statistics. That
            of a head, which begins with none, always trains.
    """
    trained = set_trainable(transfer, units, train_batch_norm=train_batch_norm)
    cut = find_cut(transfer, units)
    prefix = keras.Model(transfer.image, cut.tensors, name="prefix")
    entering = transfer.join_inputs(cut.tensors)
    with keep_input_calls(transfer.model.inputs):  # else the whole model could not be saved
        suffix = _fix_frozen(keras.Model(entering, transfer.model.output, name="suffix"), trained)
    variables = tuple(suffix.trainable_variables)
    size = transfer.batch_size
    owners = {id(variable): part.name for part, _, variable in transfer.variables()}
    return Split(
        FixedBatch(prefix, batch_size=size),
        FixedBatch(suffix, batch_size=size),
        variables,
        cut,
        tuple(owners[id(variable)] for variable in variables),
    )


def set_trainable(
    transfer: TransferModel, units: Sequence[str], *, train_batch_norm: bool = False
) -> list[Part]:
    """Sets every trainable flag, as `split_at` does, and returns the parts that train.

    Compiled steps keep the flags that they were traced with; receipts read them as they are.

    Args:
        transfer: The model.
        units: As in `split_at`.
        train_batch_norm: As in `split_at`.
    """
    trained = _find_trained(transfer, units)
    for layer in transfer.model.layers:
        layer.trainable = False
    for layer in (layer for part in trained for layer in part.layers):
        layer.trainable = True
        for normalization in batch_norms(layer):
            is_fixed = layer.name == NORMALIZE_LAYER  # its statistics are set, once
            normalization.trainable = not is_fixed and (train_batch_norm or is_head(layer))
    return trained


def find_cut(transfer: TransferModel, units: Sequence[str]) -> Cut:
    """Finds where the model is cut when these units and the head train.

    Args:
        transfer: The model.
        units: Names of the units, in any order.
    """
    first = _find_trained(transfer, units)[0]
    return Cut(first.name, transfer.parts.index(first), _cut_tensors(first))


def _find_trained(transfer: TransferModel, units: Sequence[str]) -> list[Part]:
    chosen = {*units, HEAD}
    return [part for part in transfer.parts if part.name in chosen]


def check_whole(transfer: TransferModel, split: Split) -> None:
    """Compares the whole model, which is saved and exported, with prefix and suffix, which trained.

    Args:
        transfer: The model.
        split: Any split of it.

    Raises:
        CheckFailedError: An output for images of noise differs by more than `WHOLE_LIMIT`.
    """
    random = np.random.default_rng(0)
    images = tf.constant(transfer.sample_images(random, _CHECK_IMAGES))
    sampled = transfer.task.sample_inputs(random, _CHECK_IMAGES, transfer.image.shape[1:3])
    # Keras mixes no tensors and arrays.
    further_inputs = [tf.constant(values) for values in sampled]
    whole = transfer.model(transfer.join_inputs(images, further_inputs), training=False)
    entering = transfer.join_inputs(split.prefix.model(images, training=False), further_inputs)
    parts = split.suffix.model(entering, training=False)
    difference = float(transfer.task.measure_differences(parts.numpy(), whole.numpy()).max())
    if not difference <= WHOLE_LIMIT:
        raise CheckFailedError(
            Problem(
                where=f"{transfer.model.name}, cut before {split.cut.name}",
                what=f"prefix and suffix differ from the whole model by {difference:.2g}",
                expected=f"At most {WHOLE_LIMIT:g}: what was trained is what is saved.",
                hint="report it with the recipe",
            )
        )


def batch_norms(layer: keras.layers.Layer) -> list[keras.layers.BatchNormalization]:
    """Returns the BatchNormalization layers in a layer or a nested model.

    Args:
        layer: A layer, or a nested model.
    """
    return [
        member
        for member in flatten_layers(layer)
        if isinstance(member, keras.layers.BatchNormalization)
    ]


def _cut_tensors(first: Part) -> keras.KerasTensor | list[keras.KerasTensor]:
    """Returns the deepest tensors that depend on no trained weight and no dropout."""
    names = {layer.name: layer for layer in first.layers}
    pooled = next((names[name] for name in POOLED_LAYERS if name in names), None)
    if pooled is not None and not pools_by_weights(first.layers):
        return pooled.output
    return first.inputs[0] if len(first.inputs) == 1 else list(first.inputs)


def _fix_frozen(suffix: keras.Model, trained: Sequence[Part]) -> keras.Model:
    """Rebuilds a suffix with its frozen layers in inference mode; layers with weights are shared.

    `trainable = False` stops BatchNormalization, but neither dropout nor stochastic depth, and the
    outer model's own flag overwrites a `training=False` that a call is built with.
    """
    live = {id(layer) for part in trained for layer in part.layers}

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if is_head_dropout(layer):
            return VariableDropout(layer, name=f"{layer.name}_variable")(*args)
        if id(layer) in live or not takes_training(layer):
            return layer(*args, **kwargs)
        kwargs.pop("training", None)
        return InInferenceMode(layer, name=f"{layer.name}_frozen")(*args, **kwargs)

    return keras.models.clone_model(suffix, clone_function=lambda layer: layer, call_function=call)


def takes_training(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer has a training mode.

    Args:
        layer: The layer.
    """
    return "training" in inspect.signature(layer.call).parameters


def digest_variables(
    transfer: TransferModel, *, only: Container[str] | None = None
) -> dict[tuple[str, str], str]:
    """Returns the SHA-256 of every weight and moving statistic, by (part, canonical name).

    Args:
        transfer: The model.
        only: Canonical names of the variables to digest; all by default.
    """
    return {
        (part.name, name): hashlib.sha256(variable.numpy().tobytes()).hexdigest()
        for part, name, variable in transfer.variables()
        if only is None or name in only
    }
