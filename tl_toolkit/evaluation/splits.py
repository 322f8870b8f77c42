"""Metrics of whole splits, and a prediction for each image."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, FixedBatch, as_list, pad_batch
from tl_toolkit.images.pipeline import Images
from tl_toolkit.images.tta import Size, View, build_views
from tl_toolkit.runs.files import write_atomically, write_rows
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.image import average_views
from tl_toolkit.tasks.resampling import Sample, compare_samples, find_intervals
from tl_toolkit.tasks.types import Evaluation, ExampleSource, SplitView, Table
from tl_toolkit.training.loop import Trainer
from tl_toolkit.transfer.precision import set_precision

__all__ = [
    "Measured",
    "ModelView",
    "TrainedView",
    "add_intervals",
    "compare_runs",
    "evaluate_images",
    "evaluate_trained",
    "evaluate_views",
    "write_predictions",
]

_SPLITS = ("validation", "test")


class Measured(NamedTuple):
    """What was measured of a training.

    Attributes:
        metrics: The metrics of each split there is.
        predictions: The predictions for each image.
        samples: The images of a split as its metrics are computed from them.
    """

    metrics: dict[str, dict[str, Any]]
    predictions: Table
    samples: dict[str, Sample]


def evaluate_trained(trainer: Trainer, task: Task, images: Mapping[str, Images]) -> Measured:
    """Measures the kept weights on validation and test images, from features that are computed.

    A model that was trained in bfloat16 computes in float32 from now on, and is measured by its
    images: it is the model that is kept. So is a split that the trainer has no features of.

    Args:
        trainer: The trainer, after its training.
        task: The task of the recipe; it fits its thresholds, if any, to the validation images.
        images: Its images by split.
    """
    measured = [split for split in _SPLITS if split in images]
    has_features = trainer.splits if trainer.precision == "float32" else frozenset()
    if trainer.precision != "float32":
        set_precision(trainer.transfer, "float32")
    views: dict[str, SplitView] = {
        split: TrainedView(trainer, split, images[split])
        if split in has_features
        else ModelView(trainer.model, task, images[split])
        for split in measured
    }
    if "validation" in views:
        task.finish(views["validation"], images["validation"].targets)
    evaluations = {split: task.evaluate(view, images[split].targets)
                   for split, view in views.items()}  # fmt: skip
    columns = max((result.predictions.columns for result in evaluations.values()), key=len,
                  default=[])  # fmt: skip
    rows = [
        [example.path, split, *row]
        for split, evaluation in evaluations.items()
        for example, row in zip(images[split].examples, evaluation.predictions.rows, strict=True)
    ]
    return Measured(
        {split: add_intervals(evaluation) for split, evaluation in evaluations.items()},
        Table(["path", "split", *columns], rows),
        {split: result.sample for split, result in evaluations.items() if result.sample},
    )


def compare_runs(run: Measured, other: Measured, name: str, metric: str) -> None:
    """Adds to the metrics of a run whether it is better than another one on the same images.

    Args:
        run: The run.
        other: The other one.
        name: What the other is called in the metrics.
        metric: What is compared where images are not simply right or wrong.
    """
    for split in run.samples.keys() & other.samples.keys():
        found = compare_samples(run.samples[split], other.samples[split], metric)
        run.metrics[split].setdefault("against", {})[name] = found


def evaluate_images(model: keras.Model, task: Task, images: Images) -> dict[str, Any]:
    """Returns the metrics of a whole model on the images of one split.

    Args:
        model: The model.
        task: The task that it has learned.
        images: The images, with their targets.
    """
    return add_intervals(task.evaluate(ModelView(model, task, images), images.targets))


def add_intervals(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the metrics with their intervals; one that a task has a better interval of keeps it.

    Args:
        evaluation: Of a split.
    """
    metrics = evaluation.metrics
    if evaluation.sample is None:
        return metrics
    intervals = find_intervals(evaluation.sample) | metrics.get("intervals", {})
    return {**metrics, "intervals": intervals}


def evaluate_views(
    model: keras.Model, task: Task, images: Mapping[Size, Images], views: Sequence[View]
) -> dict[str, Any]:
    """Returns the metrics of a model whose outputs are averaged over several views of each image.

    The loss of an image is that of the average.

    Args:
        model: The model.
        task: The task that it has learned.
        images: The images at each size of `find_sizes`, the model's first, with their targets.
        views: The views, at least one.
    """
    view = _AveragedView(model, task, images, views)
    return add_intervals(task.evaluate(view, view.images.targets))


