"""The probability of an edge for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.images.manifest import Example
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.dense.png import read_png, scale_from_8_bits, scale_to_unit
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.targets import Targets
from tl_toolkit.tasks.dense.task import DenseTask
from tl_toolkit.tasks.edges import maps
from tl_toolkit.tasks.edges.boundaries import (
    THRESHOLDS,
    BoundaryCounts,
    count_matches,
    find_ridges,
    sample_boundaries,
    summarize,
)
from tl_toolkit.tasks.edges.sobel import measure_gradient
from tl_toolkit.tasks.edges.spec import EdgesSection
from tl_toolkit.tasks.registry import layers_of, values_of
from tl_toolkit.tasks.resampling import Sample
from tl_toolkit.tasks.types import Resize

__all__ = ["EdgeMetric", "EdgeReader", "Edges", "ThinTargets"]

_FOCUS = 2.0
"""The exponent of the focal loss (Lin et al., 2017)."""

_IS_EDGE = 0.5
"""The least fraction of annotators at which a pixel of the target is an edge."""

_BINS = 100
"""Steps of the probability in a state."""


class ThinTargets(Targets):
    """Maps of edges that are thinned at the model's size, and whole as their files have them."""

    def fit(self, target: np.ndarray) -> np.ndarray:
        """Returns a target of the model's size, in which lines are one pixel wide.

        Args:
            target: As its file has it.
        """
        resized = super().fit(target)
        edges = resized >= _IS_EDGE
        beside = edges & ~find_ridges(edges.astype(np.float64))
        return np.where(beside, np.float32(0), resized)


