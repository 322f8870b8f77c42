"""The record of a base of the user's own: its graph, cut into units and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from tl_toolkit.architectures.graph import find_cuts, sorted_calls
from tl_toolkit.architectures.own import (
    build_own_base,
    connect_own_model,
    load_own_model,
    original_name,
)
from tl_toolkit.architectures.own_checks import check_calls, graph_of, list_regularized
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.architectures.taps import find_taps
from tl_toolkit.catalog.bands import without_color
from tl_toolkit.catalog.lookup import PIXEL_RULES, PIXEL_STEP, Architecture
from tl_toolkit.catalog.records import RGB, Block, Unit
from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.keras_private import Call, producer_of

__all__ = ["describe_own_base"]

_GREY = {"raw": "grey", "unit": "grey_unit", "tf": "grey_tf"}
_USUAL_SIZE = (224, 224)
_CLASSIFIERS = ("predictions", "logits", "classifier", "fc1000", "probs")
_IMAGENET_CLASSES = (1000, 1001, 21841, 21843)


def describe_own_base(
    path: Path,
    *,
    preprocessing: str = "raw",
    image_size: tuple[int, int] | None = None,
    channels: int = RGB,
) -> Architecture:
    """Returns the record of a model, as the catalog has one of each architecture.

    A unit begins at a cut, with a stretch that has a kernel. All operations up to the next kernel,
    such as normalization, activation and pooling, belong to the unit. A block is a run of units
    with maps of one size.

    Args:
        path: The model's file.
        preprocessing: A word of `PIXEL_RULES`.
        image_size: (height, width) of the images; by default the model's own, else 224 x 224.
        channels: Channels of the images.

    Raises:
        WeightsError: The file is missing or damaged.
        RecipeError: The model cannot be a base, or not for images of this size.
    """
    model = load_own_model(path)
    _, height, width, own_channels = graph_of(model).inputs[0].shape
    _check_channels(path, own_channels, channels)
    fixed = None if height is None else (height, width)
    size = fixed or image_size or _USUAL_SIZE
    check_calls(model, size)
    rule = _choose_rule(preprocessing, own_channels, is_rgb=channels == RGB)
    entering = _enter(size, channels, rule)
    outputs = connect_own_model(model, entering)
    units = _find_units(entering, outputs)
    blocks = _group_blocks(units)
    record = Architecture(
        name=model.name,
        title=path.name,
        paper="",
        builder=f"{build_own_base.__module__}:{build_own_base.__name__}",
        settings={"path": str(path)},
        minimum_size=1,
        default_size=min(size),
        pixels=rule,
        unit_names=(),
        block_names=(),
        head=None,
        blocks=blocks,
        parameters=sum(block.parameters for block in blocks),
        output="map" if len(outputs.shape) == 4 else "vector",
        layer_units={name: unit.name for unit in units for name in unit.layers},
        fixed_size=fixed,
        file=str(path),
        doubt=_describe_classifier(graph_of(model)),
        regularized=list_regularized(model),
    )
    return replace(record, taps=_name_taps(record, model, size, channels))


def _enter(size: tuple[int, int], channels: int, rule: str) -> keras.KerasTensor:
    """Returns the tensor that enters a base, from images of a size."""
    image = keras.Input((*size, channels), name="image")
    return apply_pixel_rule(image, rule if channels == RGB else without_color(rule))


def _check_channels(path: Path, own_channels: int, channels: int) -> None:
    """Refuses a model that takes other channels than the images have; grey is made of RGB.

    Raises:
        RecipeError: It does.
    """
    if own_channels == channels or (channels == RGB and own_channels == 1):
        return
    what = f"model.base: {path} takes images of {own_channels} channels"
    expected = f"expected those of the images, data.channels = {channels}: it is used as it is."
    hint = f"data.channels={own_channels}"
    raise RecipeError(Problem("", what, expected, hint))


def _describe_classifier(graph: keras.Function) -> str:
    """Returns a warning if a model ends in a classifier, which a base should be without."""
    operation = producer_of(graph.outputs[0])
    calls = {call.operation: call for call in sorted_calls(graph)}
    activation = getattr(operation, "activation", None)
    ends_in = "softmax" if isinstance(operation, keras.layers.Softmax) else getattr(
        activation, "__name__", ""
    )  # fmt: skip
    dense = operation
    if isinstance(operation, keras.layers.Activation | keras.layers.Softmax):
        dense = producer_of(calls[operation].input_tensors[0])
    name = original_name(dense.name)
    is_named = isinstance(dense, keras.layers.Dense) and (
        name in _CLASSIFIERS or dense.units in _IMAGENET_CLASSES
    )
    if not is_named and ends_in not in ("softmax", "sigmoid"):
        return ""
    kind = f", a {ends_in}" if ends_in in ("softmax", "sigmoid") else ""
    before = original_name(producer_of(calls[dense].input_tensors[0]).name)
    return (
        f"the base ends in what looks like its classifier ({name}{kind}): the new head would see "
        "old classes instead of features. "
        f"Try: base=keras.Model(model.input, model.get_layer({before!r}).output)"
    )


def _choose_rule(preprocessing: str, channels: int, *, is_rgb: bool) -> str:
    """Returns the pixel rule for a word and the number of channels that a model takes."""
    if not is_rgb:
        if preprocessing not in _GREY:
            what = f"model.base.preprocessing = {preprocessing!r}"
            expected = f"expected one of {', '.join(_GREY)} for other channels than RGB."
            raise RecipeError(Problem("", what, expected))
        return preprocessing
    colors = [name for name, rule in PIXEL_RULES.items() if rule.color != "grey"]
    known = list(_GREY) if channels == 1 else colors
    if channels == 1 and preprocessing in _GREY.values():
        return preprocessing
    if preprocessing not in known:
        what = f"model.base.preprocessing = {preprocessing!r}"
        condition = " for a model of one channel" if channels == 1 else ""
        expected = f"expected one of {', '.join(known)}{condition}."
        near = closest(preprocessing, known)
        raise RecipeError(Problem("", what, f"{expected} {near}".rstrip()))
    return _GREY[preprocessing] if channels == 1 else preprocessing


def _name_taps(
    record: Architecture, model: keras.Model, size: tuple[int, int], channels: int
) -> tuple[str, ...]:
    """Names the layers that single pixels are read from, at a size that has whole cells."""
    height, width = (-(-side // PIXEL_STEP) * PIXEL_STEP for side in size)
    padded = (height, width)
    if record.fixed_size not in (None, padded):
        return ()
    entering = _enter(padded, channels, record.pixels)
    try:
        outputs = connect_own_model(model, entering)
    except RecipeError:  # the base takes the image, but not a padded one
        return ()
    return tuple(producer_of(tap).name for tap in find_taps(record, entering, outputs))


@dataclass(frozen=True)
class _OwnUnit:
    """A unit as it was cut.

    Attributes:
        name: The layer that ends its first stretch.
        end: The layer that ends it.
        layers: Names of all its operations.
        size: (height, width) of the map at the end of its first stretch; None for a vector.
        channels: Of the map or vector that ends it.
        parameters: Its weights.
    """

    name: str
    end: str
    layers: tuple[str, ...]
    size: tuple[int, int] | None
    channels: int
    parameters: int


_Calls = list[Call]


def _find_units(entering: keras.KerasTensor, outputs: keras.KerasTensor) -> list[_OwnUnit]:
    graph = keras.Function(entering, outputs)
    stretches = _join_sharing(_find_stretches(graph))
    groups: list[list[_Calls]] = []
    waiting: list[_Calls] = []  # stretches before the first kernel belong to its unit
    for stretch in stretches:
        if any(_has_kernel(call.operation) for call in stretch):
            groups.append([[*(call for early in waiting for call in early), *stretch]])
            waiting = []
        elif groups:
            groups[-1].append(stretch)
        else:
            waiting.append(stretch)
    if waiting:
        groups.append([[call for early in waiting for call in early]])
    return [_as_unit(group) for group in groups]


def _find_stretches(graph: keras.Function) -> list[_Calls]:
    """Returns the calls between two cuts, input to output."""
    calls = sorted_calls(graph)
    ends = {cut.position for cut in find_cuts(graph)}
    stretches: list[_Calls] = [[]]
    for position, call in enumerate(calls):
        if not call.is_input:
            stretches[-1].append(call)
            if position in ends:
                stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _join_sharing(stretches: Sequence[_Calls]) -> list[_Calls]:
    """Joins all stretches from the first to the last call of a layer: it trains in one unit."""
    last = {id(call.operation): place for place, calls in enumerate(stretches) for call in calls}
    joined: list[_Calls] = []
    until = -1
    for place, stretch in enumerate(stretches):
        if place <= until:
            joined[-1] += stretch
        else:
            joined.append(list(stretch))
        until = max(until, *(last[id(call.operation)] for call in stretch))
    return joined


def _has_kernel(operation: keras.Operation) -> bool:
    """Returns whether a layer, or one in a nested model, has a weight that is worth unfreezing."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    return any(
        len(variable.shape) >= 2 and variable.trainable for variable in operation.trainable_weights
    )


