"""What a graph costs: multiply-accumulates, activations, and which pixels each position sees."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.architectures.receptive_field import Field, follow_field
from tl_toolkit.architectures.windows import describe_size
from tl_toolkit.keras_private import Call, inner_graph, rebuild_graph

__all__ = [
    "GraphCosts",
    "LayerCost",
    "count_graph",
    "count_multiply_accumulates",
    "measure_graph",
]

_FLOAT_BYTES = 4  # activations are counted as float32
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.Normalization,
)


@dataclass(frozen=True)
class LayerCost:
    """An operation in numbers, all for one image.

    Attributes:
        name: Its name.
        kind: Its class.
        shape: Shape of its last output, without the batch.
        parameters: Its weights, moving statistics included.
        multiply_accumulates: Multiply-accumulates of its kernels; biases, normalizations and
            activations are not counted.
        activation_bytes: Bytes of its outputs in float32.
        receptive_field: Height and width in pixels; None where the whole image is seen.
        formula: How its output size follows from its input size; "" for what has no window.
        connections_per_weight: How many connections share each weight of its kernel: the number of
            positions where the kernel is applied. None without a kernel.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_accumulates: int
    activation_bytes: int
    receptive_field: tuple[int, int] | None
    formula: str = ""
    connections_per_weight: int | None = None


@dataclass(frozen=True)
class GraphCosts:
    """The costs of a graph's operations, and what its tensors see.

    Attributes:
        layers: A cost for each operation but the inputs, in topological order. An operation
            that is called several times has one cost, with the sums of its calls.
        fields: Fields by the id of a tensor; None for a tensor that sees the whole image.
    """

    layers: tuple[LayerCost, ...]
    fields: Mapping[int, Field | None]

    def field(self, tensor: keras.KerasTensor) -> Field | None:
        """Returns which pixels a position of a tensor sees; None for the whole image.

        Args:
            tensor: Any tensor of the graph.
        """
        return self.fields[id(tensor)]

    def select(self, operations: Iterable[keras.Operation]) -> tuple[LayerCost, ...]:
        """Returns the costs of some operations, in the graph's order.

        Args:
            operations: Operations of the graph; inputs cost nothing.
        """
        names = {operation.name for operation in operations}
        return tuple(cost for cost in self.layers if cost.name in names)


def measure_graph(inputs: keras.KerasTensor, outputs: keras.KerasTensor) -> GraphCosts:
    """Counts what a graph costs for one image, and follows which pixels its tensors see.

    The receptive field is the largest over all paths. Where one input of an operation sees the
    whole image and another does not, as in squeeze-and-excitation, the second one counts: the
    field is that of the path of convolutions, and `Field.reads_whole` says so.

    Args:
        inputs: Images, (batch, h, w, c), with known height and width.
        outputs: Any tensor computed from them.
    """
    graph = keras.Function(inputs, outputs)
    fields: dict[int, Field | None] = {}
    costs = _measure_calls(graph, [Field()], fields)
    return GraphCosts(tuple(costs.values()), fields)


def _measure_calls(
    graph: keras.Function, entering: Sequence[Field | None], fields: dict[int, Field | None]
) -> dict[str, LayerCost]:
    """Walks a graph: fills in `fields`, and returns the costs by name of operation."""
    pairs = zip(graph.inputs, entering, strict=True)
    fields.update({id(tensor): field for tensor, field in pairs})
    makers: dict[int, keras.Operation] = {}
    costs: dict[str, LayerCost] = {}
    for call in sorted_calls(graph):
        makers.update({id(tensor): call.operation for tensor in call.outputs})
        if call.is_input or all(id(tensor) in fields for tensor in call.outputs):
            continue  # the graph may begin in the middle of a larger one
        cost = _measure_call(call, fields, makers)
        earlier = costs.get(cost.name)
        costs[cost.name] = cost if earlier is None else _add_call(earlier, cost)
    return costs


def _add_call(earlier: LayerCost, cost: LayerCost) -> LayerCost:
    return replace(
        cost,
        multiply_accumulates=earlier.multiply_accumulates + cost.multiply_accumulates,
        activation_bytes=earlier.activation_bytes + cost.activation_bytes,
    )