class EdgeReader:
    """Reads maps of edges, as a TargetReader; pixels are sampled by whether they are an edge.

    Args:
        ignore: Value, of 8 bits, of pixels that count nowhere; in files of 16 bits, 257 times it.
    """

    dtype: type[Any] = np.float32
    ignored = -1.0
    num_sampling_groups = 2
    fault = "are no maps of edges"
    expected = "Expected grey PNG files: black for no edge, white for one that all annotators saw."
    hint = ""

    def __init__(self, ignore: int | None = None) -> None:
        self._ignore = ignore

    def read(self, path: str) -> np.ndarray:
        """Reads the fraction of annotators who saw an edge.

        Args:
            path: A grey PNG file of 8 or 16 bits.

        Returns:
            float32 (h, w) in [0, 1]; -1 for pixels that count nowhere.

        Raises:
            OSError: It cannot be read.
            ValueError: It is no PNG file, has colours, or holds 1 for an edge.
        """
        pixels = read_png(path)
        if (pixels != pixels[..., :1]).any():
            raise ValueError("a colour image")
        values = pixels[..., 0]
        if values.max() == 1:
            raise ValueError(f"no value above 1; an edge is {np.iinfo(values.dtype).max}")
        target = scale_to_unit(values)
        if self._ignore is not None:
            target[values == scale_from_8_bits(self._ignore, values.dtype)] = self.ignored
        return target

    def sampling_groups(self, target: np.ndarray) -> np.ndarray:
        """Returns 1 for an edge, 0 for none, IGNORE for pixels that count nowhere.

        Args:
            target: As in `read`.
        """
        return np.where(target < 0, IGNORE, target >= _IS_EDGE).astype(np.uint8)

    def turn(self, target: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Returns the fractions as they are.

        Args:
            target: As in `read`.
            turn: Not used: a fraction has no direction.
        """
        return target


def build(recipe: Recipe, classes: Sequence[str]) -> Edges:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe, with its head resolved.
        classes: Of no use: pixels are of no class.
    """
    section = recipe.task
    if not isinstance(section, EdgesSection):
        raise TypeError(f"task: expected edges, got {section.kind}")
    ignore = recipe.data.masks.ignore if recipe.data.masks is not None else None
    return Edges(
        PixelSettings(**{**values_of(recipe.pixels), **section.balanced_pixels}),
        EdgeReader(ignore if isinstance(ignore, int) else None),
        layers_of(recipe),
        thin=section.thin,
        yardstick="sobel" if recipe.yardsticks else "",
    )


class Edges(DenseTask):
    """Cross-entropy, or focal loss, with a sigmoid over the sampled pixels; scored by an F-measure.

    Args:
        pixels: How pixels are read and sampled. With balanced class weights, edges and background
            of an image have the same total weight, however few pixels there are of either, as in
            HED (Xie and Tu, 2015): the weight of each is the share of the rest, among the pixels
            sampled of that image. An image of which only one kind was sampled counts all its pixels
            alike; HED has no loss there. Without class weights all pixels count alike.
        reader: Reads maps of edges.
        head: Hidden layers and dropout of the predictor.
        thin: Learn edges one pixel wide.
        yardstick: sobel measures the gradient of each image beside the model; "" leaves it out.
    """

    score = EdgesSection.score
    final_score = EdgesSection.final_score
    units = 1
    activation = "sigmoid"
    picture = maps.PICTURE
    targets = tf.TensorSpec((None, None), tf.float32)

    def __init__(
        self,
        pixels: PixelSettings = PixelSettings(),  # noqa: B008  (frozen)
        reader: EdgeReader | None = None,
        head: HeadLayers = HeadLayers(),  # noqa: B008  (frozen)
        *,
        thin: bool = False,
        yardstick: str = "",
    ) -> None:
        super().__init__((), pixels, reader or EdgeReader(), head)
        self._thin = thin
        self.yardstick = yardstick
        self._balanced = pixels.class_weights == "balanced"
        self._cross_entropy = keras.losses.binary_crossentropy
        if pixels.loss == "focal":
            self._cross_entropy = partial(keras.losses.binary_focal_crossentropy, gamma=_FOCUS)

    def load_targets(
        self, examples: Sequence[Example], size: tuple[int, int], resize: Resize
    ) -> Targets:
        """Returns the maps of edges of a split, read when they are first asked for.

        Args:
            examples: As in `DenseTask.load_targets`.
            size: As in `DenseTask.load_targets`.
            resize: As in `DenseTask.load_targets`.
        """
        kind = ThinTargets if self._thin else Targets
        return kind(examples, self.reader, image_size=size, resize=resize)

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each image, and the probabilities of its edges and background.

        Args:
            outputs: Probabilities (batch, pixels, 1).
            targets: float32 (batch, pixels), fractions of annotators, the targets of the
                cross-entropy; -1 counts nowhere.

        Returns:
            float32 (batch,); int32 (batch, 200): pixels that are no edge, in 100 bins of
            probability, and then those that are one.
        """
        counted = targets >= 0
        edge = tf.where(counted, targets, 0.0)
        background = tf.where(counted, 1 - targets, 0.0)
        wanted = tf.ones_like(outputs)
        losses = self._join(
            tf.reduce_sum(edge * self._cross_entropy(wanted, outputs), axis=-1),
            tf.reduce_sum(background * self._cross_entropy(0 * wanted, outputs), axis=-1),
            tf.reduce_sum(edge, axis=-1),
            tf.reduce_sum(background, axis=-1),
        )
        bins = tf.cast(tf.clip_by_value(outputs[..., 0] * _BINS, 0, _BINS - 1), tf.int32)
        # A bincount has no deterministic form on GPUs. Sums of ones are exact in float32.
        kinds = tf.one_hot(tf.where(counted, tf.cast(targets >= _IS_EDGE, tf.int32), -1), 2)
        state = tf.matmul(kinds, tf.one_hot(bins, _BINS), transpose_a=True)
        return losses, tf.reshape(tf.cast(state, tf.int32), (-1, 2 * _BINS))

    def _join(
        self, on_edges: tf.Tensor, elsewhere: tf.Tensor, edges: tf.Tensor, rest: tf.Tensor
    ) -> tf.Tensor:
        """Joins the summed losses of an image's edges and of its background."""
        if not self._balanced:
            return tf.math.divide_no_nan(on_edges + elsewhere, edges + rest)
        kinds = tf.sign(edges) + tf.sign(rest)
        means = tf.math.divide_no_nan(on_edges, edges) + tf.math.divide_no_nan(elsewhere, rest)
        return tf.math.divide_no_nan(means, kinds)

    def as_numbers(self, targets: np.ndarray) -> np.ndarray:
        """Returns the fraction of annotators who marked an edge.

        Args:
            targets: (pixels,).
        """
        return targets[:, None]

    def score_of(self, state: np.ndarray) -> float:
        """Returns the best F-measure of single pixels over 100 thresholds.

        Nothing is thinned and no pixel next to an edge counts as one: whole images are measured
        otherwise (see `boundaries`). 0 without an edge.

        Args:
            state: (200,), as in `compare`.
        """
        background, edges = state.reshape(2, _BINS)
        hits = np.cumsum(edges[::-1])
        detected = hits + np.cumsum(background[::-1])
        scores = 2 * hits / np.maximum(detected + edges.sum(), 1)
        return float(scores.max())

    def postprocess(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the maps that are computed from outputs.

        Args:
            outputs: float32 (..., 1).

        Returns:
            `probability`, float32 (...), of an edge.
        """
        return {"probability": outputs[..., 0]}

    def predict_plainly(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the strength of Sobel's gradient in place of a probability.

        Args:
            image: uint8 (h, w, 3), RGB.
        """
        return {"probability": measure_gradient(image)}

    def build_metric(self) -> EdgeMetric:
        """Builds the metric that compares whole maps with whole maps of edges."""
        return EdgeMetric()

    def render(self, prediction: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
        """Returns a prediction as a grey image: white for a probability of 1; not thinned.

        Args:
            prediction: Maps from `postprocess`, (h, w).
            palette: Not used.
        """
        return maps.render(prediction, palette)

    def list_colors(self, palette: np.ndarray) -> Mapping[str, Sequence[int]]:
        """Returns the grey of some probabilities of an edge.

        Args:
            palette: Not used.
        """
        return maps.list_colors(palette)


class EdgeMetric:
    """Compares probabilities with maps of edges, image by image."""

    def __init__(self) -> None:
        self._images: list[BoundaryCounts] = []

    def add(self, prediction: Mapping[str, np.ndarray], target: np.ndarray) -> dict[str, float]:
        """Adds an image.

        Args:
            prediction: Maps from `postprocess`, (h, w).
            target: float32 (h, w), fractions of annotators or -1.

        Returns:
            The best F-measure of this image alone, 0 without an edge, and its threshold.
        """
        counts = count_matches(prediction["probability"], target >= _IS_EDGE, counted=target >= 0)
        self._images.append(counts)
        best = int(counts.f_scores.argmax())
        score = float(counts.f_scores[best]) if counts.expected else 0.0
        return {"f_score": score, "threshold": float(THRESHOLDS[best])}

    def result(self) -> dict[str, Any]:
        """Returns the metrics over all images, as `summarize` does."""
        return {"images": len(self._images), **summarize(self._images)}

    def sample(self) -> Sample:
        """Returns the images as the metrics are computed from them."""
        return sample_boundaries(self._images)
