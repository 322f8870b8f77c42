"""Where the trainable part begins: prefix and suffix, trainable flags, and digests."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.architectures.heads import NORMALIZE_LAYER, POOLED_LAYERS
from tl_toolkit.errors import CheckFailedError, Problem
from tl_toolkit.keras_private import constants_of, flatten_layers, keep_input_calls
from tl_toolkit.transfer.assemble import HEAD, Part, TransferModel
from tl_toolkit.transfer.heads import is_head, is_head_dropout, pools_by_weights
from tl_toolkit.transfer.wrappers import InInferenceMode, VariableDropout


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
    """Proves that prefix and suffix, which train, are the whole model, which is saved and exported.

    Graphs are equal if each of their outputs comes from the same layers, called in the same way on
    the same tensors. No number is computed: layer by layer, Keras takes a second for two images.

    Args:
        transfer: The model.
        split: Any split of it.

    Raises:
        CheckFailedError: An output comes from other layers, or from others before them.
    """
    model, prefix, suffix = transfer.model, split.prefix.model, split.suffix.model
    known: dict[Any, int] = {}
    whole = _number_tensors(model, range(-len(model.inputs), 0), known)
    image, *further = (whole[id(tensor)] for tensor in model.inputs)
    crossing = _number_tensors(prefix, [image], known)
    entering = [*(crossing[id(tensor)] for tensor in prefix.outputs), *further]
    rest = _number_tensors(suffix, entering, known)
    wanted = [whole[id(tensor)] for tensor in model.outputs]
    if [rest[id(tensor)] for tensor in suffix.outputs] != wanted:
        raise CheckFailedError(
            Problem(
                where=f"{model.name}, cut before {split.cut.name}",
                what="prefix and suffix are not the whole model",
                expected="The same layers on the same tensors: what was trained is what is saved.",
                hint="report it with the recipe",
            )
        )


def _number_tensors(
    graph: keras.Model, entering: Iterable[int], known: dict[Any, int]
) -> dict[int, int]:
    """Returns a number for each tensor of a graph, by identity: one for all that are equal.

    Args:
        graph: The graph.
        entering: The numbers of its inputs.
        known: The numbers of what is computed in any graph so far; new ones are added.
    """
    numbers = dict(zip(map(id, graph.inputs), entering, strict=True))
    for call in sorted_calls(graph):
        layer = call.operation
        if isinstance(layer, InInferenceMode | VariableDropout):
            layer = layer.layer
        arguments = repr(constants_of(call, without=("training",)))
        inputs = tuple(numbers[id(tensor)] for tensor in call.input_tensors)
        for place, tensor in enumerate(call.outputs):
            key = (id(layer), arguments, inputs, place)
            numbers.setdefault(id(tensor), known.setdefault(key, len(known)))
    return numbers


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
