"""Test-time augmentation of whole maps: outputs averaged over an image and its mirror images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tl_toolkit.images.tta import View
from tl_toolkit.tasks.dense.predictor import TILE_BYTES, DensePredictor
from tl_toolkit.tasks.dense.task import DenseTask

__all__ = ["MirrorPredictor"]

_WHOLE = View("whole")


class MirrorPredictor:
    """Predicts all pixels of images that a model sees in several views.

    A mirror image is not mirrored back: its pixels are read at mirrored places. Directions in the
    outputs are turned back. Without views it predicts what `DensePredictor` does, to the bit.

    Args:
        predictor: Predicts one view.
        task: Reduces outputs to maps.
        views: The views: the whole image and mirror images of it; none for the image alone.
        band_bytes: Memory for the outputs of a band of rows, which are averaged before they are
            reduced.
    """

    def __init__(
        self,
        predictor: DensePredictor,
        task: DenseTask,
        views: Sequence[View] = (),
        *,
        band_bytes: int = TILE_BYTES,
    ) -> None:
        self._predictor = predictor
        self._task = task
        self._views = tuple(views) or (_WHOLE,)
        self._band_bytes = band_bytes

    def read_maps(self, images: np.ndarray) -> list[list[tf.Tensor]]:
        """Runs the base on each view.

        Args:
            images: RGB in 0..255 (n, views, h, w, 3) of `build_views`.

        Returns:
            For each view the maps, (n, h', w', channels) each.
        """
        return [self._predictor.read_maps(images[:, place]) for place in range(len(self._views))]

    def predict(
        self, maps: Sequence[Sequence[tf.Tensor]], ys: np.ndarray, xs: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Predicts one image at the places where some rows and columns cross.

        Args:
            maps: For each view one image's maps, (h', w', channels) each.
            ys: float32 (rows,), in pixels of the model's image.
            xs: float32 (columns,), likewise.

        Returns:
            The task's maps by name, each (rows, columns, ...).
        """
        if len(self._views) == 1:
            return self._predictor.predict(maps[0], ys, xs, self._task.postprocess)
        row_bytes = max(1, len(xs)) * self._task.units * 4  # float32
        bands = -(-len(ys) * row_bytes // self._band_bytes)
        parts = [
            self._reduce(self._average(maps, rows, xs))
            for rows in np.array_split(ys, max(1, bands))
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _average(
        self, maps: Sequence[Sequence[tf.Tensor]], ys: np.ndarray, xs: np.ndarray
    ) -> np.ndarray:
        """Returns the mean outputs over views, (rows, columns, units)."""
        height, width = self._predictor.image_size
        total = np.zeros((len(ys), len(xs), self._task.units), np.float32)
        for view, tensors in zip(self._views, maps, strict=True):
            rows = height - 1 - ys if 0 in view.axes else ys
            columns = width - 1 - xs if 1 in view.axes else xs
            outputs = self._predictor.predict(tensors, rows, columns, _keep)["outputs"]
            back = np.diag([-1.0 if 1 in view.axes else 1.0, -1.0 if 0 in view.axes else 1.0])
            total += self._task.reader.turn(outputs, back)
        return total / np.float32(len(self._views))

    def _reduce(self, outputs: np.ndarray) -> Mapping[str, np.ndarray]:
        maps = self._task.postprocess(tf.constant(outputs))
        return {name: tensor.numpy() for name, tensor in maps.items()}


def _keep(outputs: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"outputs": outputs}
