"""Which pixels of the image a position of a feature map sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import keras

from tl_toolkit.architectures.windows import Window, find_window

__all__ = ["Axis", "Field", "follow_field"]


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
        """Returns what the output of a window sees.

        Args:
            kernel: How many positions wide the window is.
            stride: Positions from one place of the window to the next.
            before: Positions of padding before the first one.
        """
        step = self.step * stride
        return Axis(
            size=self.size + (kernel - 1) * self.step,
            step=step,
            period=math.lcm(self.period, math.ceil(step)),
            low=self.low - before * self.step,
            high=self.high + (kernel - 1 - before) * self.step,
        )

    def spread(self, kernel: int, stride: int, before: int) -> "Axis":
        """Returns what the output of a transposed window sees.

        Args:
            kernel: How many positions wide the window is.
            stride: Positions of the output for each one of the input.
            before: Positions that are cut off the output at its beginning.
        """
        step = self.step / stride
        return replace(
            self,
            size=self.size + (math.ceil(kernel / stride) - 1) * self.step,
            step=step,
            low=self.low - (kernel - 1 - before) * step,
            high=self.high + before * step,
        )

    def move(self, positions: int) -> "Axis":
        """Returns what a map sees if it begins at a later position.

        Args:
            positions: How many positions later; negative for padding.
        """
        offset = positions * self.step
        return replace(self, low=self.low + offset, high=self.high + offset)


@dataclass(frozen=True)
class Field:
    """Which pixels a position of a feature map sees.

    Attributes:
        axes: Vertical, horizontal.
        reads_whole: Whether a side path, as a squeeze-and-excitation, also reads the whole image.
            The axes are those of the convolutions then.
        is_padded: Whether padding was added on the way.
    """

    axes: tuple[Axis, Axis] = (Axis(), Axis())
    reads_whole: bool = False
    is_padded: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """The receptive field in pixels: height, width."""
        height, width = (math.ceil(axis.size) for axis in self.axes)
        return height, width


def follow_field(
    operation: keras.Operation,
    source: keras.KerasTensor,
    target: keras.KerasTensor,
    entering: Sequence[Field | None],
) -> Field | None:
    """Returns what an operation's output sees, from what its inputs see.

    Args:
        operation: A layer, or an operation without weights. No nested model.
        source: Its first input.
        target: Its output.
        entering: What each of its inputs sees.

    Returns:
        None for what sees the whole image.
    """
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
    if (window := find_window(operation)) is not None:
        return _slide(field, operation, window, source.shape[1:3])
    # An operation that keeps height and width works on each position; any other sees all of it.
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


def _slide(field: Field, operation: keras.Operation, window: Window, sizes: Sequence[int]) -> Field:
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
