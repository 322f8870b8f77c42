"""Windows that slide over feature maps: what they cover, and the size of their output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

__all__ = ["Window", "describe_size", "find_window"]


@dataclass(frozen=True)
class Window:
    """What slides over a feature map; each pair is (height, width).

    Attributes:
        kernel: Positions that it reads along each axis.
        stride: Positions from one place of the window to the next.
        dilation: Positions from one position that it reads to the next.
        is_same: Whether padding keeps the size of the map, but for the stride.
        is_transposed: Whether it spreads each position instead of reading several.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    is_same: bool
    is_transposed: bool

    @property
    def reach(self) -> tuple[int, int]:
        """Positions from the first that it reads to the last, both included."""
        height, width = (
            (kernel - 1) * dilation + 1
            for kernel, dilation in zip(self.kernel, self.dilation, strict=True)
        )
        return height, width


def find_window(operation: keras.Operation) -> Window | None:
    """Returns the window of a convolution or pooling; None for any other operation.

    Args:
        operation: A layer, or an operation without weights.
    """
    kernel = getattr(operation, "kernel_size", None) or getattr(operation, "pool_size", None)
    if kernel is None:
        return None
    return Window(
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


def describe_size(
    operation: keras.Operation,
    source: keras.KerasTensor,
    target: keras.KerasTensor,
    makers: Mapping[int, keras.Operation],
) -> str:
    """Writes how the output size follows from the input size, as "floor((32 - 5)/1) + 1 = 28".

    There is one formula where height and width agree, else one for each. A padding layer before the
    window is part of the formula.

    Args:
        operation: A layer, or an operation without weights.
        source: Its input.
        target: Its output.
        makers: The operation that made each tensor, by the tensor's id.

    Returns:
        The formula; "" for an operation without a window.
    """
    window = find_window(operation)
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
    window: Window, axis: int, size: int, result: int, padding: keras.Operation | None
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
