"""Answers for each pixel, measured against masks and written as images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from tl_toolkit.architectures.batches import Batch, as_list
from tl_toolkit.errors import DataError
from tl_toolkit.images.pipeline import Images, read_pixels, resize_pixels
from tl_toolkit.images.targets import Targets, place_pixels
from tl_toolkit.recipe.pixel_schema import IGNORE
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.tasks.base import PixelTask
from tl_toolkit.tasks.dense.pictures import Pictures, choose_palette
from tl_toolkit.tasks.dense.predictor import DensePredictor
from tl_toolkit.training.loop import Trainer
from tl_toolkit.transfer.assemble import PIXEL_PREFIX_BATCH

__all__ = [
    "MaskPrediction",
    "blank_unseen",
    "find_seen",
    "measure_masks",
    "measure_trained_masks",
    "predict_masks",
]


@dataclass(frozen=True)
class MaskPrediction:
    """A model's answer for the pixels of one file.

    Attributes:
        path: The file.
        answer: What the task keeps, by name, each of the file's own height and width; as `mask` and
            `probability` of a segmentation. Where `resize: crop` cut pixels off, integers are 255
            and floats 0. Empty when refused, and when it was written instead.
        shares: Share of the pixels of each class, most first; empty when refused, and for tasks
            without classes.
        error: Why the file was refused; None when it was not.
        files: What was written, by kind: the task's `picture`, as `mask`, and `overlay`.
    """

    path: str
    answer: Mapping[str, np.ndarray] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Returns what `--format jsonl` prints: all but the answer itself."""
        return {
            "path": self.path,
            "shares": dict(self.shares),
            "files": dict(self.files),
            "error": self.error,
        }


def measure_masks(model: keras.Model, images: Images, task: PixelTask) -> dict[str, Any]:
    """Compares a model's answers with the images' masks, each at the size of its own file."""
    batches = images.batches(np.arange(len(images)), PIXEL_PREFIX_BATCH)
    rows = ((pixels, indices) for pixels, _, indices in batches)
    return _measure(DensePredictor(model), rows, _targets(images), task)[0]


