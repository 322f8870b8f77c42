"""Building a base into a graph, and reading its blocks and units off the graph."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tl_toolkit.catalog.lookup import (
    Architecture,
    complete_arguments,
    find_block_name,
    find_unit_name,
)
from tl_toolkit.catalog.records import Value
from tl_toolkit.keras_private import calls_by_depth, producer_of

__all__ = [
    "BlockGraph",
    "Cut",
    "LayerVariable",
    "UnitGraph",
    "build_base",
    "find_blocks",
    "find_cuts",
    "layer_variables",
    "sorted_calls",
]

Builder = Callable[..., keras.KerasTensor]


@dataclass(frozen=True)
class Cut:
    """A tensor through which every path from input to output runs.

    Attributes:
        position: Place of the operation that makes it, in topological order.
        layer: Name of that operation.
        tensor: The tensor itself.
    """

    position: int
    layer: str
    tensor: keras.KerasTensor


@dataclass(frozen=True)
class UnitGraph:
    """A unit as it was built.

    Attributes:
        name: Its name in the catalog.
        end_layer: Name of the layer that ends it.
        inputs: The tensors that enter it: the boundary that the unit before it ends at.
        outputs: The boundary that it ends at: all tensors so far that later units, or the head,
            read. One tensor, a cut, in most networks; two in NASNet, whose cells read the last two
            cells; the skips as well in U-Net.
        operations: All its operations, input to output; most are layers.
    """

    name: str
    end_layer: str
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    operations: tuple[keras.Operation, ...]

    @property
    def tensor(self) -> keras.KerasTensor:
        """The output of its end layer, the last tensor of its boundary."""
        return self.outputs[-1]

    @property
    def layers(self) -> tuple[keras.layers.Layer, ...]:
        """The operations that are layers: all that can hold weights, a training mode and a flag."""
        return tuple(op for op in self.operations if isinstance(op, keras.layers.Layer))


@dataclass(frozen=True)
class BlockGraph:
    """A block as it was built.

    Attributes:
        name: Its name.
        units: Its units, input to output.
    """

    name: str
    units: tuple[UnitGraph, ...]

    @property
    def layers(self) -> tuple[keras.layers.Layer, ...]:
        """Layers of all its units, input to output."""
        return tuple(layer for unit in self.units for layer in unit.layers)


@dataclass(frozen=True)
class LayerVariable:
    """A weight or moving statistic by its canonical name; `variable.path` differs between builds.

    Attributes:
        layer: Name of its layer; of the outermost one for a nested model.
        index: Its place in `layer.weights`.
        shape: Its shape.
        variable: The variable itself.
    """

    layer: str
    index: int
    shape: tuple[int, ...]
    variable: keras.Variable


def build_base(
    architecture: Architecture, inputs: keras.KerasTensor, arguments: Mapping[str, Value]
) -> keras.KerasTensor:
    """Builds a base onto a tensor, with random weights and the same layer names each time.

    Args:
        architecture: The catalog's record.
        inputs: (batch, h, w, c), preprocessed by the record's pixel rule.
        arguments: Arguments of the builder that differ from their defaults.

    Returns:
        The base's output: (batch, h', w', c') for a map, (batch, n) for a vector.

    Raises:
        RecipeError: An argument is unknown or out of range.
    """
    values = complete_arguments(architecture, arguments)
    builder = _import_builder(architecture.builder)
    outputs: keras.KerasTensor = builder(inputs, **architecture.settings, **values)
    return outputs


def _import_builder(reference: str) -> Builder:
    module, _, function = reference.partition(":")
    builder: Builder = getattr(importlib.import_module(module), function)
    return builder


def find_cuts(graph: keras.Function) -> tuple[Cut, ...]:
    """Finds the tensors through which every path runs, input to output, the output included.

    Args:
        graph: A functional model, or a `keras.Function` from one tensor of a flat graph to another.
            A nested model in it is one operation, and no cut lies inside.

    Returns:
        The cuts in topological order. An operation with several outputs makes none.
    """
    nodes = sorted_calls(graph)
    sources = _source_positions(nodes)
    # For each position, the farthest position that reads its output; -1 is the graph's input.
    reach = {-1: -1}
    for position, positions in enumerate(sources):
        for source in positions:
            reach[source] = position
    cuts = []
    farthest = reach[-1]
    for position, node in enumerate(nodes):
        if farthest <= position and len(node.outputs) == 1:
            cuts.append(Cut(position, node.operation.name, node.outputs[0]))
        farthest = max(farthest, reach.get(position, -1))
    return tuple(cuts)


def sorted_calls(graph: keras.Function) -> list[Any]:
    """Returns the graph's own calls in topological order, the order of `graph.operations`.

    The layers do not give them: a layer that other models share has more calls.

    Args:
        graph: A functional model, or a `keras.Function`.
    """
    places = {id(operation): place for place, operation in enumerate(graph.operations)}
    by_depth = calls_by_depth(graph)
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in sorted(by_depth[depth], key=lambda node: places[id(node.operation)])
    ]


def _source_positions(nodes: Sequence[Any]) -> list[list[int]]:
    """Returns for each call the positions of the calls whose outputs it reads; -1 for the input."""
    positions = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.outputs}
    return [[positions.get(id(tensor), -1) for tensor in node.input_tensors] for node in nodes]


def find_blocks(
    architecture: Architecture,
    inputs: keras.KerasTensor,
    outputs: keras.KerasTensor | Sequence[keras.KerasTensor],
) -> tuple[BlockGraph, ...]:
    """Reads blocks and units off a base: they partition the graph between two tensors.

    Args:
        architecture: The record whose rules name the units.
        inputs: The tensor that entered the base, after preprocessing.
        outputs: The tensor that left it, before the head; several if the head reads more than one.
            They cross every boundary behind them.

    Raises:
        ValueError: The rules and the graph disagree: more tensors cross from one unit to the next
            than the record's `cut_width`, two units overlap, or operations are left over.
    """
    read = tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)
    graph = keras.Function(inputs, list(read))
    nodes = [node for node in sorted_calls(graph) if not node.is_input]
    members = _group_nodes(architecture, nodes)
    _refuse_overlap([node for _, group in members for node in group], dict(members))
    units = []
    entering = (inputs,)
    for position, (name, group) in enumerate(members):
        later = [node for _, after in members[position + 1 :] for node in after]
        leaving = _find_boundary(entering, group, later, read)
        end = group[-1].operation.name
        handed_on = _find_boundary(entering, group, later, read[-1:])
        if len(handed_on) > architecture.cut_width:
            crossing = ", ".join(producer_of(tensor).name for tensor in handed_on)
            raise ValueError(
                f"Unit {name!r} ends at {end!r}, which is no cut of the graph: {crossing} cross it."
            )
        operations = tuple(dict.fromkeys(node.operation for node in group))
        units.append(UnitGraph(name, end, entering, leaving, operations))
        entering = leaving
    return _group_units(architecture, units)


def _group_nodes(architecture: Architecture, nodes: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Returns the calls of each unit, units in the order in which they end.

    A call whose name belongs to no unit goes to the unit of the next call.
    """
    names = [find_unit_name(architecture, node.operation.name) for node in nodes]
    if not any(names):
        raise ValueError(f"{architecture.name}: no layer of the graph has the name of a unit")
    ends = {name: position for position, name in enumerate(names) if name is not None}
    groups: dict[str, list[Any]] = {name: [] for name in sorted(ends, key=ends.__getitem__)}
    waiting: list[Any] = []
    for name, node in zip(names, nodes, strict=True):
        waiting.append(node)
        if name is not None:
            groups[name] += waiting
            waiting = []
    if waiting:
        left = ", ".join(node.operation.name for node in waiting)
        raise ValueError(f"{architecture.name}: no unit for {left}")
    return list(groups.items())