def _as_unit(stretches: Sequence[_Calls]) -> _OwnUnit:
    calls = [call for stretch in stretches for call in stretch]
    operations = list(dict.fromkeys(call.operation for call in calls))
    core = stretches[0][-1]
    shape = core.outputs[0].shape
    return _OwnUnit(
        name=core.operation.name,
        end=calls[-1].operation.name,
        layers=tuple(operation.name for operation in operations),
        size=(shape[1], shape[2]) if len(shape) == 4 else None,
        channels=calls[-1].outputs[0].shape[-1],
        parameters=sum(
            int(operation.count_params())
            for operation in operations
            if isinstance(operation, keras.layers.Layer)
        ),
    )


def _group_blocks(units: Sequence[_OwnUnit]) -> tuple[Block, ...]:
    """Returns runs of units with maps of one size, as `block1` and so on from the input."""
    runs: list[list[_OwnUnit]] = []
    for unit in units:
        if runs and runs[-1][-1].size == unit.size:
            runs[-1].append(unit)
        else:
            runs.append([unit])
    taken = {unit.name for unit in units}
    blocks = []
    for number, run in enumerate(runs, start=1):
        name = f"block{number}"
        while name in taken:
            name += "_"
        if len(run) == 1:
            name = run[0].name
        members = tuple(Unit(unit.name, unit.end, unit.channels) for unit in run)
        blocks.append(Block(name, members, sum(unit.parameters for unit in run)))
    return tuple(blocks)
