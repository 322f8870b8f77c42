"""The outputs for every pixel of an image, from a model that computes single pixels.

The base runs once. The first dense layer is linear, and so is interpolation: each map goes through
its own part of that layer first, at its own size, and what is interpolated and added up are the
results. The numbers are equal, with 35 times less work in that layer for PixelNet at 224 pixels.
Pixels are computed in tiles of image rows, so that memory does not grow with the image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, as_list, connect
from tl_toolkit.architectures.graph import sorted_calls
from tl_toolkit.architectures.sampling import sample_axis
from tl_toolkit.catalog.lookup import PIXEL_STEP
from tl_toolkit.tasks.dense.taps import Tap, find_taps, is_pixel_dense
from tl_toolkit.tasks.dense.windows import SizelessBase, pair_spans

__all__ = ["TILE_BYTES", "WINDOW", "DensePredictor"]

TILE_BYTES = 192 << 20
"""Memory for the largest step of one tile; the measured peak is about twice that."""

WINDOW = 512
"""Side in pixels of the windows that a large image is cut into."""

_FLOAT_BYTES = 4

_PREFIX_BATCH = 4
"""Images per call of the base, as in `tl_toolkit.tasks.dense.task`."""

Reduction = Callable[[tf.Tensor], Mapping[str, tf.Tensor]]
"""Reduces outputs (rows, columns, units) to the maps that are kept, by name."""


@dataclass(frozen=True)
class _PreparedMap:
    """A map (h, w, channels), or its product with the first layer's kernel, (h, w, units)."""

    tensor: tf.Tensor
    projected: bool