def measure_trained_masks(
    trainer: Trainer, split: str, images: Images, task: PixelTask
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Measures as `measure_masks`, from the features that the last phase was trained on.

    Returns:
        The metrics, and the scores of each image alone.
    """
    cut, features = trainer.features(split)
    order = np.arange(len(images))

    def rows() -> Iterator[tuple[Batch, np.ndarray]]:
        start = 0
        for found, labels in features.chunks(order, PIXEL_PREFIX_BATCH):
            for first in range(0, len(labels), PIXEL_PREFIX_BATCH):
                some = [one[first : first + PIXEL_PREFIX_BATCH] for one in as_list(found)]
                indices = order[start + first : start + first + len(some[0])]
                yield some if len(some) > 1 else some[0], indices
            start += len(labels)

    predictor = DensePredictor(trainer.model, source=cut.tensors)
    return _measure(predictor, rows(), _targets(images), task)


def _targets(images: Images) -> Targets:
    if images.targets is None:
        raise ValueError("images: expected some with masks, got none")
    return images.targets


def _measure(
    predictor: DensePredictor,
    batches: Iterator[tuple[Batch, np.ndarray]],
    targets: Targets,
    task: PixelTask,
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    tally = task.measure()
    scores = []
    for rows, indices in batches:
        maps = predictor.read_maps(rows)
        for place, index in enumerate(indices):
            truth = targets.whole(int(index))
            ys, xs = place_pixels(truth.shape[:2], targets.image_size, targets.resize)
            seen_ys, seen_xs = find_seen(ys, xs, targets.image_size)
            if not (seen_ys.any() and seen_xs.any()):  # a crop of an image that is all but a line
                scores.append({})
                continue
            answer = predictor.answer([one[place] for one in maps], ys[seen_ys], xs[seen_xs],
                                      task.keep)  # fmt: skip
            scores.append(tally.add(answer, truth[np.ix_(seen_ys, seen_xs)]))
    return tally.result(), scores


def find_seen(ys: np.ndarray, xs: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Returns which rows and columns the model sees, bool each: a crop cuts some off."""
    return tuple(
        (places >= -0.5) & (places <= side - 0.5)
        for places, side in zip((ys, xs), size, strict=True)
    )


def blank_unseen(answer: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Empties an answer (h, w, ...) where the model has not seen the image: bool (h, w)."""
    nothing = IGNORE if np.issubdtype(answer.dtype, np.integer) else 0
    return np.where(seen.reshape(seen.shape + (1,) * (answer.ndim - 2)), answer, nothing).astype(
        answer.dtype
    )


def predict_masks(
    model: keras.Model,
    paths: Sequence[Path],
    task: PixelTask,
    recipe: Recipe,
    classes: Sequence[str],
    *,
    folder: Path | None = None,
    native: bool = False,
    said: Callable[[str], None] | None = None,
    done: Callable[[int], None] | None = None,
) -> Iterator[MaskPrediction]:
    """Yields an answer for the pixels of each file, in order, at the file's own size.

    Args:
        model: [images, pixels] to outputs.
        paths: Image files.
        task: The task.
        recipe: Says how images are resized, and the colours of masks.
        classes: Class names in the order of the outputs.
        folder: Receives, for each file, its mask and an overlay; by default nothing is written.
        native: Run the base on files as they are, however large, instead of resized ones; see
            `DensePredictor.answer_large`.
        said: Is told if that leaves seams.
        done: Is called with the number of files answered so far.

    Raises:
        OutputError: The folder cannot be written, or a file in it would be replaced that no
            earlier call wrote.
    """
    pictures = None if folder is None else Pictures(folder, paths, kind=task.picture)
    predictor = DensePredictor(model)
    resize = recipe.data.resize
    palette = choose_palette(len(classes), recipe)
    if native and said is not None and not predictor.is_seamless:
        said(f"{recipe.model.base} sees too far for windows without seams: they may show a little")
    for count, path in enumerate(paths, start=1):
        try:
            pixels = read_pixels(path)
        except DataError as error:
            yield MaskPrediction(str(path), error=error.problems[0].what)
        else:
            if native:
                answer = predictor.answer_large(pixels, task.keep)
            else:
                answer = _answer_resized(predictor, pixels, task, resize)
            shares = _shares(answer, classes)
            if pictures is None:
                yield MaskPrediction(str(path), answer, shares)
            else:
                files = pictures.write(path, task.draw(answer, palette), pixels)
                yield MaskPrediction(str(path), shares=shares, files=files)
        if done is not None:
            done(count)


def _answer_resized(
    predictor: DensePredictor,
    pixels: np.ndarray,
    task: PixelTask,
    resize: Literal["stretch", "crop"],
) -> dict[str, np.ndarray]:
    """Answers for an image, uint8 (h, w, 3), that the base sees at the model's size."""
    size = predictor.image_size
    maps = predictor.read_maps(resize_pixels(pixels, size, resize)[np.newaxis])
    ys, xs = place_pixels(pixels.shape[:2], size, resize)
    down, along = find_seen(ys, xs, size)
    seen = down[:, np.newaxis] & along
    found = predictor.answer([one[0] for one in maps], ys, xs, task.keep)
    return {name: blank_unseen(one, seen) for name, one in found.items()}


def _shares(answer: Mapping[str, np.ndarray], classes: Sequence[str]) -> dict[str, float]:
    if "mask" not in answer:
        return {}
    counts = np.bincount(answer["mask"].reshape(-1), minlength=IGNORE + 1)[: len(classes)]
    order = np.argsort(-counts, kind="stable")
    return {classes[i]: float(counts[i] / max(counts.sum(), 1)) for i in order}
