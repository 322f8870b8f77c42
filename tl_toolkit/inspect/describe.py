"""An architecture in numbers: blocks, units and layers with shapes, costs and what would train."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tl_toolkit.architectures.costs import GraphCosts, measure_graph
from tl_toolkit.architectures.graph import build_base, find_blocks
from tl_toolkit.architectures.heads import HeadLayers, build_head
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.architectures.taps import find_taps, pad_to_cells
from tl_toolkit.catalog.lookup import Architecture, Unfreeze, resolve_unfreeze
from tl_toolkit.keras_private import calls_of, producer_of
from tl_toolkit.transfer.assemble import HEAD
from tl_toolkit.transfer.freezing import batch_norms

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A block, a unit or a layer in numbers, all for one image.

    Attributes:
        block: Name of the block; `head` for the classifier.
        unit: Name of the unit; None in the row of a block.
        end: Name of the layer that ends it, of the layer itself in the row of a layer.
        kind: Class of the layer; for a block or unit the classes of all its layers, in order.
        shape: Shape of its last output, without the batch.
        outputs: Shapes of all tensors that later rows read of it and of those before it; more than
            one in NASNet and U-Net.
        reads: Names of the units, other than the one before, whose outputs enter it.
        parameters: Its weights, moving statistics included.
        trainable: The weights that a step would change.
        multiply_accumulates: Multiply-accumulates of its convolutions and dense layers.
        receptive_field: Height and width in pixels; None where the whole image is seen.
        activation_bytes: Bytes of the outputs of all its operations in float32.
        formula: How its output size follows from its input size; "" for what has no window.
        connections_per_weight: How many connections share each weight of its kernel; None for what
            has no kernel of its own.
    """

    block: str
    unit: str | None
    end: str
    kind: str
    shape: Shape
    outputs: tuple[Shape, ...]
    reads: tuple[str, ...]
    parameters: int
    trainable: int
    multiply_accumulates: int
    receptive_field: tuple[int, int] | None
    activation_bytes: int
    formula: str = ""
    connections_per_weight: int | None = None


@dataclass(frozen=True)
class Description:
    """An architecture in numbers, for one image.

    Attributes:
        name: Its name in the catalog.
        title: Its name in print.
        image_size: (height, width) in pixels.
        arguments: Arguments of the builder that differ from their defaults.
        blocks: A row for each block, input to output; the head last, if it was asked for.
        units: A row for each unit; `head` is one unit.
        layers: A row for each operation of the base and of the head.
        taps: The layers whose maps a dense task reads by default, finest first, and the channels
            of each.
    """

    name: str
    title: str
    image_size: tuple[int, int]
    arguments: Mapping[str, Any]
    blocks: tuple[Row, ...]
    units: tuple[Row, ...]
    layers: tuple[Row, ...]
    taps: Mapping[str, int]

    @property
    def heading(self) -> str:
        """Its title with the arguments that were chosen."""
        return " ".join([self.title, *(f"{k}={_write(v)}" for k, v in self.arguments.items())])

    @property
    def parameters(self) -> int:
        """All weights: those of `keras.Model.count_params`."""
        return sum(row.parameters for row in self.blocks)

    @property
    def trainable(self) -> int:
        """The weights that a step would change."""
        return sum(row.trainable for row in self.blocks)

    @property
    def multiply_accumulates(self) -> int:
        """Multiply-accumulates of all convolutions and dense layers, for one image."""
        return sum(row.multiply_accumulates for row in self.blocks)

    @property
    def activation_bytes(self) -> int:
        """Bytes of the outputs of all operations in float32, for one image."""
        return sum(row.activation_bytes for row in self.blocks)