class DensePredictor:
    """Predicts all pixels of images.

    Args:
        model: [images, pixels] to outputs, as `assemble` builds it or a run keeps it.
        source: Tensors of the model's graph that batches are values of; by default the images.
        mode: "project_first" as above, also where the first dense layer is the only one;
            "gather_first" interpolates the hypercolumn itself. They differ by the order of sums.
        tile_bytes: Memory for the largest step of a tile, and for each map that goes through the
            first layer as a whole; a larger map does so in parts, tile by tile. Results differ by
            the order of sums: kernels choose it by the size of a tile.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        source: Any = None,
        mode: Literal["project_first", "gather_first"] = "project_first",
        tile_bytes: int = TILE_BYTES,
    ) -> None:
        calls = sorted_calls(keras.Function(model.inputs, model.outputs))
        self._taps = find_taps(calls)
        self._dense = [call.operation for call in calls if is_pixel_dense(call)]
        self._mode = mode
        self._tile_bytes = tile_bytes
        self.image_size = tuple(model.inputs[0].shape[1:3])
        self.channels = model.inputs[0].shape[-1]
        self._model = model
        self._run = connect(
            model.inputs[0] if source is None else source,
            [tap.tensor for tap in self._taps],
            batch_size=_PREFIX_BATCH,
        )
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def read_maps(self, batch: Batch) -> list[tf.Tensor]:
        """Runs the base, or the part of it behind the source, in batches of one size.

        Args:
            batch: RGB in 0..255 (n, h, w, 3), of the model's size; or values of the source's
                tensors.

        Returns:
            The maps, (n, h', w', channels) each.
        """
        return self._run(batch)

    def build_maps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Builds the base's maps of images into a graph.

        Args:
            images: float32 (n, h, w, 3), of the model's size.

        Returns:
            The maps, (n, h', w', channels) each.
        """
        trunk = keras.Model(self._model.inputs[0], [tap.tensor for tap in self._taps])
        return as_list(trunk(images, training=False))  # one map comes without a list

    def build_lines(self, images: tf.Tensor, ys: tf.Tensor, xs: tf.Tensor) -> tf.Tensor:
        """Builds the outputs of an image where rows and columns cross into a graph, as one tile.

        Args:
            images: float32 (1, h, w, channels), of the model's size.
            ys: float32 (rows,), in pixels of the model's image.
            xs: float32 (columns,), likewise.

        Returns:
            float32 (rows, columns, units).
        """
        maps = [tensor[0] for tensor in self.build_maps(images)]
        ready = [
            self._prepare(tap, tensor, True) for tap, tensor in zip(self._taps, maps, strict=True)
        ]
        return self._predict(ready, ys, xs)

    def predict(
        self,
        maps: Sequence[tf.Tensor],
        ys: np.ndarray,
        xs: np.ndarray,
        reduce: Reduction,
    ) -> dict[str, np.ndarray]:
        """Predicts one image at the places where some rows and columns cross.

        Args:
            maps: Maps from `read_maps`, one image's: (h', w', channels) each, of any size.
            ys: float32 (rows,), in pixels of the model's image.
            xs: float32 (columns,), likewise.
            reduce: Returns what is kept of the outputs; one function for all calls: it is compiled.

        Returns:
            The maps of `reduce` by name, each (rows, columns, ...).
        """
        fits = tuple(map(self._fits, maps))
        key = (reduce, fits)
        if key not in self._compiled:
            # One function for images of all sizes: each takes a second to compile, and is kept.
            signature = [
                [tf.TensorSpec((None, None, tensor.shape[-1]), tf.float32) for tensor in maps],
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ]
            self._compiled[key] = tf.function(
                lambda *inputs: self.build_predictions(*inputs, reduce=reduce, fits=fits),
                input_signature=signature,
                autograph=False,
            )
        outputs = self._compiled[key](list(maps), ys, xs)
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    @functools.cached_property
    def _sizeless(self) -> SizelessBase:
        tensors, strides = zip(*((tap.tensor, tap.stride) for tap in self._taps), strict=True)
        return SizelessBase(self._model.inputs[0], tensors, strides)

    @property
    def is_seamless(self) -> bool:
        """Whether `predict_large` gives what the image as one window would.

        It does not where a cell of the maps sees too much: the whole image, by a side path, or
        more than windows can overlap by. Windows then overlap by an eighth of their side, and near
        a seam the prediction lacks what lies beyond it.
        """
        return self._sizeless.margin is not None

    def predict_large(
        self, image: np.ndarray, reduce: Reduction, *, window: int = WINDOW
    ) -> dict[str, np.ndarray]:
        """Predicts all pixels of an image of any size, at its own size.

        The image is not resized to the model's size: objects should be as large in it, in pixels,
        as in the images that the model was trained on. It is padded as the model pads, to
        whole cells; memory is that of a window, whatever the image.

        Args:
            image: RGB in 0..255 (h, w, 3).
            reduce: As in `predict`.
            window: Side of a window in pixels, rounded to whole cells; more where the margins that
                hide its seams would take up more than half of it. An image that is no larger is
                one window.

        Returns:
            The maps of `reduce` by name, each (h, w, ...).
        """
        step = PIXEL_STEP
        margin = self._sizeless.margin
        if margin is None:
            margin = window // 8 // step * step  # nothing hides the seams: it only softens them
        window = max(-(-window // step) * step, 4 * margin, step)
        whole: dict[str, np.ndarray] = {}
        for rows, columns in pair_spans(image.shape[:2], window=window, margin=margin):
            maps = self._sizeless.read_window(image, rows, columns)
            ys, xs = (
                np.arange(span.first - span.start, span.last - span.start, dtype=np.float32)
                for span in (rows, columns)
            )
            for name, part in self.predict(maps, ys, xs, reduce).items():
                if name not in whole:
                    whole[name] = np.empty((*image.shape[:2], *part.shape[2:]), part.dtype)
                whole[name][rows.first : rows.last, columns.first : columns.last] = part
        return whole

    def build_predictions(
        self,
        maps: Sequence[tf.Tensor],
        ys: tf.Tensor,
        xs: tf.Tensor,
        *,
        reduce: Reduction,
        fits: Sequence[bool] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Builds `predict` into a graph; results as there, as tensors.

        Args:
            maps: As in `predict`.
            ys: float32 (rows,).
            xs: float32 (columns,).
            reduce: As in `predict`.
            fits: Whether each map may go through the first layer as a whole; by default their
                shapes decide, which must be known then.
        """
        rows, columns = tf.shape(ys)[0], tf.shape(xs)[0]
        fits = tuple(map(self._fits, maps)) if fits is None else fits
        ready = [self._prepare(*args) for args in zip(self._taps, maps, fits, strict=True)]
        height, tiles = self._cut_tiles(rows, columns, ready)
        # The last tile repeats the last row up to its full height.
        padded = tf.gather(ys, tf.minimum(tf.range(tiles * height), rows - 1))

        def predict_tile(tile: tf.Tensor) -> dict[str, tf.Tensor]:
            return dict(reduce(self._predict(ready, tile, xs)))

        shape = (1, 1, self._dense[-1].units)
        probe = reduce(tf.zeros(shape, tf.float32))
        outputs = tf.map_fn(
            predict_tile,
            tf.reshape(padded, (tiles, height)),
            parallel_iterations=1,
            fn_output_signature={name: tensor.dtype for name, tensor in probe.items()},
        )
        return {
            name: tf.reshape(tensor, (tiles * height, columns, *probe[name].shape[2:]))[:rows]
            for name, tensor in outputs.items()
        }

    def _cut_tiles(
        self, rows: tf.Tensor, columns: tf.Tensor, ready: Sequence[_PreparedMap]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the height of the tiles in image rows, and how many tiles there are."""
        widest = max(layer.units for layer in self._dense)
        if self._mode == "gather_first":
            floats = max(widest, 2 * self._taps[-1].stop)  # the parts, and the parts in one
        else:
            floats = max(widest, self._dense[0].units * len(self._taps))
        # A map that is projected row by row is as wide as it is before columns are interpolated.
        widths = [tf.shape(entry.tensor)[1] for entry in ready if not entry.projected]
        pixels = min(self._tile_bytes // (floats * _FLOAT_BYTES), tf.int32.max)
        height = tf.clip_by_value(pixels // tf.reduce_max([columns, *widths]), 1, rows)
        tiles = -(-rows // height)
        return -(-rows // tiles), tiles

    def _fits(self, tensor: tf.Tensor) -> bool:
        """Returns whether the first layer's product with a map is no larger than a tile may be."""
        cells = tensor.shape[0] * tensor.shape[1]
        return bool(cells * self._dense[0].units * _FLOAT_BYTES <= self._tile_bytes)

    def _prepare(self, tap: Tap, tensor: tf.Tensor, fits: bool) -> _PreparedMap:
        """Takes a map through its part of the first layer, unless the result is too large."""
        if self._mode == "project_first" and fits:
            return _PreparedMap(self._project(tap, tensor), projected=True)
        return _PreparedMap(tensor, projected=False)

    def _project(self, tap: Tap, part: tf.Tensor) -> tf.Tensor:
        return tf.tensordot(part, self._dense[0].kernel[tap.start : tap.stop], 1)

    def _predict(self, ready: Sequence[_PreparedMap], ys: tf.Tensor, xs: tf.Tensor) -> tf.Tensor:
        """Returns the outputs (rows, columns, units) of one tile."""
        columns = []
        for tap, entry in zip(self._taps, ready, strict=True):
            part = _read(entry.tensor[tf.newaxis], ys, tap.stride, axis=1)
            if self._mode == "project_first" and not entry.projected:
                part = self._project(tap, part)
            columns.append(self._sample_columns(part, xs, tap.stride)[0])
        first_layer, *later = self._dense
        if self._mode == "gather_first":
            x = first_layer(tf.concat(columns, axis=-1))
        else:
            x = first_layer.activation(tf.add_n(columns) + first_layer.bias)
        for layer in later:
            x = layer(x)
        return x

    def _sample_columns(self, part: tf.Tensor, xs: tf.Tensor, stride: int) -> tf.Tensor:
        """Interpolates the columns of a tile: (1, rows, w, channels) to (1, rows, columns, ...).

        After the first layer they are wide, and a product with the matrix of the weights, mostly
        zeros, goes through memory once where look-ups go five times.
        """
        if self._mode == "gather_first" or stride == 1:
            return _read(part, xs, stride, axis=2)
        identity = tf.eye(tf.shape(part)[2])[tf.newaxis, :, :, tf.newaxis]
        weights = sample_axis(identity, xs, stride, axis=1)[0, :, :, 0]
        return tf.matmul(weights, part)


def _read(cells: tf.Tensor, places: tf.Tensor, stride: int, *, axis: int) -> tf.Tensor:
    """Reads a map along an axis as `sample_axis` does; where nothing lies between, without sums."""

    def between() -> tf.Tensor:
        return sample_axis(cells, places, stride, axis=axis)

    def at() -> tf.Tensor:
        last = tf.cast(tf.shape(cells)[axis] - 1, places.dtype)
        return tf.gather(cells, tf.cast(tf.clip_by_value(places, 0, last), tf.int32), axis=axis)

    if stride > 1:
        return between()
    return tf.cond(tf.reduce_all(places == tf.floor(places)), at, between)
