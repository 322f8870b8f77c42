"""Answers of a finished model, for a split of a run and for files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from tl_toolkit.architectures.batches import PREFIX_BATCH, FixedBatch
from tl_toolkit.errors import DataError
from tl_toolkit.images.pipeline import Images, read_image
from tl_toolkit.training.steps import class_probabilities


@dataclass(frozen=True)
class Prediction:
    """A model's answer for one file.

    Attributes:
        path: The file.
        label: The most probable class; None when the file was refused.
        probabilities: Probability in [0, 1] by class name; empty when refused.
        error: Why the file was refused; None when it was not.
    """

    path: str
    label: str | None
    probabilities: dict[str, float]
    error: str | None = None

    @property
    def probability(self) -> float | None:
        """Probability of `label`."""
        return self.probabilities[self.label] if self.label is not None else None

    def as_record(self) -> dict[str, Any]:
        """Returns what `--format jsonl` prints."""
        return {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "error": self.error,
        }


def predict_images(model: keras.Model, images: Images) -> np.ndarray:
    """Returns float32 probabilities (n, classes) of a split, in its order."""
    run = FixedBatch(model)
    batches = images.batches(np.arange(len(images)), run.batch_size)
    return class_probabilities(np.concatenate([run(pixels).numpy() for pixels, *_ in batches]))


def predict_files(
    model: keras.Model,
    paths: Sequence[Path],
    *,
    classes: Sequence[str],
    resize: Literal["stretch", "crop"],
    done: Callable[[int], None] | None = None,
) -> Iterator[Prediction]:
    """Yields an answer for each file, in order; a file that cannot be decoded is refused by name.

    Args:
        model: float32 RGB (batch, h, w, 3) in 0..255 to probabilities.
        paths: Image files.
        classes: Class names in the order of the model's outputs.
        resize: As in the recipe.
        done: Is called with the number of files answered so far.
    """
    run = FixedBatch(model)
    size = tuple(model.input.shape[1:3])
    count = 0

    def read(path: Path) -> np.ndarray | str:
        try:
            return read_image(path, size, resize)
        except DataError as error:
            return error.problems[0].what

    with ThreadPoolExecutor(max_workers=2) as pool:
        remaining = iter(paths)
        while chunk := list(islice(remaining, PREFIX_BATCH)):
            read_chunk = list(pool.map(read, chunk))
            pixels = [found for found in read_chunk if not isinstance(found, str)]
            rows = iter(class_probabilities(run(np.stack(pixels)).numpy()) if pixels else ())
            for path, found in zip(chunk, read_chunk, strict=True):
                if isinstance(found, str):
                    yield Prediction(str(path), None, {}, found)
                    continue
                row = next(rows)
                yield Prediction(
                    str(path),
                    classes[int(row.argmax())],
                    dict(zip(classes, map(float, row), strict=True)),
                )
            count += len(chunk)
            if done is not None:
                done(count)
