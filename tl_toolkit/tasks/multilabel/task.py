"""Any number of classes for each image."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.images.manifest import Example
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.image import ImageTask
from tl_toolkit.tasks.last_layer import scale_last_layer
from tl_toolkit.tasks.multilabel.metrics import (
    choose_thresholds,
    measure_multilabel,
    sample_labels,
)
from tl_toolkit.tasks.multilabel.outputs import (
    LabelsPrediction,
    LabelsReader,
    fill_thresholds,
)
from tl_toolkit.tasks.multilabel.planning import split_names
from tl_toolkit.tasks.multilabel.spec import MultilabelSection
from tl_toolkit.tasks.parity import BYTES_LIMIT
from tl_toolkit.tasks.registry import layers_of
from tl_toolkit.tasks.resampling import Sample
from tl_toolkit.tasks.solvers import Solution, Solver, solve_labels
from tl_toolkit.tasks.standardized import Standardized
from tl_toolkit.tasks.temperature import find_temperature, scale
from tl_toolkit.tasks.types import Evaluation, Resize, SplitView, Table, name_columns

__all__ = ["LabelsPrediction", "Multilabel", "build"]

_BINS = 128
"""Steps of the logit in a metric state, from -8 to 8."""

_RANGE = 8.0

_FOCUS = 2.0
"""The exponent of the focal loss (Lin et al., 2017)."""


def build(recipe: Recipe, classes: Sequence[str]) -> Multilabel:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe, with its head resolved.
        classes: Class names in the order of the outputs.
    """
    section = recipe.task
    if not isinstance(section, MultilabelSection):
        raise TypeError(f"task: expected multilabel, got {section.kind}")
    return Multilabel(
        classes,
        layers_of(recipe),
        separator=section.separator,
        threshold=section.threshold,
        balance=section.balance,
        calibrate=section.calibrate,
    )


