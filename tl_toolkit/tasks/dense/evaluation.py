"""Whole maps: compared with targets, and written as images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.architectures.batches import Batch, take_examples
from tl_toolkit.errors import DataError
from tl_toolkit.images.pipeline import read_pixels, resize_pixels
from tl_toolkit.images.tta import Size, View, build_views
from tl_toolkit.tasks.dense.maps import MapWriter
from tl_toolkit.tasks.dense.mirrors import MirrorPredictor
from tl_toolkit.tasks.dense.outputs import MapPrediction
from tl_toolkit.tasks.dense.predictor import DensePredictor
from tl_toolkit.tasks.dense.resizing import blank_unseen, find_seen, place_pixels
from tl_toolkit.tasks.dense.targets import Targets
from tl_toolkit.tasks.dense.task import PREFIX_BATCH, DenseTask, MapMetric
from tl_toolkit.tasks.types import Features, PredictionOptions, SplitView

__all__ = [
    "measure_maps",
    "measure_outputs",
    "predict_maps",
    "sample_lattice",
]


def measure_maps(
    view: SplitView, targets: Targets, task: DenseTask
) -> tuple[MapMetric, MapMetric | None, list[dict[str, float]]]:
    """Compares a model's maps with the targets, each at the size of its own file.

    Args:
        view: The split as the model sees it.
        targets: Targets of the same images.
        task: The task, which reduces outputs to maps and compares them.

    Returns:
        The metric of all images, that of the task's yardstick on them (None where it has none), and
        the model's scores of each image.
    """
    predictor = DensePredictor(view.model, source=view.source)
    mirrors = MirrorPredictor(predictor, task, view.views)
    metric = task.build_metric()
    plain = task.build_metric() if task.yardstick else None
    scores: list[dict[str, float]] = []
    for batch, indices in _batches(view.features, len(targets)):
        # With views the features are images, several of each; else whatever the source is of.
        maps = mirrors.read_maps(np.asarray(batch)) if view.views else [predictor.read_maps(batch)]
        for place, index in enumerate(indices):
            target = targets.whole(int(index))
            ys, xs = place_pixels(target.shape[:2], targets.image_size, targets.resize)
            seen_ys, seen_xs = find_seen(ys, xs, targets.image_size)
            if not (seen_ys.any() and seen_xs.any()):  # a crop of an image that is all but a line
                scores.append({})
                continue
            own = [[tensor[place] for tensor in tensors] for tensors in maps]
            prediction = mirrors.predict(own, ys[seen_ys], xs[seen_xs])
            seen = np.ix_(seen_ys, seen_xs)
            scores.append(metric.add(prediction, target[seen]))
            if plain is not None:
                image = read_pixels(Path(view.examples[int(index)].path))
                plain.add(task.predict_plainly(image[seen]), target[seen])
    return metric, plain, scores


def measure_outputs(outputs: np.ndarray, targets: Targets, task: DenseTask) -> dict[str, Any]:
    """Compares outputs for the pixels of a model's images with the targets, at their own size.

    Each pixel of a target is compared with the nearest of the model's image, where `measure_maps`
    predicts between them: scores differ a little from those of a run.

    Args:
        outputs: (n, h, w, units), of the model's size.
        targets: Targets of the same images.
        task: The task.
    """
    metric = task.build_metric()
    for index, image in enumerate(outputs):
        target = targets.whole(index)
        places = place_pixels(target.shape[:2], targets.image_size, targets.resize)
        seen = find_seen(*places, targets.image_size)
        if not all(lines.any() for lines in seen):
            continue
        rows, columns = (
            np.clip(np.rint(line[is_seen]).astype(np.int64), 0, side - 1)
            for line, is_seen, side in zip(places, seen, targets.image_size, strict=True)
        )
        maps = task.postprocess(tf.constant(image[np.ix_(rows, columns)]))
        prediction = {name: value.numpy() for name, value in maps.items()}
        metric.add(prediction, target[np.ix_(*seen)])
    return metric.result()


def sample_lattice(
    view: SplitView, targets: Targets, *, most_images: int = 256, most_lines: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Returns outputs and targets of pixels that are spread evenly over a split.

    Training samples pixels of rare classes more often: what is to hold for whole maps is learned
    from these.

    Args:
        view: The split as the model sees it.
        targets: Targets of the same images.
        most_images: Of more images some are read, spread evenly.
        most_lines: Rows, and columns, of each image.

    Returns:
        float32 (n, units), and the targets (n, ...).
    """
    predictor = DensePredictor(view.model, source=view.source)
    order = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), most_images)).astype(int))
    outputs, wanted = [], []
    for batch, indices in view.features.chunks(order, PREFIX_BATCH):
        maps = predictor.read_maps(batch)
        for place, index in enumerate(indices):
            target = targets.whole(int(index))
            ys, xs = place_pixels(target.shape[:2], targets.image_size, targets.resize)
            rows, columns = (
                _thin(np.flatnonzero(seen), most_lines)
                for seen in find_seen(ys, xs, targets.image_size)
            )
            if not (len(rows) and len(columns)):
                continue
            predicted = predictor.predict(
                [tensor[place] for tensor in maps], ys[rows], xs[columns], _keep_outputs
            )["outputs"]
            outputs.append(predicted.reshape(-1, predicted.shape[-1]))
            wanted.append(target[np.ix_(rows, columns)].reshape(-1, *target.shape[2:]))
    return np.concatenate(outputs), np.concatenate(wanted)


