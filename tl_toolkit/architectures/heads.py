"""Heads: pooling, hidden layers, dropout and the output, built onto a base's features."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from tl_toolkit.architectures.graph import UnitGraph, find_blocks, sorted_calls
from tl_toolkit.architectures.layers import GeneralizedMeanPooling2D
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.keras_private import Call, producer_of

__all__ = [
    "CELLS_OF",
    "CELLS_OF_LAST_MAP",
    "LAST_MAP",
    "NORMALIZE_LAYER",
    "OUTPUT_LAYER",
    "POOLED_LAYERS",
    "VARIANCE_EPSILON",
    "HeadLayers",
    "HiddenLayer",
    "build_dense",
    "build_head",
    "build_regularizer",
    "find_head_maps",
    "group_features",
    "pool_features",
]

OUTPUT_LAYER = "predictions"

Pooling = Literal[
    "average", "max", "sum", "flatten", "both", "statistics", "pyramid", "generalized_mean"
]

POOLED_LAYERS = ("head_features", "head_pool")
"""Names of the layers that make the vector of all pooled features; the first that is there."""

NORMALIZE_LAYER = "head_normalize"

_CELLS = 3
"""Rows and columns of cells that a pyramid divides a map into, beside the whole."""

LAST_MAP = "the last map"
CELLS_OF = "cells of "
CELLS_OF_LAST_MAP = f"{CELLS_OF}{LAST_MAP}"
_LATE, _EARLY, _INNER = "late maps", "early maps", "inner "
_MAPS = (LAST_MAP, _LATE, f"{_INNER}{_LATE}", _EARLY, f"{_INNER}{_EARLY}")

_MIXING = (keras.layers.Conv2D, keras.layers.SeparableConv2D)
_CONVOLUTIONS = (*_MIXING, keras.layers.DepthwiseConv2D)

VARIANCE_EPSILON = 1e-6
"""Added to variances. What hardly varies must not be magnified, and a square root has no gradient
at 0."""


@dataclass(frozen=True)
class HiddenLayer:
    """A dense layer between the pooled features and the output.

    Attributes:
        units: Outputs of the layer.
        activation: A name that Keras knows.
        dropout: Fraction of outputs dropped in training, [0, 1).
        l1: L1 regularization factor of the kernel, 0 or more.
        l2: L2 regularization factor of the kernel, 0 or more.
    """

    units: int
    activation: str = "relu"
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0


@dataclass(frozen=True)
class HeadLayers:
    """The layers of a head.

    Attributes:
        pooling: How a map becomes a vector; None for average.
        hidden: Dense layers before the output, input to output.
        dropout: Fraction of features dropped before the output in training, [0, 1).
        l1: L1 regularization factor of the output's kernel, 0 or more.
        l2: L2 regularization factor of the output's kernel, 0 or more.
        taps: Units or layers of the base whose maps are read; "all" for the end of each unit,
            "inner" for these and the map that the last convolution of each unit reads, if another
            one of the unit comes before; None for the base's output.
        normalize: Whether pooled features are standardized by fixed statistics.
    """

    pooling: Pooling | None = None
    hidden: tuple[HiddenLayer, ...] = ()
    dropout: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    taps: Literal["all", "inner"] | tuple[str, ...] | None = None
    normalize: bool = False

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> HeadLayers:
        """Returns the layers that plain values describe, as a catalog's record has them.

        Args:
            values: The attributes; `hidden` as a list of mappings. What belongs to the output or
                the training, `activation` and `solver`, is ignored.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        fields = {name: value for name, value in values.items() if name in names}
        hidden = tuple(HiddenLayer(**layer) for layer in fields.pop("hidden", None) or ())
        return cls(**fields, hidden=hidden)


def build_head(
    maps: Sequence[keras.KerasTensor], head: HeadLayers, *, units: int, activation: str
) -> keras.KerasTensor:
    """Builds the head of a task with one vector of outputs for each image.

    Args:
        maps: What it reads of the base: maps (batch, h, w, channels) or vectors (batch, channels).
        head: Its layers.
        units: Outputs.
        activation: Activation of the outputs.

    Returns:
        float32 (batch, units).
    """
    if len(maps) == 1:
        x = pool_features(maps[0], head.pooling)
    else:
        pooled = [
            pool_features(tensor, head.pooling, name=f"head_pool{number}")
            for number, tensor in enumerate(maps, start=1)
        ]
        x = keras.layers.Concatenate(name="head_features")(pooled)
    if head.normalize:
        # In inference mode, always: `x - moving_mean`, over the root of `moving_variance`.
        x = keras.layers.BatchNormalization(
            center=False, scale=False, epsilon=VARIANCE_EPSILON, name=NORMALIZE_LAYER
        )(x)
    return build_dense(x, head, units=units, activation=activation)


