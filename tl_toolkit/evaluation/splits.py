"""What a model's answers for whole splits come to: one for each image, or one for each pixel."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tl_toolkit.evaluation.metrics import measure
from tl_toolkit.evaluation.predict import predict_images
from tl_toolkit.images.pipeline import Images
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.tasks.base import Task, answers_pixels
from tl_toolkit.tasks.dense.evaluation import measure_masks, measure_trained_masks
from tl_toolkit.training.loop import Trainer

__all__ = ["Predictions", "measure_kept", "measure_trained", "write_predictions"]


class Predictions(NamedTuple):
    """The columns and rows of predictions.csv."""

    columns: list[str]
    rows: list[list[Any]]


def measure_trained(
    trainer: Trainer, task: Task, images: Mapping[str, Images], classes: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], Predictions]:
    """Measures what a trainer kept on validation and test images, from the features at hand.

    Args:
        trainer: After its training.
        task: The task of the recipe.
        images: Its images by split.
        classes: Class names in the order of the outputs.

    Returns:
        The metrics of each split there is, and the answers for each image.
    """
    metrics: dict[str, dict[str, Any]] = {}
    columns = ["path", "split"]
    rows: list[list[Any]] = []
    for split in ("validation", "test"):
        if split not in images:
            continue
        examples = images[split].examples
        if answers_pixels(task):
            metrics[split], scores = measure_trained_masks(trainer, split, images[split], task)
            names = list(max(scores, key=len))  # an image that cannot be measured has no score
            columns = ["path", "split", *names]
            rows += [
                [example.path, split, *map(row.get, names)]
                for example, row in zip(examples, scores, strict=True)
            ]
            continue
        found = trainer.predict(split)
        metrics[split] = measure(images[split].labels, found, classes)
        columns = ["path", "split", "label", "predicted", "probability", *classes]
        for example, row in zip(examples, found, strict=True):
            best = int(row.argmax())
            answer = [classes[best], float(row[best]), *map(float, row)]
            rows.append([example.path, split, str(example.label), *answer])
    return metrics, Predictions(columns, rows)


def measure_kept(
    model: keras.Model, task: Task, images: Images, classes: Sequence[str]
) -> dict[str, Any]:
    """Measures a kept model on the images of one split."""
    if answers_pixels(task):
        return measure_masks(model, images, task)
    return measure(images.labels, predict_images(model, images), classes)


def write_predictions(path: Path, found: Predictions) -> None:
    """Writes predictions.csv."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows(found.rows)
    write_atomically(path, buffer.getvalue())
