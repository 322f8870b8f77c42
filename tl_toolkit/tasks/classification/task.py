"""One class for each image."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.classification.calibration import (
    Limits,
    find_features,
    find_outliers,
    find_threshold,
    read_features,
)
from tl_toolkit.tasks.classification.graph import build_limits
from tl_toolkit.tasks.classification.metrics import (
    find_interval,
    measure_classification,
    sample_classes,
)
from tl_toolkit.tasks.classification.outputs import (
    ClassPrediction,
    ClassReader,
    class_probabilities,
)
from tl_toolkit.tasks.classification.spec import ClassificationSection, is_imbalanced
from tl_toolkit.tasks.image import ImageTask
from tl_toolkit.tasks.parity import BYTES_LIMIT, FURTHER
from tl_toolkit.tasks.registry import layers_of
from tl_toolkit.tasks.resampling import Sample
from tl_toolkit.tasks.solvers import Solution, Solver, solve_classes
from tl_toolkit.tasks.standardized import Standardized
from tl_toolkit.tasks.temperature import find_temperature, scale
from tl_toolkit.tasks.types import Evaluation, Resize, SplitView, Table, name_columns

__all__ = ["Classification", "ClassPrediction", "LimitSettings", "build", "class_probabilities"]

_KNOWN = 0.95
"""Share of known images below the threshold of outliers, where no coverage is chosen."""


def build(recipe: Recipe, classes: Sequence[str]) -> Classification:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe, with its head resolved.
        classes: Class names in the order of the outputs.
    """
    section = recipe.task
    if not isinstance(section, ClassificationSection):
        raise TypeError(f"task: expected classification, got {section.kind}")
    return Classification(
        classes,
        layers_of(recipe),
        activation=recipe.model.classifier.activation,
        balance=section.balance,
        label_smoothing=section.label_smoothing,
        limits=LimitSettings(section.calibrate, section.coverage, section.ood),
    )


class LimitSettings(NamedTuple):
    """What a model is to learn of its own limits.

    Attributes:
        calibrate: Whether probabilities are scaled by a temperature.
        coverage: Share of the label sets that hold the label; None for none.
        ood: Whether images are compared with those that are known.
    """

    calibrate: bool = False
    coverage: float | None = None
    ood: bool = False


