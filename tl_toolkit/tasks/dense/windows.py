"""Images of any size through a base that was built for one size: in windows.

A convolutional base is the same function of a pixel's surroundings at every image size. A large
image is cut into windows that overlap by what a cell of the maps sees, so that memory does not grow
with the image and no seam is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.costs import measure_graph
from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.architectures.receptive_field import Field
from tl_toolkit.catalog.lookup import PIXEL_STEP

__all__ = ["SizelessBase", "Span", "cut_spans", "pair_spans"]

_LARGEST_MARGIN = 512
"""Pixels; with margins that are half of a window, it has four of them along each side."""


@dataclass(frozen=True)
class Span:
    """A window along one axis of an image.

    Attributes:
        start: Its first pixel, a multiple of PIXEL_STEP.
        stop: The pixel after its last one; beyond the image where that is padded.
        first: The first pixel that is predicted from it.
        last: The pixel after the last one that is.
    """

    start: int
    stop: int
    first: int
    last: int


def cut_spans(length: int, *, window: int, margin: int) -> tuple[Span, ...]:
    """Cuts one axis of an image into windows; each pixel is predicted from one of them.

    Args:
        length: Pixels of the image along the axis, at least 1.
        window: Pixels of a window, a multiple of PIXEL_STEP and more than two margins. An image
            that is no larger, padded to whole cells, is one window.
        margin: Pixels at an inner end of a window that are not predicted from it, likewise a
            multiple.
    """
    padded = _round_up(length)
    if padded <= window:
        return (Span(0, padded, 0, length),)
    starts = [*range(0, padded - window, window - 2 * margin), padded - window]
    ends = [start + window - margin for start in starts[:-1]] + [length]
    firsts = [0, *ends[:-1]]
    return tuple(
        Span(start, start + window, first, last)
        for start, first, last in zip(starts, firsts, ends, strict=True)
    )


def pair_spans(size: tuple[int, int], *, window: int, margin: int) -> Iterator[tuple[Span, Span]]:
    """Yields the rows and the columns of each window of an image.

    Args:
        size: (height, width) of the image.
        window: As in `cut_spans`.
        margin: As in `cut_spans`.
    """
    for rows in cut_spans(size[0], window=window, margin=margin):
        for columns in cut_spans(size[1], window=window, margin=margin):
            yield rows, columns


class SizelessBase:
    """Runs the layers of a base on images of other sizes than it was built for.

    Args:
        image: The model's input of images.
        maps: The outputs, each on a whole stride of the padded image.
        strides: The stride of each.

    Attributes:
        margin: Pixels, a multiple of PIXEL_STEP, from an inner end of a window on which its maps,
            and what is interpolated from them, are those of the whole image; None where there is
            no such number, as a side path (squeeze-and-excitation) reads the whole image, or where
            it is too large for windows to save memory, as in DenseNet.
    """

    def __init__(
        self,
        image: keras.KerasTensor,
        maps: Sequence[keras.KerasTensor],
        strides: Sequence[int],
    ) -> None:
        prepared, entering = _find_entrance(image, maps)
        # Models, for the path through them that sets inference mode in layers.
        self._prepare = None if prepared is image else keras.Model(image, prepared)
        self._base = keras.Model(entering, list(maps))
        costs = measure_graph(image, list(maps))
        self.margin = _find_margin([costs.field(tensor) for tensor in maps], strides)

    def read_window(self, image: np.ndarray, rows: Span, columns: Span) -> list[tf.Tensor]:
        """Returns the maps of one window, (h', w', channels) each.

        Args:
            image: RGB in 0..255 (h, w, 3), the whole of it.
            rows: Those of the window.
            columns: Those of the window.
        """
        x = tf.constant(
            image[np.newaxis, rows.start : rows.stop, columns.start : columns.stop], tf.float32
        )
        # `call`, because the model itself takes images of its own size only.
        if self._prepare is not None:
            x = self._prepare.call(x, training=False)
        # The model pads in the same way: behind the pixel rule, below and at the right.
        missing = (rows.stop - rows.start - x.shape[1], columns.stop - columns.start - x.shape[2])
        x = tf.pad(x, [[0, 0], *([0, count] for count in missing), [0, 0]])
        maps = self._base.call(x, training=False)
        return [tensor[0] for tensor in (maps if isinstance(maps, list) else [maps])]


def _find_entrance(
    image: keras.KerasTensor, maps: Sequence[keras.KerasTensor]
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns the tensor that leaves the pixel rule, and the one that enters the base.

    They are the same tensor unless the model pads its images between them.
    """
    prepared = entering = image
    for call in sorted_calls(keras.Function(image, list(maps))):
        if call.operation.name.startswith("pixels_"):
            entering = call.outputs[0]
            is_pad = call.operation.name == "pixels_pad"
            prepared = call.input_tensors[0] if is_pad else entering
    return prepared, entering


def _find_margin(fields: Sequence[Field | None], strides: Sequence[int]) -> int | None:
    reach = 0
    for field, stride in zip(fields, strides, strict=True):
        if field is None or field.reads_whole:
            return None
        for axis in field.axes:
            if PIXEL_STEP % axis.period:
                return None
            # The centres of the two cells that a pixel is interpolated from lie less than a stride
            # away from it, and so their first pixels less than this before and behind it.
            before, behind = 1.5 * stride, 0.5 * stride
            reach = max(reach, math.ceil(before - axis.low), math.ceil(behind + axis.high))
    margin = _round_up(reach)
    return margin if margin <= _LARGEST_MARGIN else None


def _round_up(pixels: int) -> int:
    return -(-pixels // PIXEL_STEP) * PIXEL_STEP