def _refuse_overlap(ordered: Sequence[Any], groups: Mapping[str, Sequence[Any]]) -> None:
    """Refuses a unit that reads the output of a later unit: the units are no sequence."""
    unit_of = {id(node): name for name, group in groups.items() for node in group}
    positions = {id(node): position for position, node in enumerate(ordered)}
    makers = {id(tensor): node for node in ordered for tensor in node.outputs}
    for node in ordered:
        for tensor in node.input_tensors:
            maker = makers.get(id(tensor))
            if maker is not None and positions[id(maker)] > positions[id(node)]:
                units = ", ".join(sorted({unit_of[id(maker)], unit_of[id(node)]}))
                raise ValueError(f"The units {units} overlap before {node.operation.name!r}.")


def _find_boundary(
    entering: Sequence[keras.KerasTensor],
    unit: Sequence[Any],
    later: Sequence[Any],
    outputs: Sequence[keras.KerasTensor],
) -> tuple[keras.KerasTensor, ...]:
    """Returns the tensors up to the end of a unit that are read after it, oldest first."""
    read = {id(tensor) for node in later for tensor in node.input_tensors} | set(map(id, outputs))
    tensors = [*entering, *(tensor for node in unit for tensor in node.outputs)]
    return tuple(tensor for tensor in tensors if id(tensor) in read)


def _group_units(architecture: Architecture, units: Sequence[UnitGraph]) -> tuple[BlockGraph, ...]:
    seen: set[int] = set()
    groups: dict[str, list[UnitGraph]] = {}
    for unit in units:
        block = find_block_name(architecture, unit.name)
        if block is None:
            raise ValueError(f"{architecture.name}: unit {unit.name!r} belongs to no block")
        if block in groups and block != list(groups)[-1]:
            raise ValueError(f"{architecture.name}: block {block!r} is not one run of units")
        groups.setdefault(block, []).append(unit)
        shared = seen & {id(op) for op in unit.operations}
        if shared:
            raise ValueError(f"{architecture.name}: unit {unit.name!r} shares a layer with another")
        seen |= {id(op) for op in unit.operations}
    return tuple(BlockGraph(name, tuple(members)) for name, members in groups.items())


def layer_variables(layer: keras.layers.Layer) -> tuple[LayerVariable, ...]:
    """Returns the weights and moving statistics of a layer, or nested model, by canonical name.

    Args:
        layer: A layer, or a nested model.
    """
    return tuple(
        LayerVariable(layer.name, index, tuple(variable.shape), variable)
        for index, variable in enumerate(layer.weights)
    )