def find_head_maps(
    architecture: Architecture,
    taps: Literal["all", "inner"] | Sequence[str] | None,
    image: keras.KerasTensor,
    features: keras.KerasTensor,
) -> tuple[keras.KerasTensor, ...]:
    """Returns what a head reads of a base, in the order of the graph.

    Args:
        architecture: The record of the base.
        taps: As in `HeadLayers`.
        image: What enters the base.
        features: Its output.

    Raises:
        RecipeError: A name is no unit or layer of the base with one map or vector.
    """
    if taps is None:
        return (features,)
    calls = sorted_calls(keras.Function(image, features))
    layers = {call.operation.name: call.outputs[0] for call in calls if not call.is_input}
    units = [unit for block in find_blocks(architecture, image, features) for unit in block.units]
    ends = {unit.name: unit.tensor for unit in units}
    if taps in ("all", "inner"):
        chosen = [*ends.values(), features]
        chosen += _find_inner(units, calls) if taps == "inner" else []
    else:
        known = {**layers, **ends}
        problems = [
            Problem(
                where="model.head.taps",
                what=f"{name!r} is no unit or layer of {architecture.name}",
                expected=closest(name, list(known)) or f"They end with {list(ends)[-1]}.",
                hint=f"tltool models show {architecture.reference} --units",
            )
            for name in taps
            if name not in known
        ]
        if problems:
            raise RecipeError(problems)
        chosen = [known[name] for name in taps]
    wanted = {id(tensor) for tensor in chosen if len(tensor.shape) in (2, 4)}
    # Not of each layer: one that is called twice has two, of which the last may end the base.
    tensors = [tensor for call in calls if not call.is_input for tensor in call.outputs]
    return tuple(tensor for tensor in tensors if id(tensor) in wanted)


def _find_inner(units: Sequence[UnitGraph], calls: Sequence[Call]) -> list[keras.KerasTensor]:
    """Returns what the last convolution of each unit reads, if one of the unit comes before it.

    In units with a narrow end (Sandler et al., 2018, linear bottlenecks) these maps are the wide
    ones, of which the end holds a projection. Convolutions of pooled maps, as those of
    squeeze-and-excitation, make gates and no maps. A depthwise convolution counts as one before,
    never as the last: it mixes no channels, as a separable one does. Of branches side by side, as
    in NASNet, the last one in the order of the graph counts.
    """
    sizes = {unit.name: unit.tensor.shape[1:3] for unit in units}
    unit_of = {id(member): unit.name for unit in units for member in unit.operations}
    convolved: dict[int, str] = {}  # the unit by whose convolutions a tensor was made
    inner: dict[str, keras.KerasTensor] = {}
    for call in calls:
        unit = unit_of.get(id(call.operation))
        entering = [t for t in call.input_tensors if unit and convolved.get(id(t)) == unit]
        if unit and entering and isinstance(call.operation, _MIXING):
            size = entering[0].shape[1:3]
            if size != (1, 1) or size == sizes[unit]:
                inner[unit] = entering[0]
        if unit and (entering or isinstance(call.operation, _CONVOLUTIONS)):
            convolved |= {id(tensor): unit for tensor in call.outputs}
    return list(inner.values())


def build_dense(
    x: keras.KerasTensor, head: HeadLayers, *, units: int, activation: str
) -> keras.KerasTensor:
    """Builds hidden layers, dropout and the output on features (..., channels).

    Args:
        x: The features; all but the last axis are kept.
        head: Hidden layers, dropout and regularization.
        units: Outputs.
        activation: Activation of the outputs.

    Returns:
        float32 (..., units).
    """
    for number, hidden in enumerate(head.hidden, start=1):
        x = keras.layers.Dense(
            hidden.units,
            activation=hidden.activation,
            kernel_regularizer=build_regularizer(hidden.l1, hidden.l2),
            name=f"head_hidden{number}",
        )(x)
        if hidden.dropout:
            # Each phase resets the stream of its masks, with a seed of its own.
            name = f"head_hidden{number}_dropout"
            x = keras.layers.Dropout(hidden.dropout, seed=0, name=name)(x)
    if head.dropout:
        x = keras.layers.Dropout(head.dropout, seed=0, name="head_dropout")(x)
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_regularizer=build_regularizer(head.l1, head.l2),
        dtype="float32",  # a half-precision softmax loses small probabilities
        name=OUTPUT_LAYER,
    )(x)


