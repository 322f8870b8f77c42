"""What a graph costs: multiply-accumulates, activations, and which pixels each position sees."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import keras

from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.keras_private import inner_graph, rebuild_graph

__all__ = [
    "Axis",
    "Field",
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
class Axis:
    """Which pixels a position of a feature map sees along one axis of the image.

    Position i sees pixels within `i * step + low` to `i * step + high`.

    Attributes:
        size: Most pixels that a path from the image leads to one position: the receptive field.
        step: Pixels between two neighbours; below 1 where a map is larger than the image.
        period: A shift by this many pixels moves every map on the way by whole positions.
        low: First pixel that position 0 sees; negative where that is padding.
        high: Last pixel that position 0 sees.
    """

    size: Fraction = Fraction(1)
    step: Fraction = Fraction(1)
    period: int = 1
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    def slide(self, kernel: int, stride: int, before: int) -> "Axis":
        """Returns what a window sees: `kernel` positions wide, begun `before` positions earlier."""
        step = self.step * stride
        return Axis(
            size=self.size + (kernel - 1) * self.step,
            step=step,
            period=math.lcm(self.period, math.ceil(step)),
            low=self.low - before * self.step,
            high=self.high + (kernel - 1 - before) * self.step,
        )

    def spread(self, kernel: int, stride: int, before: int) -> "Axis":
        """Returns what a transposed window sees; `before` positions of its output are cut off."""
        step = self.step / stride
        return replace(
            self,
            size=self.size + (math.ceil(kernel / stride) - 1) * self.step,
            step=step,
            low=self.low - (kernel - 1 - before) * step,
            high=self.high + before * step,
        )

    def move(self, positions: int) -> "Axis":
        """Returns what is seen by a map that begins `positions` further on."""
        offset = positions * self.step
        return replace(self, low=self.low + offset, high=self.high + offset)


@dataclass(frozen=True)
class Field:
    """Which pixels a position of a feature map sees.

    Attributes:
        axes: Vertical, horizontal.
        reads_whole: Whether a side path, as a squeeze-and-excitation, also reads the whole image.
            The axes are those of the convolutions then.
        is_padded: Whether padding was drawn in on the way.
    """

    axes: tuple[Axis, Axis] = (Axis(), Axis())
    reads_whole: bool = False
    is_padded: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """The receptive field in pixels: height, width."""
        height, width = (math.ceil(axis.size) for axis in self.axes)
        return height, width


@dataclass(frozen=True)
class LayerCost:
    """One operation in numbers, all for one image.

    Attributes:
        name: Its name.
        kind: Its class.
        shape: Of its last output, without the batch.
        parameters: Its weights, moving statistics included.
        multiply_accumulates: Of its kernels; biases, normalizations and activations count nothing.
        activation_bytes: Of its outputs in float32.
        receptive_field: Height and width in pixels; None where the whole image is seen.
        formula: How its output size follows from its input size; "" for what has no window.
        connections_per_weight: How many connections share each weight of its kernel: the positions
            that the kernel is applied at. None without a kernel.
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
        layers: A cost for each operation but the inputs, in topological order. One that is called
            several times has one row, with the sums of its calls.
        fields: By the id of a tensor; None for what sees the whole image.
    """

    layers: tuple[LayerCost, ...]
    fields: Mapping[int, Field | None]

    def field(self, tensor: keras.KerasTensor) -> Field | None:
        """Returns which pixels a position of a tensor sees; None for the whole image."""
        return self.fields[id(tensor)]

    def select(self, operations: Iterable[keras.Operation]) -> tuple[LayerCost, ...]:
        """Returns the costs of some operations, in the graph's order."""
        names = {operation.name for operation in operations}
        return tuple(cost for cost in self.layers if cost.name in names)


def measure_graph(inputs: keras.KerasTensor, outputs: keras.KerasTensor) -> GraphCosts:
    """Counts what a graph costs for one image, and follows which pixels its tensors see.

    The receptive field is the largest over all paths. Where one input of an operation sees the
    whole image and another does not, as in squeeze-and-excitation, the other one counts: the
    field is that of the path of convolutions, and `Field.reads_whole` tells of the rest.

    Args:
        inputs: Images, (batch, h, w, c), with known height and width.
        outputs: Any tensor drawn from them.
    """
    graph = keras.Function(inputs, outputs)
    fields: dict[int, Field | None] = {}
    rows = _measure_calls(graph, [Field()], fields)
    return GraphCosts(tuple(rows.values()), fields)


