"""One class for each pixel."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.calibration import ReliabilityBins
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.targets import Targets
from tl_toolkit.tasks.dense.task import DenseTask
from tl_toolkit.tasks.last_layer import scale_last_layer
from tl_toolkit.tasks.registry import layers_of, values_of
from tl_toolkit.tasks.resampling import Sample
from tl_toolkit.tasks.segmentation import maps
from tl_toolkit.tasks.segmentation.confusion import (
    count_confusion,
    mean_iou,
    measure_confusion,
    sample_confusions,
)
from tl_toolkit.tasks.segmentation.masks import MaskReader, MaskSettings
from tl_toolkit.tasks.segmentation.spec import SegmentationSection
from tl_toolkit.tasks.temperature import find_temperature
from tl_toolkit.tasks.types import SplitView

__all__ = ["MaskMetric", "Segmentation", "build"]

_FOCUS = 2.0
"""The exponent of the focal loss (Lin et al., 2017)."""

_HEAVIEST = 50.0
"""The greatest balanced class weight."""


def build(recipe: Recipe, classes: Sequence[str]) -> Segmentation:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe, with its head resolved.
        classes: Class names in the order of the outputs.
    """
    task = recipe.task
    if not isinstance(task, SegmentationSection):
        raise TypeError(f"task: expected segmentation, got {task.kind}")
    section = recipe.data.masks
    masks = MaskSettings()
    if section is not None:
        masks = MaskSettings(section.ids, section.colors, section.ignore)
    return Segmentation(
        classes,
        PixelSettings(**{**values_of(recipe.pixels), **task.balanced_pixels}),
        MaskReader(masks, len(classes), classes),
        layers_of(recipe),
        None if masks.colors is None else np.array(masks.colors, np.uint8),
        calibrate=task.calibrate,
    )