def _write(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class _Piece:
    """A unit, or the head, while its rows are written."""

    block: str
    name: str
    end: str
    outputs: tuple[keras.KerasTensor, ...]
    operations: tuple[keras.Operation, ...]
    reads: tuple[str, ...]
    trains: bool


def describe_base(
    architecture: Architecture,
    arguments: Mapping[str, Any],
    image_size: tuple[int, int],
    unfreeze: Unfreeze = 0,
    *,
    num_classes: int | None = None,
) -> Description:
    """Builds a base, with random weights, and counts.

    Args:
        architecture: The catalog's record.
        arguments: Arguments of the builder.
        image_size: (height, width) in pixels.
        unfreeze: As in a recipe's phase, with frozen BatchNormalization.
        num_classes: Adds the paper's classifier for so many classes, which always trains; None
            describes the base alone.

    Raises:
        RecipeError: An argument or `unfreeze` is out of range.
    """
    trained = set(resolve_unfreeze(architecture, unfreeze))
    image = keras.Input((*image_size, 3), dtype="float32", name="image")
    pixels = apply_pixel_rule(image, architecture.pixels)
    features = build_base(architecture, pixels, arguments)
    pieces = _base_pieces(architecture, pixels, features, trained)
    outputs = features
    if num_classes is not None:
        head = HeadLayers.from_values(architecture.head or {})
        outputs = build_head([features], head, units=num_classes, activation="softmax")
        pieces.append(_head_piece(features, outputs))
    costs = measure_graph(image, outputs)
    return Description(
        name=architecture.name,
        title=architecture.title,
        image_size=image_size,
        arguments=dict(arguments),
        blocks=_block_rows(pieces, costs),
        units=tuple(_sum_row([piece], costs, unit=piece.name) for piece in pieces),
        layers=tuple(
            _layer_row(piece, operation, costs)
            for piece in pieces
            for operation in piece.operations
        ),
        taps=_channels_of_taps(architecture, pixels, features, arguments),
    )


def _channels_of_taps(
    architecture: Architecture,
    pixels: keras.KerasTensor,
    features: keras.KerasTensor,
    arguments: Mapping[str, Any],
) -> dict[str, int]:
    padded = pad_to_cells(pixels)
    if padded is not pixels:  # as for a dense task, which reads whole cells
        pixels, features = padded, build_base(architecture, padded, arguments)
    taps = find_taps(architecture, pixels, features)
    return {producer_of(tap).name: tap.shape[-1] for tap in taps}


def _base_pieces(
    architecture: Architecture,
    pixels: keras.KerasTensor,
    features: keras.KerasTensor,
    trained: set[str],
) -> list[_Piece]:
    units = [
        (block.name, unit)
        for block in find_blocks(architecture, pixels, features)
        for unit in block.units
    ]
    makers = {
        id(tensor): unit.name for _, unit in units for op in unit.operations for tensor in _made(op)
    }
    pieces: list[_Piece] = []
    for block, unit in units:
        before = {pieces[-1].name if pieces else None, unit.name}
        read = (makers.get(id(tensor)) for op in unit.operations for tensor in _read(op))
        reads = dict.fromkeys(name for name in read if name is not None and name not in before)
        pieces.append(
            _Piece(
                block, unit.name, unit.end_layer, unit.outputs, unit.operations, tuple(reads),
                unit.name in trained,
            )
        )  # fmt: skip
    return pieces


def _made(operation: keras.Operation) -> Iterable[keras.KerasTensor]:
    return (tensor for node in calls_of(operation) for tensor in node.outputs)


def _read(operation: keras.Operation) -> Iterable[keras.KerasTensor]:
    return (tensor for node in calls_of(operation) for tensor in node.input_tensors)


def _head_piece(features: keras.KerasTensor, outputs: keras.KerasTensor) -> _Piece:
    graph = keras.Function(features, outputs)
    operations = tuple(
        operation
        for operation in graph.operations
        if not isinstance(operation, keras.layers.InputLayer)
        and operation is not producer_of(features)
    )
    end = operations[-1].name
    return _Piece(HEAD, HEAD, end, (outputs,), operations, (), trains=True)


def _block_rows(pieces: Sequence[_Piece], costs: GraphCosts) -> tuple[Row, ...]:
    names = dict.fromkeys(piece.block for piece in pieces)
    return tuple(
        _sum_row([piece for piece in pieces if piece.block == name], costs) for name in names
    )


def _sum_row(pieces: Sequence[_Piece], costs: GraphCosts, *, unit: str | None = None) -> Row:
    """Sums a block or a unit; shape and receptive field are those at its end."""
    operations = [operation for piece in pieces for operation in piece.operations]
    members = costs.select(operations)
    last = pieces[-1]
    field = costs.field(last.outputs[-1])
    own = {piece.name for piece in pieces}
    return Row(
        block=last.block,
        unit=unit,
        end=last.end,
        kind=" ".join(type(operation).__name__ for operation in operations),
        shape=_shape(last.outputs[-1]),
        outputs=tuple(map(_shape, last.outputs)),
        reads=tuple(dict.fromkeys(name for p in pieces for name in p.reads if name not in own)),
        parameters=sum(member.parameters for member in members),
        trainable=sum(_trainable(op) for p in pieces if p.trains for op in p.operations),
        multiply_accumulates=sum(member.multiply_accumulates for member in members),
        receptive_field=None if field is None else field.size,
        activation_bytes=sum(member.activation_bytes for member in members),
    )


def _layer_row(piece: _Piece, operation: keras.Operation, costs: GraphCosts) -> Row:
    (cost,) = costs.select([operation])
    return Row(
        block=piece.block,
        unit=piece.name,
        end=cost.name,
        kind=cost.kind,
        shape=cost.shape,
        outputs=(cost.shape,),
        reads=(),
        parameters=cost.parameters,
        trainable=_trainable(operation) if piece.trains else 0,
        multiply_accumulates=cost.multiply_accumulates,
        receptive_field=cost.receptive_field,
        activation_bytes=cost.activation_bytes,
        formula=cost.formula,
        connections_per_weight=cost.connections_per_weight,
    )


def _shape(tensor: keras.KerasTensor) -> Shape:
    return tuple(tensor.shape[1:])


def _trainable(operation: keras.Operation) -> int:
    """Counts the weights that train; BatchNormalization is frozen at every depth."""
    if not isinstance(operation, keras.layers.Layer):
        return 0
    frozen = {id(weight) for layer in batch_norms(operation) for weight in layer.weights}
    return sum(
        math.prod(weight.shape)
        for weight in operation.trainable_weights
        if id(weight) not in frozen
    )
