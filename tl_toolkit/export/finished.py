"""What an export takes of a finished run: its model, and images to prove and to calibrate it by."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np

from tl_toolkit.errors import DataError
from tl_toolkit.events import Handler, warning
from tl_toolkit.export.formats import FinishedModel
from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.images.pipeline import Images
from tl_toolkit.tasks.base import Task

__all__ = ["Sizes", "finish_model", "leave_webp"]

MOST_IMAGES = 200
"""The most validation images that a format is compared on, and training images it is calibrated
by."""

_WEBP = (b"RIFF", b"WEBP")


class Sizes(NamedTuple):
    """What images become before the model sees them.

    Attributes:
        image_size: Height and width.
        resize: How they are resized to it.
        channels: Their channels.
    """

    image_size: tuple[int, int]
    resize: Resize
    channels: int


def finish_model(
    model: keras.Model,
    task: Task,
    sizes: Sizes,
    manifest: Manifest,
    *,
    webp: bool,
) -> FinishedModel:
    """Returns the model of a run with the images that its exports are compared by.

    Images that have moved or changed since are left out.

    Args:
        model: The kept model.
        task: Its task.
        sizes: What its images become.
        manifest: The images of the run.
        webp: Whether the SavedModel reads WebP.
    """

    def load(examples: Sequence[Example]) -> Images | None:
        usable = _find_usable(_spread(examples, MOST_IMAGES), sizes)
        if not usable:
            return None
        return Images(usable, **sizes._asdict())

    def load_samples() -> np.ndarray:
        images = load(manifest.of("train"))
        empty = np.zeros((0, *sizes.image_size, sizes.channels), np.float32)
        return empty if images is None else images.load(range(len(images))).astype(np.float32)

    return FinishedModel(
        model,
        task,
        sizes.resize,
        webp=webp,
        # Where folds took turns at validation, all training images were validation images once.
        load_images=lambda: load(manifest.of("validation") or manifest.of("train")),
        load_samples=load_samples,
    )


def _spread(examples: Sequence[Example], most: int) -> list[Example]:
    """Returns at most so many examples; a manifest is ordered by class, of which all are there."""
    count = min(most, len(examples))
    return [examples[index * len(examples) // count] for index in range(count)]


def _find_usable(examples: Sequence[Example], sizes: Sizes) -> list[Example]:
    """Returns the images that are still as they were."""
    images = Images(examples, **sizes._asdict(), memory_budget=0)
    with contextlib.suppress(DataError):
        images.load(range(len(examples)))
        return list(examples)
    usable = []
    for index, example in enumerate(examples):
        try:
            images.load([index])
        except DataError:
            continue
        usable.append(example)
    return usable


def leave_webp(files: Mapping[str, bytes], report: Handler) -> dict[str, bytes]:
    """Returns the files that a SavedModel for older TensorFlow reads, and warns of others.

    Args:
        files: Encoded images by name.
        report: Receives the warning.
    """
    kept = {name: data for name, data in files.items() if (data[:4], data[8:12]) != _WEBP}
    if len(kept) < len(files):
        report(
            warning(
                f"{len(files) - len(kept)} of {len(files)} validation images are WebP, which the "
                "SavedModel refuses as bytes: TensorFlow before 2.20 cannot read it. "
                "export.min_tensorflow=2.20 exports for newer ones, with WebP"
            )
        )
    return kept
