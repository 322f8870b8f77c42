"""Metrics of whole splits, and a prediction for each image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, as_list, pad_batch
from tl_toolkit.images.pipeline import Images
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.types import Evaluation, ExampleSource, SplitView, Table
from tl_toolkit.training.loop import Trainer
from tl_toolkit.transfer.precision import set_precision

__all__ = ["TrainedView", "evaluate_images", "evaluate_trained", "write_predictions"]

_SPLITS = ("validation", "test")


def evaluate_trained(
    trainer: Trainer, task: Task, images: Mapping[str, Images]
) -> tuple[dict[str, dict[str, Any]], Table]:
    """Measures the kept weights on validation and test images, from features that are computed.

    A model that was trained in bfloat16 computes in float32 from now on, and is measured by its
    images: it is the model that is kept.

    Args:
        trainer: The trainer, after its training.
        task: The task of the recipe; it fits its thresholds, if any, to the validation images.
        images: Its images by split.

    Returns:
        The metrics of each split there is, and the predictions for each image.
    """
    measured = [split for split in _SPLITS if split in images]
    views: Mapping[str, SplitView]
    if trainer.precision == "float32":
        views = {split: TrainedView(trainer, split, images[split]) for split in measured}
    else:
        set_precision(trainer.transfer, "float32")
        views = {split: _ModelView(trainer.model, task, images[split]) for split in measured}
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
    metrics = {split: evaluation.metrics for split, evaluation in evaluations.items()}
    return metrics, Table(["path", "split", *columns], rows)


def evaluate_images(model: keras.Model, task: Task, images: Images) -> Evaluation:
    """Measures a whole model on the images of one split.

    Args:
        model: The model.
        task: The task that it has learned.
        images: The images, with their targets.
    """
    return task.evaluate(_ModelView(model, task, images), images.targets)


def write_predictions(path: Path, predictions: Table) -> None:
    """Writes predictions.csv.

    Args:
        path: The file.
        predictions: Its columns and rows.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(predictions.columns)
    writer.writerows(predictions.rows)
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


class _ModelView(SplitView):
    """A split as a whole model sees it: by its images."""

    def __init__(self, model: keras.Model, task: Task, images: Images) -> None:
        self.examples = images.examples
        self.model = model
        self.source = None
        self.features = _Pixels(images)
        self._task = task

    def assess(self, inputs: ExampleSource) -> tuple[np.ndarray, np.ndarray]:
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


class _Pixels:
    """Yields the images themselves, as the features that enter a model."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        yield from self._images.batches(order, batch_size)