def _measure_calls(
    graph: keras.Function, entering: Sequence[Field | None], fields: dict[int, Field | None]
) -> dict[str, LayerCost]:
    """Walks a graph: fills in `fields`, and returns a row by name of operation."""
    inputs = graph.inputs
    fields.update({id(tensor): field for tensor, field in zip(inputs, entering, strict=True)})
    makers: dict[int, keras.Operation] = {}
    rows: dict[str, LayerCost] = {}
    for node in sorted_calls(graph):
        makers.update({id(tensor): node.operation for tensor in node.outputs})
        if node.is_input or all(id(tensor) in fields for tensor in node.outputs):
            continue  # the graph may begin in the middle of a larger one
        row = _measure_call(node, fields, makers)
        earlier = rows.get(row.name)
        rows[row.name] = row if earlier is None else _add_call(earlier, row)
    return rows


def _add_call(earlier: LayerCost, row: LayerCost) -> LayerCost:
    return replace(
        row,
        multiply_accumulates=earlier.multiply_accumulates + row.multiply_accumulates,
        activation_bytes=earlier.activation_bytes + row.activation_bytes,
    )


def _measure_call(
    node: Any, fields: dict[int, Field | None], makers: Mapping[int, keras.Operation]
) -> LayerCost:
    operation, source, target = node.operation, node.input_tensors[0], node.outputs[-1]
    entering = [fields[id(tensor)] for tensor in node.input_tensors]
    if (inner := inner_graph(operation)) is not None:
        # A nested model counts its own operations; its rows are summed into one.
        inner = _settle_size(inner, source.shape)
        nested: dict[int, Field | None] = {}
        rows = list(_measure_calls(inner, entering, nested).values())
        field = nested[id(inner.outputs[-1])]
        accumulates = sum(row.multiply_accumulates for row in rows)
        activations = sum(row.activation_bytes for row in rows)
        shared = None
    else:
        field = _follow(operation, source, target, entering)
        accumulates = count_multiply_accumulates(operation, source.shape, target.shape)
        activations = sum(_FLOAT_BYTES * math.prod(one.shape[1:]) for one in node.outputs)
        shared = _positions(operation, source.shape, target.shape) if accumulates else None
    fields.update({id(tensor): field for tensor in node.outputs})
    is_layer = isinstance(operation, keras.layers.Layer)
    return LayerCost(
        name=operation.name,
        kind=type(operation).__name__,
        shape=tuple(target.shape[1:]),
        parameters=operation.count_params() if is_layer else 0,
        multiply_accumulates=accumulates,
        activation_bytes=activations,
        receptive_field=None if field is None else field.size,
        formula=_size_formula(operation, source, target, makers),
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
        outputs: A tensor drawn from them, or a list of such.
    """
    return sum(
        count_multiply_accumulates(
            node.operation, node.input_tensors[0].shape, node.outputs[0].shape
        )
        for node in sorted_calls(keras.Function(inputs, outputs))
        if node.input_tensors
    )


def _kernel_size(operation: keras.Operation) -> int:
    """Returns how many weights its kernels have."""
    if not isinstance(operation, keras.layers.Layer) or isinstance(operation, _NORMALIZATIONS):
        return 0
    kernels = [weight for weight in operation.weights if len(weight.shape) >= 2]
    constant = getattr(operation, "kernel", None)
    if not kernels and constant is not None:  # one that is fixed, and no variable
        kernels = [constant]
    return sum(math.prod(kernel.shape) for kernel in kernels)


def _positions(
    operation: keras.Operation, source: Sequence[int | None], target: Sequence[int | None]
) -> int:
    is_transposed = isinstance(operation, keras.layers.Conv2DTranspose)
    shape = source if is_transposed else target
    return math.prod(size or 1 for size in shape[1:-1])


# --------------------------------------------------------------------------------- receptive field


def _follow(
    operation: keras.Operation,
    source: keras.KerasTensor,
    target: keras.KerasTensor,
    entering: Sequence[Field | None],
) -> Field | None:
    """Returns what an operation's output sees, from what its inputs see."""
    field = _merge(entering)
    if field is None or len(source.shape) != 4:
        return field
    if isinstance(operation, keras.layers.ZeroPadding2D):
        moves = [-before for before, _ in operation.padding]
        return replace(_move(field, moves), is_padded=True)
    if isinstance(operation, keras.layers.Cropping2D):
        return _move(field, [before for before, _ in operation.cropping])
    if isinstance(operation, keras.layers.UpSampling2D):
        return _magnify(field, operation)
    if (window := _find_window(operation)) is not None:
        return _slide(field, operation, window, source.shape[1:3])
    # Whatever keeps height and width works on each position; what does not has seen all of it.
    return field if source.shape[1:3] == target.shape[1:3] and len(target.shape) == 4 else None


def _merge(entering: Sequence[Field | None]) -> Field | None:
    fields = [field for field in entering if field is not None]
    if not fields:
        return None
    axes = [_join([field.axes[index] for field in fields]) for index in (0, 1)]
    return Field(
        axes=(axes[0], axes[1]),
        reads_whole=len(fields) < len(entering) or any(field.reads_whole for field in fields),
        is_padded=any(field.is_padded for field in fields),
    )


def _join(axes: Sequence[Axis]) -> Axis:
    return Axis(
        size=max(axis.size for axis in axes),
        step=max(axis.step for axis in axes),
        period=math.lcm(*(axis.period for axis in axes)),
        low=min(axis.low for axis in axes),
        high=max(axis.high for axis in axes),
    )


def _move(field: Field, positions: Sequence[int]) -> Field:
    vertical, horizontal = (
        axis.move(count) for axis, count in zip(field.axes, positions, strict=True)
    )
    return replace(field, axes=(vertical, horizontal))


def _magnify(field: Field, layer: keras.layers.UpSampling2D) -> Field:
    vertical, horizontal = (
        # Between two positions anything but "nearest" mixes both.
        axis.spread(factor if layer.interpolation == "nearest" else 2 * factor, factor, 0)
        for axis, factor in zip(field.axes, layer.size, strict=True)
    )
    return replace(field, axes=(vertical, horizontal))


@dataclass(frozen=True)
class _Window:
    """What slides over a map: kernel as wide as its dilation makes it, stride; (height, width)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    is_same: bool
    is_transposed: bool

    @property
    def reach(self) -> tuple[int, int]:
        height, width = (
            (kernel - 1) * dilation + 1
            for kernel, dilation in zip(self.kernel, self.dilation, strict=True)
        )
        return height, width


def _find_window(operation: keras.Operation) -> _Window | None:
    """Returns the window of a convolution or pooling, by the words that Keras's layers use."""
    kernel = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if kernel is None:
        return None
    return _Window(
        kernel=_pair(kernel),
        stride=_pair(getattr(operation, "strides", None) or 1),
        dilation=_pair(getattr(operation, "dilation_rate", None) or 1),
        is_same=getattr(operation, "padding", "valid") == "same",
        is_transposed=isinstance(operation, keras.layers.Conv2DTranspose),
    )


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)