def write_predictions(path: Path, predictions: Table) -> None:
    """Writes predictions.csv.

    Args:
        path: The file.
        predictions: Its columns and rows.
    """
    buffer = io.StringIO()
    write_rows(buffer, [predictions.columns, *predictions.rows])
    write_atomically(path, buffer.getvalue())


class TrainedView(SplitView):
    """A split as the model sees it that a trainer holds: by the features of its last phase.

    Args:
        trainer: The trainer, after its training.
        split: Name of the split.
        images: Its images.
    """

    def __init__(self, trainer: Trainer, split: str, images: Images) -> None:
        self.examples = images.examples
        self.model = trainer.model
        cut, self.features = trainer.features(split)
        self.source = cut.tensors
        self._assess = trainer.assess

    def assess(self, inputs: ExampleSource) -> tuple[np.ndarray, np.ndarray]:
        """Returns losses and outputs, as `SplitView.assess`.

        Args:
            inputs: The features joined with targets.
        """
        return self._assess(inputs, len(self.examples))


class ModelView(SplitView):
    """A split as a whole model sees it: by its images.

    Args:
        model: The model.
        task: The task that it has learned.
        images: Its images.
    """

    def __init__(self, model: keras.Model, task: Task, images: Images) -> None:
        self.examples = images.examples
        self.model = model
        self.source = None
        self.features = _Pixels(images)
        self._task = task

    def assess(self, inputs: ExampleSource) -> tuple[np.ndarray, np.ndarray]:
        """Returns losses and outputs, as `SplitView.assess`.

        Args:
            inputs: The images joined with targets.
        """
        size = self._task.prefix_batch_size
        run = self._compile(size)
        losses: list[np.ndarray] = []
        outputs: list[np.ndarray] = []
        for batch, targets in inputs.chunks(np.arange(len(self.examples)), size):
            missing = size - len(targets)
            padding = [(0, missing)] + [(0, 0)] * (targets.ndim - 1)
            results = run(pad_batch(batch, missing), np.pad(targets, padding))
            for column, values in zip((losses, outputs), results, strict=True):
                column.append(values.numpy()[: len(targets)])
        return np.concatenate(losses), np.concatenate(outputs)

    def _compile(self, size: int) -> Any:
        """Compiles model and loss as one function: otherwise Keras does not find the logits."""
        inputs = [
            tf.TensorSpec((size, *tensor.shape[1:]), tf.float32) for tensor in self.model.inputs
        ]
        shape = self._task.targets.shape[1:]
        targets = tf.TensorSpec((size, *shape), self._task.targets.dtype)

        @tf.function(input_signature=[inputs, targets], autograph=False)
        def run(batch: Any, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            outputs = self.model(batch if len(batch) > 1 else batch[0], training=False)
            return self._task.compare(outputs, targets)[0], outputs

        def call(batch: Batch, targets: np.ndarray) -> Any:
            return run([tf.cast(tensor, tf.float32) for tensor in as_list(batch)], targets)

        return call


class _AveragedView(SplitView):
    """A split as a whole model sees it in several views of each image."""

    def __init__(
        self, model: keras.Model, task: Task, images: Mapping[Size, Images], views: Sequence[View]
    ) -> None:
        self.images = next(iter(images.values()))
        self.examples = self.images.examples
        self.model = model
        self.source = None
        self.features = _Views(images, views)
        self.views = views
        self._task = task

    def assess(self, inputs: ExampleSource) -> tuple[np.ndarray, np.ndarray]:
        run = FixedBatch(self.model)
        losses: list[np.ndarray] = []
        outputs: list[np.ndarray] = []
        for batch, targets in inputs.chunks(np.arange(len(self.examples)), run.batch_size):
            outputs.append(average_views(run, np.asarray(batch)))
            losses.append(self._task.compare(tf.constant(outputs[-1]), targets)[0].numpy())
        return np.concatenate(losses), np.concatenate(outputs)


class _Views:
    """Yields several views of each image, (n, views, h, w, channels)."""

    def __init__(self, images: Mapping[Size, Images], views: Sequence[View]) -> None:
        self._images = images
        self._views = views

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        size = next(iter(self._images))
        sources = [images.batches(order, batch_size) for images in self._images.values()]
        for batches in zip(*sources, strict=True):
            pixels = dict(zip(self._images, (batch for batch, _ in batches), strict=True))
            yield build_views(pixels, size, self._views), batches[0][1]


class _Pixels:
    """Yields the images themselves, as the features that enter a model."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        yield from self._images.batches(order, batch_size)
