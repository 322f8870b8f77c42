"""One or several numbers for each image."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.affine import Affine
from tl_toolkit.architectures.heads import HeadLayers
from tl_toolkit.images.manifest import Example
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.image import ImageTask
from tl_toolkit.tasks.registry import layers_of
from tl_toolkit.tasks.regression.intervals import find_half_widths, measure_coverage
from tl_toolkit.tasks.regression.metrics import measure_regression, sample_values
from tl_toolkit.tasks.regression.outputs import (
    ValuesPrediction,
    ValuesReader,
    read_half_widths,
    shorten,
)
from tl_toolkit.tasks.regression.spec import RegressionSection
from tl_toolkit.tasks.resampling import Sample
from tl_toolkit.tasks.solvers import Solution, Solver, solve_values
from tl_toolkit.tasks.standardized import Standardized
from tl_toolkit.tasks.types import Evaluation, Resize, SplitView, Table, name_columns

__all__ = ["Regression", "ValuesPrediction", "build"]

_ROUNDINGS = 4
"""Steps of float32 that equal values may be apart: two roundings, in `head_units`, on both sides.
"""


def build(recipe: Recipe, classes: Sequence[str]) -> Regression:
    """Returns the task of a recipe.

    Args:
        recipe: The recipe, with its head resolved.
        classes: The columns that are predicted, in the order of the outputs.
    """
    section = recipe.task
    if not isinstance(section, RegressionSection):
        raise TypeError(f"task: expected regression, got {section.kind}")
    return Regression(
        classes, layers_of(recipe), loss=section.loss, huber_delta=section.huber_delta,
        coverage=section.coverage,
    )  # fmt: skip


class Regression(ImageTask):
    """Squared, absolute or Huber's error of standardized targets; the score is R2.

    The model's last layer, `head_units`, undoes the standardization: it gives numbers in the units
    of the table.

    Args:
        classes: The columns that are predicted, in the order of the outputs.
        head: Layers between the features and the outputs.
        loss: mse, mae or huber, of standardized targets.
        huber_delta: Of huber, in standard deviations, above 0.
        coverage: Share of the intervals that hold the true number; None for no intervals.
    """

    score = RegressionSection.score
    served = "values"
    derived = frozenset({"interval"})
    activation = "linear"
    state_dtype = tf.float64
    prepare_changes_model = True

    def __init__(
        self,
        classes: Sequence[str],
        head: HeadLayers = HeadLayers(),  # noqa: B008  (frozen)
        *,
        loss: str = "mse",
        huber_delta: float = 1.0,
        coverage: float | None = None,
    ) -> None:
        super().__init__(classes, head)
        self.units = len(self.classes)
        self.targets = tf.TensorSpec((None, self.units), tf.float32)
        self._loss = loss
        self._huber_delta = huber_delta
        self._coverage = coverage
        self._half_widths: np.ndarray | None = None  # float32 (columns,), learned by `finish`
        # Variables: the step is compiled before the targets have been read.
        self._mean = tf.Variable(tf.zeros(self.units), trainable=False)
        self._scale = tf.Variable(tf.ones(self.units), trainable=False)
        self._layer: Affine | None = None

    def load_targets(
        self, examples: Sequence[Example], size: tuple[int, int], resize: Resize
    ) -> np.ndarray:
        """Returns float32 (n, columns), in the units of the table.

        Args:
            examples: Images with a target for each column.
            size: Not used.
            resize: Not used.
        """
        return np.array([list(map(float, example.targets)) for example in examples], np.float32)

    def prepare(self, targets: np.ndarray) -> None:
        """Computes mean and standard deviation of the training targets.

        Args:
            targets: float32 (n, columns); a column that does not vary is divided by 1.
        """
        values = targets.astype(np.float64)
        deviation = values.std(axis=0)  # of equal float32 values, added up as float64, exactly 0
        self._standardize(values.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def _standardize(self, mean: np.ndarray, scale: np.ndarray) -> None:
        self._mean.assign(mean.astype(np.float32))
        self._scale.assign(scale.astype(np.float32))
        if self._layer is not None:
            self._layer.set(scale, mean)

    def build_outputs(
        self, maps: Sequence[keras.KerasTensor], image: keras.KerasTensor
    ) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
        """Builds the head, and the layer that undoes the standardization.

        Args:
            maps: What the head reads: the base's output, or its taps.
            image: Not used.

        Returns:
            No further inputs, and float32 outputs (batch, columns) in the units of the table.
        """
        inputs, outputs = super().build_outputs(maps, image)
        self._layer = Affine(name="head_units")
        return inputs, self._layer(outputs)

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the loss of each image, the mean over columns, and what R2 is computed from.

        Args:
            outputs: In the units of the table, (batch, columns).
            targets: float32 (batch, columns), in the units of the table.

        Returns:
            float32 (batch,); float64 (batch, 3 * columns + 1): of standardized values the squared
            error, the target and its square, for each column; and 1.
        """
        errors = (outputs - targets) / self._scale
        standardized = (targets - self._mean) / self._scale
        if self._loss == "mae":
            losses = tf.reduce_mean(tf.abs(errors), axis=-1)
        elif self._loss == "huber":
            losses = keras.losses.huber(tf.zeros_like(errors), errors, delta=self._huber_delta)
        else:
            losses = tf.reduce_mean(tf.square(errors), axis=-1)
        # float64: of targets that do not vary, rounded squares would leave a variance.
        wide, values = tf.cast(errors, tf.float64), tf.cast(standardized, tf.float64)
        columns = [tf.square(wide), values, tf.square(values)]
        return losses, tf.concat([*columns, tf.ones_like(values[:, :1])], axis=-1)

    def solve(
        self,
        features: Standardized,
        targets: np.ndarray,
        solver: Solver,
    ) -> Solution:
        """Solves the standardized targets, by ridge regression whatever the loss.

        Args:
            features: (n, features), with their groups.
            targets: float32 (n, columns), in the units of the table.
            solver: ridge or auto.
        """
        values = (targets - self._mean.numpy()) / self._scale.numpy()
        return solve_values(features, values)

    def score_of(self, state: np.ndarray) -> float:
        """Returns R2, the mean over columns; of one that does not vary, 1 if exact and else 0.

        Args:
            state: As in `compare`.
        """
        squares, sums, sums_of_squares = state[:-1].reshape(3, self.units)
        total = sums_of_squares - sums**2 / state[-1]
        varies = total > 1e-12 * sums_of_squares
        r2 = np.where(varies, 1 - squares / np.where(varies, total, 1.0), squares == 0)
        return float(r2.mean())

    def finish(self, view: SplitView, targets: np.ndarray) -> None:
        """Learns how wide intervals must be, if they are asked for.

        Args:
            view: View of the validation images.
            targets: float32 (n, columns).
        """
        if self._coverage is not None:
            _, outputs = view.assess(self.join_targets(view.features, targets, seed=0))
            self._half_widths = find_half_widths(outputs, targets, self._coverage)

    def settle(self, outputs: np.ndarray, targets: np.ndarray) -> Regression:
        """Returns a copy with intervals for other outputs; itself where none are asked for.

        Args:
            outputs: For the validation images, (n, columns).
            targets: float32 (n, columns).
        """
        if self._coverage is None:
            return self
        task = copy.copy(self)
        task._half_widths = find_half_widths(outputs, targets, self._coverage)
        return task

    def state(self) -> dict[str, Any]:
        """Returns mean and standard deviation of each column in training, and its half width.

        The width is there where intervals are asked for; None stands for one without end.
        """
        pairs = zip(self._mean.numpy(), self._scale.numpy(), strict=True)
        values: list[dict[str, float | None]] = [
            {"mean": float(mean), "scale": float(scale)} for mean, scale in pairs
        ]
        columns = dict(zip(self.classes, values, strict=True))
        if self._half_widths is not None:
            for name, width in zip(self.classes, map(float, self._half_widths), strict=True):
                columns[name]["half_width"] = width if np.isfinite(width) else None
        return {"columns": columns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores means and deviations; the model has its own copy.

        Args:
            state: State from `state`.
        """
        columns = [state["columns"][name] for name in self.classes]
        mean, scale = (np.array([values[key] for values in columns]) for key in ("mean", "scale"))
        self._standardize(mean, scale)
        self._half_widths = read_half_widths(state, self.classes)

    def evaluate(self, view: SplitView, targets: np.ndarray) -> Evaluation:
        """Measures a model on a split; metrics as in `measure_regression`, and the loss.

        Args:
            view: The split as the model sees it.
            targets: float32 (n, columns).
        """
        losses, outputs = view.assess(self.join_targets(view.features, targets, seed=0))
        metrics, sample = self.measure(outputs, targets, losses=losses)
        predicted = name_columns("predicted", self.classes)
        rows = [
            [*map(float, example.targets), *map(shorten, output)]
            for example, output in zip(view.examples, outputs, strict=True)
        ]
        return Evaluation(metrics, Table([*self.classes, *predicted], rows), sample)

    def measure(
        self, outputs: np.ndarray, targets: np.ndarray, *, losses: np.ndarray | None = None
    ) -> tuple[dict[str, Any], Sample]:
        """Compares outputs with targets.

        Args:
            outputs: float (n, columns), in the units of the table.
            targets: float32 (n, columns).
            losses: float (n,), or None.
        """
        metrics = measure_regression(targets, outputs, self.classes, self._mean.numpy())
        if self._half_widths is not None:
            metrics |= measure_coverage(targets, outputs, self._half_widths, metrics["per_column"])
        loss = {} if losses is None else {"loss": float(losses.mean(dtype=np.float64))}
        sample = sample_values(targets, outputs, losses=losses)
        return {"images": metrics.pop("images"), **loss, **metrics}, sample

    def spread(self, targets: np.ndarray) -> np.ndarray:
        """Returns standardized targets.

        Args:
            targets: float32 (n, columns), in the units of the table.
        """
        return np.asarray((targets - self._mean.numpy()) / self._scale.numpy(), np.float64)

    def as_outputs(self, means: np.ndarray) -> np.ndarray:
        """Returns standardized values in the units of the table.

        Args:
            means: float64 (n, columns).
        """
        return np.asarray(means * self._scale.numpy() + self._mean.numpy())

    def activate(self, scores: np.ndarray) -> np.ndarray:
        """Returns what a solved head predicts, in the units of the table.

        Args:
            scores: Standardized, float64 (n, columns).
        """
        return self.as_outputs(scores)

    @property
    def output_reader(self) -> ValuesReader:
        """How numbers are read."""
        return ValuesReader(self.classes, self._half_widths)

    def serve(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what an exported model returns.

        Args:
            outputs: float32 (batch, columns).

        Returns:
            `values` float32 (batch, columns), in the units of the table; with intervals also
            `interval` float32 (batch, columns, 2), from and to.
        """
        if self._half_widths is None:
            return {"values": outputs}
        widths = tf.constant(self._half_widths)
        return {"values": outputs, "interval": tf.stack([outputs - widths, outputs + widths], -1)}

    def measure_differences(self, outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Returns how far values are apart, in standard deviations of the training targets.

        What a float32 of that size cannot tell apart does not count: of years, 2000 with a
        deviation of 10, one step is 1.2e-5 deviations.

        Args:
            outputs: float32 (n, columns), in the units of the table.
            expected: Likewise.

        Returns:
            float32 (n, columns).
        """
        rounding = _ROUNDINGS * np.spacing(np.abs(expected))
        difference = np.maximum(np.abs(outputs - expected) - rounding, 0)
        return np.asarray(difference / self._scale.numpy())
