"""The direction that the surface faces at each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.dense.png import read_png, scale_from_8_bits, scale_to_unit
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.task import DenseTask
from tl_toolkit.tasks.normals import maps
from tl_toolkit.tasks.normals.spec import NormalsSection
from tl_toolkit.tasks.registry import layers_of, values_of
from tl_toolkit.tasks.resampling import Sample

__all__ = ["NormalReader", "NormalMetric", "Normals", "measure_angles"]

_SHORTEST = 0.5
"""Vectors below this length are no normals, as the grey (128, 128, 128) of many data sets."""

_LONGEST = 1.1
"""No unit vector is coded as one above this length: black would be (-1, -1, -1), 1.73."""

_WITHIN = (11.25, 22.5, 30.0)
_SHARES = [f"within_{limit:g}".replace(".", "_") for limit in _WITHIN]
"""The angles in degrees that predictions are counted within (Fouhey et al., 2013)."""

_BINS_PER_DEGREE = 100


class NormalReader:
    """Reads maps of normals, as a TargetReader; all pixels with a normal are sampled alike.

    Red, green and blue are x, y and z from -1 (0) to 1 (the greatest value). x points to the right
    and y up, which matters only where images are turned in training.

    Args:
        ignore: Colour, of 8 bits, of pixels without a normal, or one value for all of its channels;
            in files of 16 bits, 257 times it.
    """

    dtype: type[Any] = np.float32
    ignored = 0.0
    num_sampling_groups = 1
    fault = "are no maps of normals"
    expected = "Expected RGB PNG files of 8 or 16 bits, where a colour is a vector of length 1."
    hint = "data.masks.ignore=[0, 0, 0] if that is the colour of pixels without a normal"

    def __init__(self, ignore: int | tuple[int, int, int] | None = None) -> None:
        self._ignore = ignore

    def read(self, path: str) -> np.ndarray:
        """Reads the normals.

        Args:
            path: An RGB PNG file of 8 or 16 bits.

        Returns:
            float32 (h, w, 3), of length 1; zeros for pixels without one.

        Raises:
            OSError: It cannot be read.
            ValueError: It is no PNG file, is grey, or holds vectors that are far longer than 1.
        """
        pixels = read_png(path)
        if pixels.shape[-1] != 3:
            raise ValueError("a grey image")
        vectors = 2 * scale_to_unit(pixels) - 1
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        none = lengths < _SHORTEST
        if self._ignore is not None:
            ignored = scale_from_8_bits(self._ignore, pixels.dtype)
            none |= (pixels == ignored).all(axis=-1, keepdims=True)
        _refuse_long(pixels, np.where(none, 0, lengths)[..., 0])
        return np.where(none, 0, vectors / np.where(none, 1, lengths)).astype(np.float32)

    def sampling_groups(self, target: np.ndarray) -> np.ndarray:
        """Returns 0 for every pixel with a normal, else IGNORE.

        Args:
            target: As in `read`.
        """
        return np.where(target.any(axis=-1), 0, IGNORE).astype(np.uint8)

    def turn(self, target: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Returns the normals turned with their image: x and y, which points up here, down there.

        Args:
            target: As in `read`.
            turn: As in `TargetReader.turn`.
        """
        x, y = target[..., 0], -target[..., 1]
        turned = (turn[0, 0] * x + turn[0, 1] * y, -(turn[1, 0] * x + turn[1, 1] * y))
        return np.stack([*turned, target[..., 2]], axis=-1).astype(np.float32)


def _refuse_long(pixels: np.ndarray, lengths: np.ndarray) -> None:
    long = lengths > _LONGEST
    if long.any():
        worst = np.unravel_index(lengths.argmax(), lengths.shape)
        color = ", ".join(map(str, pixels[worst].tolist()))
        raise ValueError(
            f"{int(long.sum()):,} pixels of lengths up to {lengths.max():.2f}, as ({color})"
        )


