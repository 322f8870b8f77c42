"""The contract of a task: its targets, head, loss, metrics, predictions and served model.

A task is a folder with `spec.py` (its section of a recipe, light), `planning.py` (its part of a
plan, light), `outputs.py` (what outputs say, by numpy alone), `report.py` (its sections of a
report, from what a run's files hold) and `task.py`, which defines `build(recipe, classes)` and
returns a `Task`. Tasks with one vector of outputs per image share `tl_toolkit.tasks.image`, and
tasks with one output per pixel share `tl_toolkit.tasks.dense`. No code outside this folder depends
on the kind of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import PREFIX_BATCH
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.tasks.parity import Limits
from tl_toolkit.tasks.predictions import OutputReader
from tl_toolkit.tasks.resampling import Sample
from tl_toolkit.tasks.solvers import Solution, Solver
from tl_toolkit.tasks.standardized import Standardized
from tl_toolkit.tasks.types import (
    Ask,
    Endpoints,
    Evaluation,
    ExampleSource,
    Features,
    Lines,
    Prediction,
    PredictionOptions,
    Resize,
    SplitView,
    Table,
    Transform,
)

__all__ = ["YARDSTICKS", "Task"]


YARDSTICKS = ("neighbors", "probe")
"""Predictors that are fitted to features: nearest neighbours, and a linear probe."""


class Task:
    """A task that a model learns, and the meaning of its outputs.

    A score need not be a mean over images (a mean IoU is not). So each image has a metric state:
    numbers that are summed over images, and from which the score is computed.

    Args:
        classes: Names of the outputs, in their order.

    Attributes:
        score: Name of the metric that epochs are compared by; higher is better.
        units: Outputs of the last layer.
        activation: Activation of the last layer.
        targets: Shape and type of the targets of a batch, inside a compiled function.
        state_dtype: Type of metric states.
        prefix_batch_size: Images per call of a compiled prefix.
        prepare_changes_model: Whether the model holds what `prepare` takes from the targets.
        has_yardsticks: Whether `fit_yardsticks` gives any.
        probes_pixels: Whether bases are judged by single pixels of the images, which
            `read_pixels` reads.
        final_score: Name of the metric that finished models are compared by; the score if empty.
        served: The float output that an export is compared by, where it has several.
    """

    score: str
    units: int
    activation: str
    targets: tf.TensorSpec
    state_dtype: tf.DType = tf.int32
    prefix_batch_size: int = PREFIX_BATCH
    prepare_changes_model: bool = False
    has_yardsticks: bool = False
    probes_pixels: bool = False
    final_score: str = ""
    served: str = ""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)

    # ------------------------------------------------------------------------------------- targets

    def inspect_targets(
        self,
        manifest: Manifest,
        *,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
        progress: Callable[[int, int], None] | None = None,
    ) -> Manifest:
        """Opens files of targets, once, and adds their digests; most tasks have none.

        Args:
            manifest: Images that were inspected.
            size: (height, width) that images are resized to; None for their own.
            resize: How they are resized to that size.
            progress: Receives how many are done, and how many there are, in the caller's thread.

        Raises:
            DataError: Files cannot be read, or hold no targets; all of them at once.
        """
        return manifest

    def describe_imbalance(self, manifest: Manifest) -> str:
        """Returns a warning where the training images make the score mislead; "" elsewhere.

        Args:
            manifest: Images with their targets.
        """
        return ""

    def load_targets(
        self, examples: Sequence[Example], size: tuple[int, int], resize: Resize
    ) -> Any:
        """Returns the targets of a split.

        Args:
            examples: Usable images of a manifest.
            size: (height, width) of the images.
            resize: How they are resized to that size.
        """
        raise NotImplementedError

    def prepare(self, targets: Any) -> None:
        """Learns settings from the training targets, before the first step.

        Args:
            targets: Targets from `load_targets`, of the training images.
        """

    def join_targets(
        self, features: Features, targets: Any, *, seed: int, transform: Transform | None = None
    ) -> ExampleSource:
        """Returns the features of a split with their targets.

        Args:
            features: The tensors that cross the cut.
            targets: Targets from `load_targets`, of the same images.
            seed: Sampling depends on it, the epoch and the image's place.
            transform: The geometric transforms of the images; by default none.
        """
        raise NotImplementedError

    # --------------------------------------------------------------------------------------- model

    def prepare_input(self, image: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the input of the base, from preprocessed images.

        Args:
            image: float32 (batch, h, w, 3).
        """
        return image

    def find_maps(
        self,
        architecture: Architecture,
        image: keras.KerasTensor,
        features: keras.KerasTensor,
    ) -> tuple[keras.KerasTensor, ...]:
        """Returns the tensors of a base that the head reads, in the order of the graph.

        Args:
            architecture: The record of the base.
            image: The input of the base.
            features: Its output.

        Raises:
            RecipeError: The base has none.
        """
        return (features,)

    def build_outputs(
        self, maps: Sequence[keras.KerasTensor], image: keras.KerasTensor
    ) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
        """Builds the head.

        Args:
            maps: Maps from `find_maps`.
            image: The input of the base.

        Returns:
            The model's inputs beside the images, and the outputs (batch, ..., units).
        """
        raise NotImplementedError

    def sample_inputs(
        self, random: np.random.Generator, count: int, size: tuple[int, int]
    ) -> list[np.ndarray]:
        """Samples values for the inputs beside the images, to compare models with.

        Args:
            random: The generator of the samples.
            count: Images.
            size: (height, width) of the images.
        """
        return []

    # ------------------------------------------------------------------------------- loss and score

    def compare(self, outputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Compares a batch with its targets, inside a compiled function.

        Args:
            outputs: Outputs of the model's last layer, from which Keras finds the logits: (batch,
                units) or (batch, pixels, units).
            targets: As `targets` says.

        Returns:
            float32 (batch,), the loss of each image; (batch, m), its metric state.
        """
        raise NotImplementedError

    def order_epoch(self, targets: Any, random: np.random.Generator) -> np.ndarray:
        """Returns the images of an epoch of training, by index, in the order of its steps.

        Args:
            targets: Targets from `load_targets`, of the training images.
            random: The generator of this epoch alone.

        Returns:
            int (n,), as many as there are training images; by default each once.
        """
        return random.permutation(len(targets))

    def find_objective(
        self, outputs: tf.Tensor, targets: tf.Tensor, losses: tf.Tensor
    ) -> tf.Tensor:
        """Returns what a training step minimizes for each image; the loss itself by default.

        Histories show the loss, which training and validation have in common.

        Args:
            outputs: As in `compare`.
            targets: As in `compare`.
            losses: What `compare` returns for them, float32 (batch,).
        """
        return losses

    def score_of(self, state: np.ndarray) -> float:
        """Returns the score of images from the sum of their metric states.

        Args:
            state: (m,).
        """
        raise NotImplementedError

    def compile_arguments(self) -> dict[str, Any]:
        """Returns loss and metrics as `keras.Model.compile` takes them."""
        return {"loss": _TaskLoss(self)}

    def solve(
        self,
        features: Standardized,
        targets: Any,
        solver: Solver,
    ) -> Solution:
        """Solves the last layer of a head as a convex problem.

        Args:
            features: What enters that layer, for the training images, (n, features), with their
                groups.
            targets: Targets from `load_targets`, of the same images.
            solver: ridge, logistic or auto.

        Raises:
            TypeError: The task has no such head, which its recipes are refused for.
        """
        raise TypeError(f"{type(self).__name__}: no head that can be solved")

    def find_members(self, targets: Any) -> np.ndarray:
        """Returns (n, outputs), 1 where an image is of an output's class, else 0.

        Args:
            targets: Targets from `load_targets`.

        Raises:
            TypeError: Outputs of the task belong to no single class, as `has_class_outputs` says.
        """
        raise TypeError(f"{type(self).__name__}: no outputs of single classes")

    def find_shares(self, outputs: Any) -> Any:
        """Returns probabilities of classes that exclude each other, (batch, classes).

        Args:
            outputs: Outputs of a model of this task, of its last layer.

        Raises:
            TypeError: The task has none, as `takes_teacher` says.
        """
        raise TypeError(f"{type(self).__name__}: no probabilities of classes")

    def measure_differences(self, outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Returns how far outputs are apart, in what limits of differences are given in.

        Args:
            outputs: Of a model, or of a part or an export of it.
            expected: What they should be, of the same shape.

        Returns:
            float, of the same shape; at least 0.
        """
        return np.asarray(np.abs(outputs - expected))

    # ----------------------------------------------------------------------------- a finished model

    def finish(self, view: SplitView, targets: Any) -> None:
        """Learns settings from the validation images, after the last step.

        Args:
            view: The validation images, as the kept model sees them.
            targets: Targets from `load_targets`.
        """

    def state(self) -> dict[str, Any]:
        """Returns the settings learned from data, as plain values; {} for most tasks."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores the settings that `state` returned.

        Args:
            state: Plain values.
        """

    def measure_uncertainty(self, outputs: np.ndarray) -> np.ndarray:
        """Returns how uncertain each image is, float64 (n,), of tasks that rank classes.

        Args:
            outputs: Of the model, (n, units).

        Returns:
            0 where one class, or no doubt of any, is left, to 1 where all are equally likely.

        Raises:
            TypeError: The task gives no class a probability.
        """
        raise TypeError(f"{type(self).__name__}: gives no class a probability")

    def describe(self, path: Path, output: np.ndarray | None, error: str | None) -> Prediction:
        """Returns the prediction for a file, of tasks with one vector of outputs per image.

        Args:
            path: The file.
            output: The model's outputs, float32 (units,); None for a file that was refused.
            error: Why it was refused; None otherwise.

        Raises:
            TypeError: The task predicts whole maps.
        """
        raise TypeError(f"{type(self).__name__}: predicts whole maps")

    def evaluate(self, view: SplitView, targets: Any) -> Evaluation:
        """Measures a model on a split.

        Args:
            view: The split as the model sees it.
            targets: Targets from `load_targets`.
        """
        raise NotImplementedError

    def fit_yardsticks(
        self, features: np.ndarray, targets: Any, *, names: Sequence[str] = YARDSTICKS
    ) -> Mapping[str, Callable[[np.ndarray], np.ndarray]]:
        """Fits simple predictors to what a frozen base makes of the training images.

        Args:
            features: A vector for each image, (n, features), n >= 2; of tasks that probe pixels,
                for each pixel, (n, pixels, features).
            targets: Targets from `load_targets`, of the same images; of pixels, (n, pixels, ...).
            names: Those that are fitted.

        Returns:
            By the names of their metrics: functions from features to outputs of the model's kind.
        """
        return {}

    def read_pixels(
        self,
        model: keras.Model,
        tensors: Sequence[keras.KerasTensor],
        features: Features,
        targets: Any,
        *,
        order: np.ndarray,
        count: int,
        report: Callable[[int], None],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns what a base makes of some pixels of each image, and their targets.

        Args:
            model: The whole model.
            tensors: Those of its graph that cross the cut before its head.
            features: Their values.
            targets: Targets from `load_targets`, of the same images.
            order: Indices of the images.
            count: Pixels of an image, the same ones for each base.
            report: Receives the number of images done.

        Returns:
            float32 (images, pixels, channels), and the targets (images, pixels, ...).

        Raises:
            TypeError: The task has no output for each pixel, as `probes_pixels` says.
        """
        raise TypeError(f"{type(self).__name__}: has no output for each pixel")

    def settle(self, outputs: np.ndarray, targets: Any) -> Task:
        """Returns the task as `finish` would leave it for other outputs than those of the model.

        Args:
            outputs: Outputs of a yardstick for the validation images, (n, units).
            targets: Targets from `load_targets`, of the same images.

        Returns:
            The task itself where nothing depends on them.
        """
        return self

    def measure(
        self, outputs: np.ndarray, targets: Any, *, losses: np.ndarray | None = None
    ) -> tuple[dict[str, Any], Sample]:
        """Compares outputs with targets, for tasks that have yardsticks or probe pixels.

        Args:
            outputs: Outputs of the model, or of a yardstick, (n, units); of pixels, (n, pixels,
                units).
            targets: Targets from `load_targets`, of the same images; of pixels, (n, pixels, ...).
            losses: The loss of each image, float (n,), where a model has computed it.

        Returns:
            The metrics, and the images as these are computed from them.

        Raises:
            TypeError: The task has none.
        """
        raise TypeError(f"{type(self).__name__}: measures whole maps, and has no yardsticks")

    def predict(
        self, model: keras.Model, paths: Sequence[Path], options: PredictionOptions
    ) -> Iterator[Prediction]:
        """Yields a prediction for each file, in order, with an error if it cannot be decoded.

        Args:
            model: The whole model.
            paths: Image files.
            options: How files are read, and which pictures are written.

        Raises:
            OutputError: Pictures cannot be written.
        """
        raise NotImplementedError

    @property
    def output_reader(self) -> OutputReader:
        """What the outputs say, and how it is shown."""
        raise NotImplementedError

    def tabulate(self, records: Sequence[Mapping[str, Any]], *, wide: bool = False) -> Table:
        """Returns predictions as a table.

        Args:
            records: Records from `Prediction.as_record`.
            wide: Include every number, for CSV; else only those that fit a terminal.
        """
        return self.output_reader.tabulate(records, wide=wide)

    # -------------------------------------------------------------------------------------- serving

    def build_endpoints(
        self, model: keras.Model, resize: Resize, *, webp: bool = True
    ) -> Endpoints:
        """Returns the functions of an exported model, decoding and resizing included.

        Args:
            model: The whole model.
            resize: How images are resized to the model's size.
            webp: Whether encoded images may be WebP, which takes TensorFlow 2.20.
        """
        raise NotImplementedError

    def build_graph(self, model: keras.Model) -> keras.Model:
        """Returns the model as formats hold it that know no task: images to outputs.

        Where there are several outputs, they are a dictionary.

        Args:
            model: The whole model.
        """
        return model

    def build_lines(self, model: keras.Model) -> Lines | None:
        """Returns the outputs between the pixels of an image; None where an image has one output.

        Args:
            model: The whole model.
        """
        return None

    def measure_graph(self, outputs: np.ndarray, targets: Any) -> dict[str, Any]:
        """Measures the outputs of a graph, of a format's or of the Keras model's; {} for none.

        Args:
            outputs: Outputs of `build_graph`, (n, ...); of several, `served`.
            targets: Targets from `load_targets`, of the same images.
        """
        return {}

    def find_clear(
        self, expected: Mapping[str, np.ndarray], margin: float
    ) -> dict[str, np.ndarray]:
        """Returns where truth values are so clear that outputs apart by a margin change none.

        Args:
            expected: Outputs by name.
            margin: How far numbers may be apart.

        Returns:
            bool, of the shape of each output that holds truth values, by its name.
        """
        return {}

    def find_answers(self, outputs: np.ndarray) -> np.ndarray | None:
        """Returns what the outputs say, of which two models agree or not; None where they measure.

        Args:
            outputs: Outputs of `build_graph`, (n, ...).
        """
        return None

    def compare_served(
        self,
        model: keras.Model,
        files: Mapping[str, bytes],
        resize: Resize,
        ask: Ask,
        limits: Limits,
    ) -> dict[str, Any]:
        """Compares an exported model with the Keras model.

        Args:
            model: The Keras model.
            files: Encoded images by name; may be empty, as probes are added.
            resize: How images are resized to the model's size.
            ask: Runs the exported model.
            limits: The largest differences allowed.

        Returns:
            A report from `tl_toolkit.tasks.parity.make_report`.
        """
        raise NotImplementedError


class _TaskLoss(keras.losses.Loss):
    """The loss of a task, of each image."""

    def __init__(self, task: Task) -> None:
        super().__init__(name=f"{type(task).__name__.lower()}_loss")
        self._task = task

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        # Keras has cast them to the type of the outputs.
        return self._task.compare(y_pred, tf.cast(y_true, self._task.targets.dtype))[0]