class Segmentation(DenseTask):
    """Cross-entropy, Dice or focal loss over the sampled pixels; the score is the mean IoU.

    Args:
        classes: Class names in the order of the outputs.
        pixels: How pixels are read, sampled and compared.
        reader: Reads masks.
        head: Hidden layers and dropout of the predictor.
        palette: Colours of the classes, for pictures.
        calibrate: Whether probabilities are scaled by a temperature.
    """

    score = SegmentationSection.score
    activation = "softmax"
    picture = maps.PICTURE
    targets = tf.TensorSpec((None, None), tf.int32)

    def __init__(
        self,
        classes: Sequence[str],
        pixels: PixelSettings = PixelSettings(),  # noqa: B008  (frozen)
        reader: MaskReader | None = None,
        head: HeadLayers = HeadLayers(),  # noqa: B008  (frozen)
        palette: np.ndarray | None = None,
        *,
        calibrate: bool = False,
    ) -> None:
        super().__init__(
            classes, pixels, reader or MaskReader(MaskSettings(), len(classes)), head, palette
        )
        self.units = len(self.classes)
        self._calibrate = calibrate
        self._temperature = 1.0
        # A variable: the step is compiled before the masks have been counted.
        self.class_weights = tf.Variable(self._read_weights(), trainable=False)

    def _read_weights(self) -> np.ndarray:
        weights = self.pixels.class_weights
        by_name = weights if isinstance(weights, Mapping) else {}
        return np.array([by_name.get(name, 1.0) for name in self.classes], np.float32)

    def prepare(self, targets: Targets) -> None:
        """Computes balanced class weights from the pixels of each class in the training images.

        The weight of a class is the median of all frequencies over its own, after Eigen and Fergus
        (2015), so that half of the classes have weights above 1. It is at most 50, as a class of a
        few pixels would outweigh all others. Frequencies are of all pixels; in the paper they leave
        out images without the class.

        Args:
            targets: Targets of the training images, which are all read for it.
        """
        if self.pixels.class_weights != "balanced":
            return
        counts = targets.count()
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
            float32 (batch,); int32 (batch, classes ^ 2), rows are targets.
        """
        counted = targets != IGNORE
        labels = tf.where(counted, targets, 0)
        weights = tf.gather(self.class_weights, labels) * tf.cast(counted, tf.float32)
        if self.pixels.loss == "dice":
            losses = self._dice(outputs, labels, weights)
        else:
            losses = self._cross_entropy(outputs, labels, weights)
        # A bincount has no deterministic form on GPUs. Sums of ones are exact in float32.
        predicted = tf.one_hot(tf.argmax(outputs, axis=-1), self.units)
        expected = tf.one_hot(tf.where(counted, labels, -1), self.units)
        state = tf.cast(tf.matmul(expected, predicted, transpose_a=True), tf.int32)
        return losses, tf.reshape(state, (-1, self.units**2))

    def _cross_entropy(
        self, outputs: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        losses = keras.losses.sparse_categorical_crossentropy(labels, outputs)
        if self.pixels.loss == "focal":
            losses *= (1 - tf.exp(-losses)) ** _FOCUS
        # Over the pixels, not over their weights: an image of one class alone would lose them.
        counted = tf.reduce_sum(tf.sign(weights), axis=-1)
        return tf.math.divide_no_nan(tf.reduce_sum(losses * weights, axis=-1), counted)

    def _dice(self, outputs: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns 1 minus the weighted mean overlap of the classes in the image."""
        wanted = tf.one_hot(labels, self.units) * tf.sign(weights)[..., None]
        predicted = outputs * tf.sign(weights)[..., None]
        both = tf.reduce_sum(wanted * predicted, axis=1)
        pixels = tf.reduce_sum(wanted, axis=1)
        overlap = 2 * both / (pixels + tf.reduce_sum(predicted, axis=1) + keras.config.epsilon())
        shares = self.class_weights * tf.sign(pixels)
        total = tf.reduce_sum(shares, axis=-1)
        return tf.math.divide_no_nan(tf.reduce_sum((1 - overlap) * shares, axis=-1), total)

    def as_numbers(self, targets: np.ndarray) -> np.ndarray:
        """Returns 1 for the class of each pixel, and 0 for the others.

        Args:
            targets: (pixels,), indices into the classes.
        """
        return np.asarray(np.eye(self.units)[targets])

    def score_of(self, state: np.ndarray) -> float:
        """Returns the mean IoU.

        Args:
            state: (classes ^ 2,), as in `compare`.
        """
        return mean_iou(state.reshape(self.units, self.units))

    def finish(self, view: SplitView, targets: Targets) -> None:
        """Learns the temperature, if it is asked for, from pixels of whole maps.

        Args:
            view: View of the validation images.
            targets: Their masks.
        """
        if not self._calibrate:
            return
        from tl_toolkit.tasks.dense.evaluation import sample_lattice

        outputs, labels = sample_lattice(view, targets)
        counted = labels != IGNORE
        if counted.any():
            self._temperature = find_temperature(outputs[counted], labels[counted])

    def state(self) -> dict[str, Any]:
        """Returns the temperature; {} where none is asked for."""
        return {"temperature": self._temperature} if self._calibrate else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the temperature.

        Args:
            state: State from `state`.
        """
        self._temperature = state.get("temperature", 1.0)

    def postprocess(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the maps that are computed from probabilities.

        Args:
            outputs: float32 (..., classes).

        Returns:
            `mask`, uint8 (...), index of the most probable class, and `probability`, float32 (...),
            its probability.
        """
        if self._temperature != 1.0:
            logs = tf.math.log(tf.maximum(outputs, 1e-30))
            outputs = tf.nn.softmax(logs / self._temperature)
        return {
            "mask": tf.cast(tf.argmax(outputs, axis=-1, output_type=tf.int32), tf.uint8),
            "probability": tf.reduce_max(outputs, axis=-1),
        }

    def scale_outputs(self, model: keras.Model) -> keras.Model:
        """Returns the model with scaled probabilities.

        Args:
            model: [images, pixels] to probabilities.
        """
        return scale_last_layer(model, self._temperature)

    def measure_graph(self, outputs: np.ndarray, targets: Targets) -> dict[str, Any]:
        """Measures probabilities, which the graph has scaled.

        Args:
            outputs: Of `build_graph`, (n, h, w, classes).
            targets: Masks of the same images.
        """
        task = copy.copy(self)
        task._temperature = 1.0
        return DenseTask.measure_graph(task, outputs, targets)

    def find_answers(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the index of the most probable class of each pixel.

        Args:
            outputs: float32 (n, h, w, classes).
        """
        return np.asarray(outputs.argmax(axis=-1))

    def build_metric(self) -> MaskMetric:
        """Builds the metric that compares whole maps with whole masks."""
        return MaskMetric(self.classes, self._temperature if self._calibrate else None)

    def render(self, prediction: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
        """Returns a prediction as a palette image: its values are indices into the classes.

        Args:
            prediction: Maps from `postprocess`, (h, w); IGNORE, where nothing was seen, is black.
            palette: uint8 (classes, 3), a colour for each class.
        """
        return maps.render(prediction, palette)


class MaskMetric:
    """Compares maps with masks, image by image.

    Args:
        classes: Class names in the order of the outputs.
        temperature: Where one was learned, calibration is measured too; None for none.
    """

    def __init__(self, classes: Sequence[str], temperature: float | None = None) -> None:
        self._classes = tuple(classes)
        self._temperature = temperature
        self._bins = ReliabilityBins()
        self._confusion = np.zeros((len(classes), len(classes)), np.int64)
        self._confusions: list[np.ndarray] = []

    def add(self, prediction: Mapping[str, np.ndarray], target: np.ndarray) -> dict[str, float]:
        """Adds an image.

        Args:
            prediction: Maps from `postprocess`, (h, w).
            target: uint8 (h, w), indices into the classes or IGNORE.

        Returns:
            The scores of this image alone.
        """
        confusion = count_confusion(target, prediction["mask"], len(self._classes), IGNORE)
        self._confusion += confusion
        self._confusions.append(confusion)
        if self._temperature is not None:
            counted = target != IGNORE
            hits = (prediction["mask"] == target)[counted]
            self._bins.add(hits, prediction["probability"][counted])
        metrics = measure_confusion(confusion, self._classes)
        return {name: metrics[name] for name in ("pixel_accuracy", "mean_iou")}

    def result(self) -> dict[str, Any]:
        """Returns the metrics over all images."""
        measured = measure_confusion(self._confusion, self._classes)
        calibration: dict[str, Any] = {}
        if self._temperature is not None:
            found = self._bins.result()
            calibration = {"temperature": self._temperature, "ece": found["ece"]}
            calibration["calibration"] = found
        return {"images": len(self._confusions), **measured, **calibration}

    def sample(self) -> Sample:
        """Returns the images as the metrics are computed from them."""
        return sample_confusions(self._confusions)