class Multilabel(ImageTask):
    """Binary cross-entropy for each class; the score is the mean average precision.

    Epochs are compared by the precision over 128 steps of the logit, from which it adds up over
    batches; the metrics of a finished model are exact.

    Args:
        classes: Class names in the order of the outputs.
        head: Layers between the features and the outputs.
        separator: What stands between names of classes.
        threshold: Probability from which on a class is predicted; validation for one of each class
            by the validation images.
        balance: class_weights or focal; None for none.
        calibrate: Whether probabilities are scaled by a temperature.
    """

    score = MultilabelSection.score
    activation = "sigmoid"

    def __init__(
        self,
        classes: Sequence[str],
        head: HeadLayers = HeadLayers(),  # noqa: B008  (frozen)
        *,
        separator: str = "|",
        threshold: float | Literal["validation"] = "validation",
        balance: str | None = None,
        calibrate: bool = False,
    ) -> None:
        super().__init__(classes, head)
        self.units = len(self.classes)
        self.targets = tf.TensorSpec((None, self.units), tf.int32)
        self._separator = separator
        self._threshold = threshold
        self._balance = balance
        self._calibrate = calibrate
        self._temperature = 1.0
        # A variable: the step is compiled before the targets have been read.
        self._shares = tf.Variable(tf.fill((self.units,), 0.5), trainable=False)
        self.thresholds = fill_thresholds(threshold, self.units)

    def load_targets(
        self, examples: Sequence[Example], size: tuple[int, int], resize: Resize
    ) -> np.ndarray:
        """Returns int32 (n, classes), 1 where an image is of a class, else 0.

        Args:
            examples: Images with the target `labels`.
            size: Not used.
            resize: Not used.
        """
        targets = np.zeros((len(examples), self.units), np.int32)
        places = {name: place for place, name in enumerate(self.classes)}
        for row, example in zip(targets, examples, strict=True):
            for name in split_names(example.targets[0], self._separator):
                row[places[name]] = 1
        return targets

    def prepare(self, targets: np.ndarray) -> None:
        """Counts the labels: the share of images that have each; one image at least has, or lacks.

        Args:
            targets: int32 (n, classes), 0 or 1.
        """
        counts = targets.sum(axis=0)
        counts = np.minimum(np.maximum(counts, 1), max(1, len(targets) - 1))
        self._shares.assign((counts / len(targets)).astype(np.float32))

    def find_objective(
        self, outputs: tf.Tensor, targets: tf.Tensor, losses: tf.Tensor
    ) -> tf.Tensor:
        """Returns the mean over classes of the cross-entropy, balanced as the task says.

        Args:
            outputs: As in `compare`.
            targets: int32 (batch, classes), 0 or 1.
            losses: float32 (batch,), the cross-entropy.
        """
        if self._balance is None:
            return losses
        positive = tf.cast(targets, tf.float32)
        if self._balance == "focal":
            return keras.losses.binary_focal_crossentropy(positive, outputs, gamma=_FOCUS)
        weights = self._class_weights(positive)
        return tf.reduce_mean(weights * keras.ops.binary_crossentropy(positive, outputs), axis=-1)

    def _class_weights(self, positive: Any) -> Any:
        """Returns the weight of each label of each image; its mean over images is 1.

        Args:
            positive: (n, classes), 1 where an image has the label, else 0.
        """
        return positive * (0.5 / self._shares) + (1 - positive) * (0.5 / (1 - self._shares))

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each image, the mean over classes, and where its logits lie.

        Args:
            outputs: Probabilities (batch, classes).
            targets: int32 (batch, classes), 0 or 1.

        Returns:
            float32 (batch,); int32 (batch, 2 * classes * 128): for each class the images that are
            not of it, by their logit, and those that are.
        """
        positive = tf.cast(targets, tf.float32)
        losses = keras.losses.binary_crossentropy(positive, outputs)
        logits = tf.math.log(outputs) - tf.math.log1p(-outputs)
        steps = (tf.clip_by_value(logits, -_RANGE, _RANGE) + _RANGE) / (2 * _RANGE) * _BINS
        bins = tf.one_hot(tf.cast(tf.minimum(steps, _BINS - 1), tf.int32), _BINS, dtype=tf.int32)
        hits = bins * targets[..., tf.newaxis]
        state = tf.stack([bins - hits, hits], axis=1)
        return losses, tf.reshape(state, (-1, 2 * self.units * _BINS))

    def solve(
        self,
        features: Standardized,
        targets: np.ndarray,
        solver: Solver,
    ) -> Solution:
        """Solves the logit of each label.

        Args:
            features: (n, features), with their groups.
            targets: (n, labels) of 0 and 1.
            solver: ridge, logistic or auto.
        """
        weights = None
        if self._balance == "class_weights":
            weights = self._class_weights(targets.astype(np.float32)).numpy()
        return solve_labels(features, targets, solver, weights=weights)

    def find_members(self, targets: np.ndarray) -> np.ndarray:
        """Returns (n, classes), 1 where an image is of a class, else 0.

        Args:
            targets: int32 (n, classes).
        """
        return targets

    def score_of(self, state: np.ndarray) -> float:
        """Returns the mean average precision over the classes that have images, 0 without any.

        Args:
            state: As in `compare`.
        """
        misses, hits = state.reshape(2, self.units, _BINS)[..., ::-1].astype(np.float64)
        present = hits.sum(axis=1) > 0
        if not present.any():
            return 0.0
        true_positives, false_positives = hits.cumsum(axis=1), misses.cumsum(axis=1)
        precision = true_positives / np.maximum(true_positives + false_positives, 1)
        recall = hits[present] / hits[present].sum(axis=1, keepdims=True)
        return float((precision[present] * recall).sum(axis=1).mean())

    def finish(self, view: SplitView, targets: np.ndarray) -> None:
        """Learns the temperature and the threshold of each class, as far as it is asked.

        Args:
            view: View of the validation images.
            targets: int32 (n, classes).
        """
        if self._calibrate or self._threshold == "validation":
            _, outputs = view.assess(self.join_targets(view.features, targets, seed=0))
            self._learn(outputs, targets)

    def _learn(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        if self._calibrate:
            pairs = _as_pairs(outputs)
            self._temperature = find_temperature(pairs, targets.ravel())
        if self._threshold == "validation":
            chosen = choose_thresholds(targets, self.read_outputs(outputs))
            self.thresholds = chosen.astype(np.float32)

    def settle(self, outputs: np.ndarray, targets: np.ndarray) -> Multilabel:
        """Returns a copy that has learned from other outputs; itself where nothing is learned.

        Args:
            outputs: Probabilities (n, classes) for the validation images.
            targets: int32 (n, classes).
        """
        if not self._calibrate and self._threshold != "validation":
            return self
        task = copy.copy(self)
        task._learn(outputs, targets)
        return task

    def read_outputs(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probabilities of outputs, scaled, (n, classes).

        Args:
            outputs: float (n, classes).
        """
        if self._temperature == 1.0:
            return outputs
        return scale(_as_pairs(outputs), self._temperature)[:, 1].reshape(outputs.shape)

    def state(self) -> dict[str, Any]:
        """Returns the thresholds by class, and the temperature where one is asked for."""
        values = map(float, self.thresholds)
        state: dict[str, Any] = {"thresholds": dict(zip(self.classes, values, strict=True))}
        return {**state, "temperature": self._temperature} if self._calibrate else state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores thresholds and temperature.

        Args:
            state: State from `state`.
        """
        self.thresholds = np.array([state["thresholds"][name] for name in self.classes], np.float32)
        self._temperature = state.get("temperature", 1.0)

    def evaluate(self, view: SplitView, targets: np.ndarray) -> Evaluation:
        """Measures a model on a split; metrics as in `measure_multilabel`.

        Args:
            view: The split as the model sees it.
            targets: int32 (n, classes).
        """
        losses, outputs = view.assess(self.join_targets(view.features, targets, seed=0))
        separator, reader = self._separator, self.output_reader
        rows = []
        for flags, row in zip(targets.astype(bool), self.read_outputs(outputs), strict=True):
            labels = separator.join(reader.name_labels(flags))
            rows.append([labels, separator.join(reader.select(row)), *map(float, row)])
        metrics, sample = self.measure(outputs, targets, losses=losses)
        table = Table(["labels", "predicted", *name_columns("probability", self.classes)], rows)
        return Evaluation(metrics, table, sample)

    def measure(
        self, outputs: np.ndarray, targets: np.ndarray, *, losses: np.ndarray | None = None
    ) -> tuple[dict[str, Any], Sample]:
        """Compares outputs with targets, by the thresholds of the model.

        Args:
            outputs: float (n, classes).
            targets: int32 (n, classes).
            losses: float (n,), or None.
        """
        rows = self.read_outputs(outputs)
        if self._temperature != 1.0 and losses is not None:
            own = np.where(targets == 1, rows, 1 - rows)
            losses = -np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean(axis=1)
        metrics = measure_multilabel(targets, rows, self.thresholds, self.classes, losses=losses)
        measured = {"temperature": self._temperature} if self._calibrate else {}
        sample = sample_labels(targets, rows, self.thresholds, losses=losses)
        return {**metrics, **measured}, sample

    def build_graph(self, model: keras.Model) -> keras.Model:
        """Returns the model with scaled probabilities.

        Args:
            model: The whole model.
        """
        return scale_last_layer(model, self._temperature)

    def measure_graph(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """Measures probabilities, which the graph has scaled.

        Args:
            outputs: Of `build_graph`, (n, classes).
            targets: int32 (n, classes).
        """
        task = copy.copy(self)
        task._temperature = 1.0
        return task.measure(outputs, targets)[0]

    def find_answers(self, outputs: np.ndarray) -> np.ndarray:
        """Returns which classes are predicted, bool (n, classes).

        Args:
            outputs: float32 (n, classes).
        """
        return np.asarray(self.read_outputs(outputs) >= self.thresholds)

    def spread(self, targets: np.ndarray) -> np.ndarray:
        """Returns the targets as they are.

        Args:
            targets: int32 (n, classes).
        """
        return targets.astype(np.float64)

    def activate(self, scores: np.ndarray) -> np.ndarray:
        """Returns probabilities.

        Args:
            scores: Logits, float64 (n, classes).
        """
        from scipy.special import expit

        return np.asarray(expit(scores))

    def measure_uncertainty(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the mean over the classes of the entropy of having each or not, in bits.

        Args:
            outputs: float32 (n, classes).
        """
        from scipy.stats import entropy

        rows = self.read_outputs(outputs).astype(np.float64)
        return np.asarray(entropy(np.stack([rows, 1 - rows]), base=2, axis=0).mean(axis=1))

    @property
    def output_reader(self) -> LabelsReader:
        """How probabilities are read."""
        return LabelsReader(self.classes, self.thresholds, self._separator)

    def serve(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what an exported model returns.

        Args:
            outputs: float32 (batch, classes).

        Returns:
            `probabilities` float32 (batch, classes); `predicted` bool (batch, classes), whether
            each is at least its class's threshold; `labels` string (batch,), the names of those
            with the separator of the table between them.
        """
        separator = self._separator
        if self._temperature != 1.0:
            logits = tf.math.log(tf.maximum(outputs, 1e-30))
            logits -= tf.math.log(tf.maximum(1.0 - outputs, 1e-30))
            outputs = tf.sigmoid(logits / self._temperature)
        predicted = outputs >= tf.constant(self.thresholds)
        names = tf.constant([f"{name}{separator}" for name in self.classes])
        words = tf.strings.reduce_join(tf.where(predicted, names, ""), axis=-1)
        labels = tf.strings.regex_replace(words, f"{re.escape(separator)}$", "")
        return {"probabilities": outputs, "predicted": predicted, "labels": labels}

    def are_equal(self, outputs: Mapping[str, np.ndarray], expected: np.ndarray) -> bool:
        """Returns whether the predicted classes are equal, but for those at their threshold.

        Args:
            outputs: What the exported model returned for an image.
            expected: Probabilities, float32 (classes,).
        """
        is_clear = np.abs(expected - self.thresholds) > 2 * BYTES_LIMIT
        predicted = expected >= self.thresholds
        return bool((outputs["predicted"] == predicted)[is_clear].all())


def _as_pairs(outputs: np.ndarray) -> np.ndarray:
    """Returns for each decision the probabilities of no and yes, (n * classes, 2)."""
    flat = outputs.reshape(-1)
    return np.stack([1 - flat, flat], axis=1)