class Classification(ImageTask):
    """Cross-entropy over classes; the score is the accuracy.

    Args:
        classes: Class names in the order of the outputs, at least 2.
        head: Layers between the features and the outputs.
        activation: softmax, or sigmoid: one output for both of two classes.
        balance: class_weights, oversample, focal or logit_adjust; None for none.
        label_smoothing: Share of each target that is spread over all classes, [0, 1).
        limits: What it learns of its own limits from the validation images.
    """

    score = ClassificationSection.score
    targets = tf.TensorSpec((None,), tf.int32)

    def __init__(
        self,
        classes: Sequence[str],
        head: HeadLayers = HeadLayers(),  # noqa: B008  (frozen)
        *,
        activation: str = "softmax",
        balance: str | None = None,
        label_smoothing: float = 0.0,
        limits: LimitSettings = LimitSettings(),  # noqa: B008  (frozen)
    ) -> None:
        super().__init__(classes, head)
        self._asked = limits
        self._limits = Limits()
        self._balance = balance
        self._label_smoothing = label_smoothing
        # A variable: the step is compiled before the targets have been read.
        self._shares = tf.Variable(tf.ones(len(self.classes)), trainable=False)
        self.units = 1 if activation == "sigmoid" else len(self.classes)
        self.activation = activation

    def describe_imbalance(self, manifest: Manifest) -> str:
        """Returns a warning where one class has more than three times the images of another.

        Args:
            manifest: Images with the target `label`.
        """
        counts = manifest.count().get("train", {})
        if not is_imbalanced(counts):
            return ""
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        share = counts[most] / sum(counts.values())
        return (
            f"classes are imbalanced, {counts[most]:,} training images of {most} to "
            f"{counts[least]:,} of {least}: always {most} would have an accuracy of {share:.2f}. "
            "Judge by balanced accuracy and macro F1, and by the recall of each class"
        )

    def load_targets(
        self, examples: Sequence[Example], size: tuple[int, int], resize: Resize
    ) -> np.ndarray:
        """Returns int32 (n,), indices into the classes.

        Args:
            examples: Images with the target `label`.
            size: Not used.
            resize: Not used.
        """
        places = {name: place for place, name in enumerate(self.classes)}
        return np.array([places[example.targets[0]] for example in examples], np.int32)

    def prepare(self, targets: np.ndarray) -> None:
        """Counts the classes, of which each counts for one image at least.

        Args:
            targets: int32 (n,).
        """
        counts = np.bincount(targets, minlength=len(self.classes)).clip(1)
        self._shares.assign((counts / counts.sum()).astype(np.float32))

    def order_epoch(self, targets: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns each image once; oversampled, as many images of each class, give or take one.

        An epoch has as many images as there are, so that it has as many steps. Of a class with
        fewer than its share all come equally often, give or take one; of a class with more, others
        come in each epoch.

        Args:
            targets: int32 (n,).
            random: The generator of this epoch alone.
        """
        if self._balance != "oversample":
            return super().order_epoch(targets, random)
        present = random.permutation(np.unique(targets))
        shares = np.full(len(present), len(targets) // len(present))
        shares[: len(targets) % len(present)] += 1
        chosen = []
        for label, share in zip(present, shares, strict=True):
            images = random.permutation(np.flatnonzero(targets == label))
            chosen.append(np.resize(images, share))  # repeats them, in this order
        return random.permutation(np.concatenate(chosen))

    def find_objective(
        self, outputs: tf.Tensor, targets: tf.Tensor, losses: tf.Tensor
    ) -> tf.Tensor:
        """Returns the cross-entropy of smoothed targets, balanced as the task says.

        Args:
            outputs: As in `compare`.
            targets: int32 (batch,).
            losses: float32 (batch,), the cross-entropy.
        """
        if self._balance in (None, "oversample") and not self._label_smoothing:
            return losses
        shares = self.find_shares(outputs)
        # log(0) has no gradient; from 1e-30 one step leads back.
        logits = tf.math.log(tf.maximum(shares, 1e-30))
        if self._balance == "logit_adjust":
            logits += tf.math.log(self._shares)
        truth = tf.one_hot(targets, len(self.classes))
        smoothing = self._label_smoothing
        smoothed = truth * (1 - smoothing) + smoothing / len(self.classes)
        objective = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
        if self._balance == "focal":
            objective *= tf.square(1.0 - tf.reduce_sum(truth * shares, axis=-1))
        if self._balance == "class_weights":
            objective *= tf.gather(self._class_weights(), targets)
        return objective

    def find_shares(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities of the classes, (batch, classes).

        Args:
            outputs: Of a model of so many outputs as classes, or of a single one for two classes.
        """
        if outputs.shape[-1] == len(self.classes):
            return outputs
        return tf.concat([1.0 - outputs, outputs], axis=-1)

    def _class_weights(self) -> tf.Tensor:
        """Returns the weight of an image of each class; the mean over images is 1."""
        return 1.0 / (len(self.classes) * self._shares)

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each image, and (correct predictions, predictions) of each.

        Keras finds the logits behind a model's own output: so the loss of a confident error is
        exact in training and in evaluation, where a clipped probability would limit it.

        Args:
            outputs: Probabilities (batch, classes); with a sigmoid (batch, 1).
            targets: int32 (batch,), indices into the classes.
        """
        if self.units == 1:
            positive = tf.cast(targets[:, None], tf.float32)
            losses = keras.losses.binary_crossentropy(positive, outputs)
            predictions = tf.cast(outputs[:, 0] > 0.5, tf.int32)
        else:
            losses = keras.losses.sparse_categorical_crossentropy(targets, outputs)
            predictions = tf.argmax(outputs, axis=-1, output_type=tf.int32)
        hits = tf.cast(predictions == targets, tf.int32)
        return losses, tf.stack([hits, tf.ones_like(hits)], axis=-1)

    def solve(
        self,
        features: Standardized,
        targets: np.ndarray,
        solver: Solver,
    ) -> Solution:
        """Solves the logits of the classes.

        Args:
            features: (n, features), with their groups.
            targets: int32 (n,), indices into the classes.
            solver: ridge, logistic or auto.
        """
        weights = None
        if self._balance in ("class_weights", "oversample"):  # the same, where each comes once
            weights = self._class_weights().numpy()[targets]
        solution = solve_classes(features, targets, len(self.classes), solver, weights=weights)
        if self._balance == "logit_adjust":
            shift = np.log(self._shares.numpy().astype(np.float64))
            solution = replace(solution, bias=solution.bias - shift)
        if self.units > 1:
            return solution
        kernel, bias = np.diff(solution.kernel, axis=1), np.diff(solution.bias)
        return replace(solution, kernel=kernel, bias=bias)

    def find_members(self, targets: np.ndarray) -> np.ndarray:
        """Returns (n, classes), 1 where an image is of a class, else 0.

        Args:
            targets: int32 (n,), indices into the classes.
        """
        return np.asarray(np.eye(len(self.classes), dtype=np.int32)[targets])

    def score_of(self, state: np.ndarray) -> float:
        """Returns the accuracy.

        Args:
            state: (2,), as in `compare`.
        """
        hits, predictions = state
        return float(hits / predictions)

    def compile_arguments(self) -> dict[str, Any]:
        """Returns loss and metrics as `keras.Model.compile` takes them."""
        loss = "binary_crossentropy" if self.units == 1 else "sparse_categorical_crossentropy"
        return {"loss": loss, "metrics": ["accuracy"]}

    def finish(self, view: SplitView, targets: np.ndarray) -> None:
        """Learns temperature, label sets and what known images look like, as far as it is asked.

        Args:
            view: View of the validation images.
            targets: int32 (n,).
        """
        if not any(self._asked):
            return
        _, outputs = view.assess(self.join_targets(view.features, targets, seed=0))
        self._limits = self._learn(outputs, targets)
        if self._asked.ood:
            share = self._asked.coverage or _KNOWN
            features = read_features(view, len(targets))
            outliers = find_outliers(features, targets, len(self.classes), share)
            self._limits = replace(self._limits, outliers=outliers)

    def _learn(self, outputs: np.ndarray, targets: np.ndarray) -> Limits:
        rows = class_probabilities(outputs)
        temperature = find_temperature(rows, targets) if self._asked.calibrate else 1.0
        threshold = None
        if self._asked.coverage is not None:
            threshold = find_threshold(scale(rows, temperature), targets, self._asked.coverage)
        return Limits(temperature, threshold)

    def settle(self, outputs: np.ndarray, targets: np.ndarray) -> Classification:
        """Returns a copy with the limits of other outputs; itself where none are asked for.

        Args:
            outputs: For the validation images, (n, units).
            targets: int32 (n,).
        """
        if not any(self._asked):
            return self
        task = copy.copy(self)
        task._limits = self._learn(outputs, targets)
        return task

    def state(self) -> dict[str, Any]:
        """Returns the limits that were learned; {} where none are asked for."""
        return self._limits.as_state() if any(self._asked) else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the limits.

        Args:
            state: Plain values.
        """
        self._limits = Limits.from_state(state)

    def read_outputs(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the probabilities of outputs, scaled, (n, classes).

        Args:
            outputs: float (n, units).
        """
        return scale(class_probabilities(outputs), self._limits.temperature)

    def evaluate(self, view: SplitView, targets: np.ndarray) -> Evaluation:
        """Measures a model on a split; metrics as in `measure_classification`.

        Args:
            view: The split as the model sees it.
            targets: int32 (n,).
        """
        inputs = self.join_targets(view.features, targets, seed=0)
        losses, outputs = view.assess(inputs)
        probabilities = self.read_outputs(outputs)
        metrics, sample = self.measure(outputs, targets, losses=losses)
        rows = []
        for example, row in zip(view.examples, probabilities, strict=True):
            best = int(row.argmax())
            label = example.targets[0]
            rows.append([label, self.classes[best], float(row[best]), *map(float, row)])
        columns = name_columns("probability", self.classes)
        table = Table(["label", "predicted", "probability", *columns], rows)
        return Evaluation(metrics, table, sample)

    def measure(
        self, outputs: np.ndarray, targets: np.ndarray, *, losses: np.ndarray | None = None
    ) -> tuple[dict[str, Any], Sample]:
        """Compares outputs with labels.

        Args:
            outputs: float (n, units).
            targets: int32 (n,).
            losses: float (n,), or None.
        """
        probabilities = self.read_outputs(outputs)
        if self._limits.temperature != 1.0 and losses is not None:
            own = probabilities[np.arange(len(targets)), targets]
            losses = -np.log(np.maximum(own, np.finfo(np.float32).tiny))
        metrics = measure_classification(targets, probabilities, self.classes, losses=losses)
        metrics |= self._measure_limits(probabilities, targets, metrics["intervals"])
        return metrics, sample_classes(targets, probabilities, losses=losses)

    def _measure_limits(
        self, probabilities: np.ndarray, targets: np.ndarray, intervals: dict[str, Any]
    ) -> dict[str, float]:
        """Returns the temperature, and how often label sets hold the label; adds its interval."""
        measured = {"temperature": self._limits.temperature} if self._asked.calibrate else {}
        if self._limits.threshold is None:
            return measured
        sets = probabilities >= np.float32(self._limits.threshold)
        hits = int(sets[np.arange(len(targets)), targets].sum())
        intervals["coverage"] = list(find_interval(hits, len(targets)))
        size = float(sets.sum(axis=1).mean())
        return {**measured, "coverage": hits / len(targets), "set_size": size}

    def spread(self, targets: np.ndarray) -> np.ndarray:
        """Returns 1 for the class of each image, else 0.

        Args:
            targets: int32 (n,).
        """
        return np.asarray(np.eye(len(self.classes))[targets])

    def judge(self, predictions: np.ndarray, values: np.ndarray) -> float:
        """Returns the share of images that are predicted wrong.

        Args:
            predictions: float64 (n, classes).
            values: From `spread`.
        """
        return float(np.mean(predictions.argmax(axis=1) != values.argmax(axis=1)))

    def as_outputs(self, means: np.ndarray) -> np.ndarray:
        """Returns shares of the classes as outputs; with a sigmoid the second class's.

        Args:
            means: float64 (n, classes).
        """
        return means if self.units > 1 else means[:, 1:]

    def activate(self, scores: np.ndarray) -> np.ndarray:
        """Returns probabilities.

        Args:
            scores: Logits, float64 (n, units).
        """
        from scipy.special import expit, softmax

        return np.asarray(expit(scores) if self.units == 1 else softmax(scores, axis=1))

    def measure_uncertainty(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the entropy of the classes' probabilities, of the most that it could be.

        Args:
            outputs: float32 (n, units).
        """
        from scipy.stats import entropy

        rows = self.read_outputs(outputs).astype(np.float64)
        return np.asarray(entropy(rows, base=len(self.classes), axis=1))

    @property
    def output_reader(self) -> ClassReader:
        """How probabilities are read."""
        return ClassReader(self.classes, self._limits.threshold)

    def serve(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what an exported model returns.

        Args:
            outputs: float32 (batch, units).

        Returns:
            `probabilities` float32 (batch, classes), `label` string (batch,) and `index` int32
            (batch,); with label sets `label_set` bool (batch, classes), and `abstain` bool (batch,)
            where that holds not one class alone.
        """
        probabilities = outputs
        if self.units == 1:
            probabilities = tf.concat([1.0 - outputs, outputs], axis=-1)
        if self._limits.temperature != 1.0:
            logs = tf.math.log(tf.maximum(probabilities, 1e-30))
            probabilities = tf.nn.softmax(logs / self._limits.temperature)
        index = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        label = tf.gather(tf.constant(list(self.classes)), index)
        served = {"probabilities": probabilities, "label": label, "index": index}
        if self._limits.threshold is not None:
            served["label_set"] = probabilities >= tf.constant(self._limits.threshold, tf.float32)
            sizes = tf.reduce_sum(tf.cast(served["label_set"], tf.int32), axis=-1)
            served["abstain"] = tf.not_equal(sizes, 1)
        return served

    def find_served_features(self, model: keras.Model) -> keras.KerasTensor | None:
        """Returns the vector that outliers are known by; None where they are not asked for.

        Args:
            model: The whole model.
        """
        return None if self._limits.outliers is None else find_features(model)

    def serve_features(
        self, served: dict[str, tf.Tensor], features: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns what an exported model returns, with how far images are from known ones.

        Args:
            served: From `serve`.
            features: float32 (batch, features).

        Returns:
            Also `ood_score` float32 (batch,); `abstain` holds for images above the threshold too.
        """
        known = self._limits.outliers
        if known is None:
            return served
        moved = tf.math.l2_normalize((features - known.centre) * known.weights, axis=-1)
        score = 1 - tf.reduce_max(moved @ known.means.T, axis=-1)
        is_far = score > known.threshold
        doubts = served.get("abstain")
        abstain = is_far if doubts is None else doubts | is_far
        return {**served, "ood_score": score, "abstain": abstain}

    def build_graph(self, model: keras.Model) -> keras.Model:
        """Returns the model with scaled probabilities, and the outputs of its limits by name.

        Args:
            model: The whole model.
        """
        return build_limits(model, self._limits)

    def measure_graph(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        """Measures probabilities, which the graph has scaled.

        Args:
            outputs: Of `build_graph`, (n, units) or (n, classes).
            targets: int32 (n,).
        """
        task = copy.copy(self)
        task._limits = replace(self._limits, temperature=1.0)
        return task.measure(outputs, targets)[0]

    def find_clear(
        self, expected: Mapping[str, np.ndarray], margin: float
    ) -> dict[str, np.ndarray]:
        """Returns where a label set, and an abstention, is as clear as a margin.

        Args:
            expected: Outputs by name.
            margin: How far probabilities may be apart, and distances ten times as far.
        """
        clear = {}
        certain = np.ones(len(expected["probabilities"]), bool)
        if self._limits.threshold is not None:
            distance = np.abs(expected["probabilities"] - np.float32(self._limits.threshold))
            clear["label_set"] = distance > margin
            certain &= clear["label_set"].all(axis=-1)
        if self._limits.outliers is not None:
            distance = np.abs(expected["ood_score"] - self._limits.outliers.threshold)
            certain &= distance > FURTHER * margin
        return {**clear, "abstain": certain}

    def find_answers(self, outputs: np.ndarray) -> np.ndarray:
        """Returns the index of the most probable class.

        Args:
            outputs: float32 (n, units).
        """
        return np.asarray(class_probabilities(outputs).argmax(axis=-1))

    def are_equal(self, outputs: Mapping[str, np.ndarray], expected: np.ndarray) -> bool:
        """Returns whether the label has the greatest probability, unless two are nearly equal.

        Args:
            outputs: What the exported model returned for an image.
            expected: Probabilities, float32 (classes,).
        """
        second, best = np.sort(expected)[-2:]
        is_clear = best - second > 2 * BYTES_LIMIT
        return not is_clear or str(outputs["label"]) == self.classes[int(expected.argmax())]
