"""One class for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.images.masks import MaskReader
from tl_toolkit.recipe.data_schema import Data
from tl_toolkit.recipe.pixel_schema import IGNORE, Masks, Pixels
from tl_toolkit.tasks.segmentation.confusion import count_confusion, mean_iou, measure_confusion

__all__ = ["MaskTally", "Segmentation"]

_FOCUS = 2.0
"""The exponent of the focal loss (Lin et al., 2017)."""

_HEAVIEST = 50.0
"""The greatest of balanced weights."""


class Segmentation:
    """Cross-entropy, Dice or focal loss over the drawn pixels; the score is the mean IoU.

    Args:
        classes: Class names in the order of the outputs.
        settings: The recipe's `pixels` section.
    """

    name = "segmentation"
    score = "mean_iou"
    activation = "softmax"
    answers_pixels = True
    picture = "mask"
    targets = tf.TensorSpec((None, None), tf.int32)

    def __init__(self, classes: Sequence[str], settings: Pixels) -> None:
        self.units = len(classes)
        self._classes = tuple(classes)
        self._settings = settings
        # A variable: the step is compiled before the masks have been counted.
        self.class_weights = tf.Variable(self._told_weights(), trainable=False)

    @staticmethod
    def reader(data: Data) -> MaskReader:
        """Returns what reads the masks of a recipe's `data` section."""
        return MaskReader(data.masks or Masks(), len(data.classes or ()))

    def _told_weights(self) -> np.ndarray:
        given = self._settings.class_weights
        told = given if isinstance(given, Mapping) else {}
        return np.array([told.get(name, 1.0) for name in self._classes], np.float32)

    def weigh(self, count: Callable[[], np.ndarray]) -> None:
        """Settles balanced weights by the pixels of each class in the training images.

        The median of the classes' frequencies over each one's own, after Eigen and Fergus (2015),
        so that half of the classes weigh more than 1; at most 50, as a class of a few pixels would
        drown the others. Frequencies are of all pixels, where theirs leave out images without the
        class.

        Args:
            count: Counts them, int (classes,).
        """
        if self._settings.class_weights != "balanced":
            return
        counts = count()
        seen = counts > 0
        weights = np.ones(len(counts), np.float32)
        if seen.any():
            weights[seen] = np.minimum(np.median(counts[seen]) / counts[seen], _HEAVIEST)
        self.class_weights.assign(weights)

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each image, and its confusions.

        Args:
            outputs: Probabilities (batch, pixels, classes).
            targets: int32 (batch, pixels), indices into the classes; IGNORE counts nowhere.

        Returns:
            float32 (batch,); int32 (batch, classes ^ 2), right answers by row.
        """
        counted = targets != IGNORE
        labels = tf.where(counted, targets, 0)
        weights = tf.gather(self.class_weights, labels) * tf.cast(counted, tf.float32)
        if self._settings.loss == "dice":
            losses = self._dice(outputs, labels, weights)
        else:
            losses = self._cross_entropy(outputs, labels, weights)
        # A bincount has no deterministic form on GPUs. Sums of ones are exact in float32.
        answers = tf.one_hot(tf.argmax(outputs, axis=-1), self.units)
        truth = tf.one_hot(tf.where(counted, labels, -1), self.units)
        tally = tf.cast(tf.matmul(truth, answers, transpose_a=True), tf.int32)
        return losses, tf.reshape(tally, (-1, self.units**2))

    def _cross_entropy(
        self, outputs: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        losses = keras.losses.sparse_categorical_crossentropy(labels, outputs)
        if self._settings.loss == "focal":
            losses *= (1 - tf.exp(-losses)) ** _FOCUS
        # Over the pixels, not over their weights: an image of one class alone would lose them.
        counted = tf.reduce_sum(tf.sign(weights), axis=-1)
        return tf.math.divide_no_nan(tf.reduce_sum(losses * weights, axis=-1), counted)

    def _dice(self, outputs: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """1 minus the mean overlap of the classes in the image, each class by its weight."""
        wanted = tf.one_hot(labels, self.units) * tf.sign(weights)[..., None]
        given = outputs * tf.sign(weights)[..., None]
        both = tf.reduce_sum(wanted * given, axis=1)
        pixels = tf.reduce_sum(wanted, axis=1)
        overlap = 2 * both / (pixels + tf.reduce_sum(given, axis=1) + keras.config.epsilon())
        shares = self.class_weights * tf.sign(pixels)
        total = tf.reduce_sum(shares, axis=-1)
        return tf.math.divide_no_nan(tf.reduce_sum((1 - overlap) * shares, axis=-1), total)

    def score_of(self, tally: np.ndarray) -> float:
        """Returns the mean IoU."""
        return mean_iou(tally.reshape(self.units, self.units))

    def keep(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what an answer for whole images keeps of probabilities (..., classes).

        Returns:
            `mask`, uint8 (...), index of the most probable class, and `probability`, float32 (...),
            its probability.
        """
        return {
            "mask": tf.cast(tf.argmax(outputs, axis=-1, output_type=tf.int32), tf.uint8),
            "probability": tf.reduce_max(outputs, axis=-1),
        }

    def measure(self) -> MaskTally:
        """Returns what compares whole answers with whole masks."""
        return MaskTally(self._classes)

    def draw(self, answer: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
        """Returns an answer as a palette image: its values are indices into the classes.

        Args:
            answer: What `keep` named, (h, w); IGNORE, where nothing was seen, is drawn black.
            palette: uint8 (classes, 3), a colour for each class.
        """
        # All 256 colours: with fewer, Pillow saves fewer bits, and IGNORE would become a class.
        colors = np.zeros((256, 3), np.uint8)
        colors[: len(palette)] = palette
        image = Image.fromarray(answer["mask"], mode="P")
        image.putpalette(colors.tobytes())
        return image


class MaskTally:
    """Compares answers with masks, image by image.

    Args:
        classes: Class names in the order of the outputs.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._confusion = np.zeros((len(classes), len(classes)), np.int64)
        self._images = 0

    def add(self, answer: Mapping[str, np.ndarray], truth: np.ndarray) -> dict[str, float]:
        """Takes in an image.

        Args:
            answer: What `keep` named, (h, w).
            truth: uint8 (h, w), indices into the classes or IGNORE.

        Returns:
            The scores of this image alone.
        """
        confusion = count_confusion(truth, answer["mask"], len(self._classes), IGNORE)
        self._confusion += confusion
        self._images += 1
        found = measure_confusion(confusion, self._classes)
        return {name: found[name] for name in ("pixel_accuracy", "mean_iou")}

    def result(self) -> dict[str, Any]:
        """Returns the metrics over all images."""
        return {"images": self._images, **measure_confusion(self._confusion, self._classes)}