def _slide(
    field: Field, operation: keras.Operation, window: _Window, sizes: Sequence[int]
) -> Field:
    axes = []
    for axis, kernel, stride, size in zip(
        field.axes, window.reach, window.stride, sizes, strict=True
    ):
        if window.is_transposed:
            before = max(kernel - stride, 0) // 2 if window.is_same else 0
            axes.append(axis.spread(kernel, stride, before))
        else:
            missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            axes.append(axis.slide(kernel, stride, missing // 2 if window.is_same else 0))
    is_padded = field.is_padded or (window.is_same and max(window.reach) > 1)
    return replace(field, axes=(axes[0], axes[1]), is_padded=is_padded)


# ----------------------------------------------------------------------------------------- formula


def _size_formula(
    operation: keras.Operation,
    source: keras.KerasTensor,
    target: keras.KerasTensor,
    makers: Mapping[int, keras.Operation],
) -> str:
    """Writes how the output size follows: once where height and width agree, else for each."""
    window = _find_window(operation)
    if window is None or len(source.shape) != 4:
        return ""
    padding = makers.get(id(source))
    if not isinstance(padding, keras.layers.ZeroPadding2D):
        padding = None
    texts = [
        _axis_formula(window, axis, source.shape[1 + axis], target.shape[1 + axis], padding)
        for axis in (0, 1)
    ]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} x {texts[1]}"


def _axis_formula(
    window: _Window, axis: int, size: int, result: int, padding: keras.Operation | None
) -> str:
    kernel, stride, dilation = (
        window.kernel[axis],
        window.stride[axis],
        window.dilation[axis],
    )
    if window.is_transposed:
        text = f"{size}*{stride}" if window.is_same else f"({size} - 1)*{stride} + {kernel}"
        return f"{text} = {result}"
    if window.is_same:
        return f"ceil({size}/{stride}) = {result}"
    before, after = padding.padding[axis] if padding is not None else (0, 0)
    padded = f" + 2*{before}" if before == after else f" + {before} + {after}"
    reach = str(kernel) if dilation == 1 else f"(({kernel} - 1)*{dilation} + 1)"
    text = f"{size - before - after}{padded if before or after else ''} - {reach}"
    return f"floor(({text})/{stride}) + 1 = {result}"