def build(recipe: Recipe, classes: Sequence[str]) -> Normals:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe, with its head resolved.
        classes: Of no use: pixels are of no class.
    """
    ignore = recipe.data.masks.ignore if recipe.data.masks is not None else None
    return Normals(
        PixelSettings(**values_of(recipe.pixels)), NormalReader(ignore), layers_of(recipe)
    )


class Normals(DenseTask):
    """Angular loss over the sampled pixels; the score is the share of them within 22.5 degrees.

    Args:
        pixels: How pixels are read and sampled.
        reader: Reads maps of normals.
        head: Hidden layers and dropout of the predictor.
    """

    score = NormalsSection.score
    units = 3
    activation = "linear"
    picture = maps.PICTURE
    targets = tf.TensorSpec((None, None, 3), tf.float32)

    def __init__(
        self,
        pixels: PixelSettings = PixelSettings(),  # noqa: B008  (frozen)
        reader: NormalReader | None = None,
        head: HeadLayers = HeadLayers(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__((), pixels, reader or NormalReader(), head)

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each image, and how many of its pixels are within 22.5 degrees.

        The loss of a pixel is 1 minus the cosine of the angle to its normal. That is PixelNet's
        `||n / |n| - g||^2 / 2` (Bansal et al., 2016), as both vectors have length 1.

        Args:
            outputs: Vectors (batch, pixels, 3), of any length from 1e-3 on.
            targets: float32 (batch, pixels, 3), of length 1; zeros count nowhere.

        Returns:
            float32 (batch,); int32 (batch, 2): pixels within 22.5 degrees, and pixels.
        """
        counted = tf.reduce_any(targets != 0, axis=-1)
        # The gradient at a vector of no length is 1e3 and not the default's 1e6.
        unit = tf.math.l2_normalize(outputs, axis=-1, epsilon=1e-6)
        cosines = tf.reduce_sum(unit * targets, axis=-1)
        pixels = tf.reduce_sum(tf.cast(counted, tf.float32), axis=-1)
        losses = tf.where(counted, 1 - cosines, 0.0)
        within = counted & (cosines >= np.float32(np.cos(np.radians(22.5))))
        state = [tf.reduce_sum(tf.cast(flags, tf.int32), axis=-1) for flags in (within, counted)]
        return tf.math.divide_no_nan(tf.reduce_sum(losses, axis=-1), pixels), tf.stack(state, -1)

    def as_numbers(self, targets: np.ndarray) -> np.ndarray:
        """Returns the three coordinates of normals as they are.

        Args:
            targets: (pixels, 3).
        """
        return targets

    def score_of(self, state: np.ndarray) -> float:
        """Returns the share of pixels within 22.5 degrees, 0 without any.

        Args:
            state: (2,), as in `compare`.
        """
        within, pixels = state
        return float(within / pixels) if pixels else 0.0

    def postprocess(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the maps that are computed from outputs.

        Args:
            outputs: float32 (..., 3).

        Returns:
            `normal`, float32 (..., 3), of length 1.
        """
        return {"normal": tf.math.l2_normalize(outputs, axis=-1)}

    def build_metric(self) -> NormalMetric:
        """Builds the metric that compares whole maps with whole maps of normals."""
        return NormalMetric()

    def render(self, prediction: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
        """Returns a prediction as an RGB image of 8 bits, coded as the files of targets.

        Args:
            prediction: Maps from `postprocess`, (h, w, 3).
            palette: Not used.
        """
        return maps.render(prediction, palette)

    def list_colors(self, palette: np.ndarray) -> Mapping[str, Sequence[int]]:
        """Returns the colours of the normals along each axis.

        Args:
            palette: Not used.
        """
        return maps.list_colors(palette)


def measure_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the angles in degrees, float64 in [0, 180], between vectors (..., 3) of length 1.

    The sum and the difference of the two lose no digits near 0 and 180, as a cosine does.

    Args:
        first: Vectors.
        second: Vectors.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    difference = np.linalg.norm(first - second, axis=-1)
    halves = np.arctan2(difference, np.linalg.norm(first + second, axis=-1))
    return np.asarray(np.degrees(2 * halves))


class NormalMetric:
    """Compares predicted normals with targets, image by image."""

    def __init__(self) -> None:
        self._sums: list[list[float]] = []  # of each image
        self._angles = _Angles()
        self._facing = _Angles()

    def add(self, prediction: Mapping[str, np.ndarray], target: np.ndarray) -> dict[str, float]:
        """Adds an image.

        Args:
            prediction: Maps from `postprocess`, (h, w, 3).
            target: float32 (h, w, 3), of length 1, or zeros.

        Returns:
            The metrics of this image alone.
        """
        counted = target.any(axis=-1)
        angles = measure_angles(prediction["normal"][counted], target[counted])
        self._angles.add(angles)
        self._facing.add(measure_angles(np.array([0.0, 0.0, 1.0]), target[counted]))
        alone = _Angles()
        alone.add(angles)
        self._sums.append(alone.sums)
        return alone.result()

    def result(self) -> dict[str, Any]:
        """Returns the metrics over all pixels of all images.

        Returns:
            - mean_angle, median_angle, rmse_angle: of the angles to the targets, in degrees.
              The median is off by at most 0.005 degrees;
            - within_11_25, within_22_5, within_30: share of pixels up to so many degrees;
            - pixels and images;
            - facing: the same metrics for a constant prediction, a surface that faces the viewer.

            All 0 where no pixel has a normal.
        """
        return {
            "images": len(self._sums),
            "pixels": self._angles.pixels,
            **self._angles.result(),
            "facing": self._facing.result(),
        }

    def sample(self) -> Sample:
        """Returns the images as all metrics but the median are computed from them."""
        sums = np.array(self._sums)

        def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
            pixels, angles, squares, *within = (counts @ sums).T
            pixels = np.maximum(pixels, 1)
            return {
                "mean_angle": angles / pixels,
                "rmse_angle": np.sqrt(squares / pixels),
                **{name: count / pixels for name, count in zip(_SHARES, within, strict=True)},
            }

        return Sample(len(self._sums), measure)


class _Angles:
    """Sums over angles, and their histogram."""

    def __init__(self) -> None:
        self.pixels = 0
        self._sum = 0.0
        self._squares = 0.0
        self._within = np.zeros(len(_WITHIN), np.int64)
        self._histogram = np.zeros(180 * _BINS_PER_DEGREE, np.int64)

    def add(self, angles: np.ndarray) -> None:
        self.pixels += len(angles)
        self._sum += float(angles.sum())
        self._squares += float((angles**2).sum())
        self._within += [int((angles <= limit).sum()) for limit in _WITHIN]
        bins = np.minimum((angles * _BINS_PER_DEGREE).astype(int), len(self._histogram) - 1)
        self._histogram += np.bincount(bins, minlength=len(self._histogram))

    @property
    def sums(self) -> list[float]:
        """Pixels, angles, their squares, and pixels within each limit."""
        return [self.pixels, self._sum, self._squares, *map(int, self._within)]

    def result(self) -> dict[str, float]:
        pixels = max(self.pixels, 1)
        shares = {
            name: float(count / pixels) for name, count in zip(_SHARES, self._within, strict=True)
        }
        return {
            "mean_angle": self._sum / pixels,
            "median_angle": self._median() if self.pixels else 0.0,
            "rmse_angle": float(np.sqrt(self._squares / pixels)),
            **shares,
        }

    def _median(self) -> float:
        """Returns the middle of the bin that holds the median, the lower one of an even number."""
        place = np.searchsorted(np.cumsum(self._histogram), (self.pixels + 1) // 2)
        return float((place + 0.5) / _BINS_PER_DEGREE)