def _measure_call(
    call: Call, fields: dict[int, Field | None], makers: Mapping[int, keras.Operation]
) -> LayerCost:
    operation, source, target = call.operation, call.input_tensors[0], call.outputs[-1]
    entering = [fields[id(tensor)] for tensor in call.input_tensors]
    if (inner := inner_graph(operation)) is not None:
        # A nested model counts its own operations; their costs are summed.
        inner = _settle_size(inner, source.shape)
        nested: dict[int, Field | None] = {}
        costs = list(_measure_calls(inner, entering, nested).values())
        field = nested[id(inner.outputs[-1])]
        accumulates = sum(cost.multiply_accumulates for cost in costs)
        activations = sum(cost.activation_bytes for cost in costs)
        shared = None
    else:
        field = follow_field(operation, source, target, entering)
        accumulates = count_multiply_accumulates(operation, source.shape, target.shape)
        activations = sum(_FLOAT_BYTES * math.prod(tensor.shape[1:]) for tensor in call.outputs)
        shared = _positions(operation, source.shape, target.shape) if accumulates else None
    fields.update({id(tensor): field for tensor in call.outputs})
    is_layer = isinstance(operation, keras.layers.Layer)
    return LayerCost(
        name=operation.name,
        kind=type(operation).__name__,
        shape=tuple(target.shape[1:]),
        parameters=operation.count_params() if is_layer else 0,
        multiply_accumulates=accumulates,
        activation_bytes=activations,
        receptive_field=None if field is None else field.size,
        formula=describe_size(operation, source, target, makers),
        connections_per_weight=shared,
    )


def _settle_size(graph: keras.Function, shape: Sequence[int | None]) -> keras.Function:
    """Returns the graph of a nested model for inputs of a shape, if it was built for any size."""
    if len(graph.inputs) > 1 or None not in graph.inputs[0].shape[1:]:
        return graph
    inputs = keras.Input(shape[1:])
    outputs = rebuild_graph(graph, inputs, lambda operation, *args, **kw: operation(*args, **kw))
    return keras.Function(inputs, outputs)


# -------------------------------------------------------------------------------------- arithmetic


def count_multiply_accumulates(
    operation: keras.Operation, source: Sequence[int | None], target: Sequence[int | None]
) -> int:
    """Counts the multiply-accumulates of one call for one image.

    Every weight of a kernel is used once at each position: of the output, or of the input in a
    transposed convolution. That holds for plain, grouped, depthwise, separable and table
    convolutions and for dense layers; any other layer that has a weight of two or more axes, and
    is no normalization, is counted so too.

    Args:
        operation: A layer, or an operation without weights. No nested model.
        source: Shape of its input, the batch first.
        target: Shape of its output, the batch first.
    """
    return _kernel_size(operation) * _positions(operation, source, target)


def count_graph(inputs: keras.KerasTensor, outputs: Any) -> int:
    """Counts the multiply-accumulates of a graph for one image; roughly inside nested models.

    Args:
        inputs: Images, (batch, h, w, c), with known height and width.
        outputs: A tensor computed from them, or a list of such.
    """
    return sum(
        count_multiply_accumulates(
            call.operation, call.input_tensors[0].shape, call.outputs[0].shape
        )
        for call in sorted_calls(keras.Function(inputs, outputs))
        if call.input_tensors
    )


def _kernel_size(operation: keras.Operation) -> int:
    """Returns how many weights its kernels have."""
    if not isinstance(operation, keras.layers.Layer) or isinstance(operation, _NORMALIZATIONS):
        return 0
    kernels = [weight for weight in operation.weights if len(weight.shape) >= 2]
    constant = getattr(operation, "kernel", None)
    if not kernels and constant is not None:  # fixed values, no variable
        kernels = [constant]
    return sum(math.prod(kernel.shape) for kernel in kernels)


def _positions(
    operation: keras.Operation, source: Sequence[int | None], target: Sequence[int | None]
) -> int:
    is_transposed = isinstance(operation, keras.layers.Conv2DTranspose)
    shape = source if is_transposed else target
    return math.prod(size or 1 for size in shape[1:-1])