def pool_features(
    features: keras.KerasTensor, pooling: str | None, *, name: str = "head_pool"
) -> keras.KerasTensor:
    """Reduces a map to a vector.

    Args:
        features: A map (batch, h, w, channels), or a vector, which stays as it is.
        pooling: One of `HeadLayers.pooling`.
        name: Name of the layer that makes the vector.

    Returns:
        (batch, channels); twice as many channels with "both" and "statistics"; eleven times as
        many with "pyramid", twice where a side is below 3; (batch, h * w * channels) with
        "flatten".
    """
    if len(features.shape) == 2:
        return features
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(name=name)(features)
    if pooling == "sum":
        pooled = keras.ops.sum(features, axis=(1, 2))  # a plain op: Keras has no such layer
        producer_of(pooled).name = name.replace("pool", "sum")  # the base may have a `sum`
        return pooled
    if pooling == "flatten":
        return keras.layers.Flatten(name=name)(features)
    if pooling == "generalized_mean":
        return GeneralizedMeanPooling2D(name=name)(features)
    if pooling == "both":
        average = keras.layers.GlobalAveragePooling2D(name=f"{name}_average")(features)
        greatest = keras.layers.GlobalMaxPooling2D(name=f"{name}_max")(features)
        return keras.layers.Concatenate(name=name)([average, greatest])
    if pooling in ("statistics", "pyramid"):
        average = keras.layers.GlobalAveragePooling2D(name=f"{name}_average")(features)
        variance = keras.ops.var(features, axis=(1, 2))
        producer_of(variance).name = f"{name}_variance"
        shifted = variance + VARIANCE_EPSILON
        producer_of(shifted).name = f"{name}_shifted"
        deviation = keras.ops.sqrt(shifted)
        producer_of(deviation).name = f"{name}_deviation"
        vectors = [average, deviation]
        if pooling == "pyramid" and min(features.shape[1:3]) >= _CELLS:
            vectors.append(_pool_cells(features, name=_name_cells(name)))
        return keras.layers.Concatenate(name=name)(vectors)
    return keras.layers.GlobalAveragePooling2D(name=name)(features)


def _pool_cells(features: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """Returns the averages of cells, which overlap where a side is no multiple of their number.

    Strides are those of He et al. (2015), Spatial pyramid pooling, section 2.3. Windows are a
    position longer for sides of 3 n + 2, whose last position theirs leave out (14), or which they
    divide in four (5).
    """
    strides = [side // _CELLS for side in features.shape[1:3]]
    cells = keras.layers.AveragePooling2D(
        pool_size=[
            side - (_CELLS - 1) * stride
            for side, stride in zip(features.shape[1:3], strides, strict=True)
        ],
        strides=strides,
        dtype="float32",  # a sum in half precision loses digits, and overflows
        name=f"{name}_average",
    )(features)
    return keras.layers.Flatten(name=name)(cells)


def _name_cells(name: str) -> str:
    return f"{name}_cells"


def group_features(
    head: Iterable[keras.layers.Layer], inner: Container[int] = ()
) -> dict[str, np.ndarray]:
    """Returns which features of a head come from which maps, and from the whole or from cells.

    Args:
        head: Its layers.
        inner: Places of those maps that lie inside of units, among all that it reads.

    Returns:
        The places of features, int (n,), by what they come from: the last map, late maps (the
        rest of the last third), early maps, inner late and early ones, and the cells of each; only
        those that there are. Empty for a head that pools no map.
    """
    layers = {layer.name: layer for layer in head}
    joined, pooled = (layers.get(name) for name in POOLED_LAYERS)
    if joined is not None:
        vectors = joined.input
    elif pooled is not None:
        vectors = [pooled.output]
    else:
        return {}
    groups: dict[str, list[np.ndarray]] = {
        f"{part}{maps}": [] for maps in _MAPS for part in ("", CELLS_OF)
    }
    start = 0
    for number, vector in enumerate(vectors):
        is_late = 3 * number >= 2 * len(vectors)
        maps = _INNER * (number in inner) + (_LATE if is_late else _EARLY)
        maps = LAST_MAP if number == len(vectors) - 1 else maps
        cells = layers.get(_name_cells(producer_of(vector).name))
        end = start + vector.shape[-1]
        middle = end if cells is None else end - cells.output.shape[-1]
        groups[maps].append(np.arange(start, middle))
        groups[f"{CELLS_OF}{maps}"].append(np.arange(middle, end))
        start = end
    places = {name: np.concatenate(each) for name, each in groups.items() if each}
    return {name: each for name, each in places.items() if len(each)}


def build_regularizer(l1: float, l2: float) -> keras.regularizers.Regularizer | None:
    """Returns the regularizer l1 * sum(|w|) + l2 * sum(w^2), None where both are 0.

    Args:
        l1: 0 or more.
        l2: 0 or more.
    """
    if not l1 and not l2:
        return None
    return keras.regularizers.L1L2(l1=l1, l2=l2)