def _keep_outputs(outputs: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"outputs": outputs}


def _thin(places: np.ndarray, most: int) -> np.ndarray:
    chosen = np.linspace(0, len(places) - 1, min(len(places), most)).round().astype(int)
    return np.asarray(places[chosen])


def _batches(features: Features, count: int) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields features of a few images at a time, in order: whole maps are large."""
    for chunk, indices in features.chunks(np.arange(count), PREFIX_BATCH):
        for start in range(0, len(indices), PREFIX_BATCH):
            stop = start + PREFIX_BATCH
            yield take_examples(chunk, start, stop), indices[start:stop]


def predict_maps(
    model: keras.Model, paths: Sequence[Path], task: DenseTask, options: PredictionOptions
) -> Iterator[MapPrediction]:
    """Yields the maps of each file, in order, at the file's own size.

    Args:
        model: [images, pixels] to outputs.
        paths: Image files.
        task: The task, which reduces outputs to maps.
        options: How images are resized, if they are; the folder that receives pictures.

    Raises:
        OutputError: The folder cannot be written, or a file in it would be replaced that no
            earlier call wrote.
    """
    writer = MapWriter(task, options.out, paths, options.report)
    predictor = DensePredictor(model)
    mirrors = MirrorPredictor(predictor, task, options.views)
    if options.native and not predictor.is_seamless:
        options.report(
            f"{model.name} sees too far for windows without seams: they may show a little"
        )
    for count, path in enumerate(paths, start=1):
        try:
            pixels = np.asarray(options.read(path))
        except DataError as error:
            yield MapPrediction(str(path), error=error.problems[0].what)
        else:
            if options.native:
                maps = predictor.predict_large(pixels, task.postprocess)
            else:
                maps = _predict_resized(mirrors, pixels, predictor.image_size, options)
            yield writer.describe(path, maps, pixels)
        options.done(count)


def _predict_resized(
    predictor: MirrorPredictor, pixels: np.ndarray, size: Size, options: PredictionOptions
) -> dict[str, np.ndarray]:
    """Predicts an image, uint8 (h, w, 3), that the base sees at the model's size."""
    resized = {size: resize_pixels(pixels, size, options.resize)[np.newaxis]}
    maps = predictor.read_maps(build_views(resized, size, options.views or (View("whole"),)))
    ys, xs = place_pixels(pixels.shape[:2], size, options.resize)
    down, along = find_seen(ys, xs, size)
    seen = down[:, np.newaxis] & along
    own = [[tensor[0] for tensor in tensors] for tensors in maps]
    prediction = predictor.predict(own, ys, xs)
    return {name: blank_unseen(values, seen) for name, values in prediction.items()}
