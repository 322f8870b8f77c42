"""Targets for each pixel, in files: read, and resized with their images."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.manifest import Example
from tl_toolkit.sources.coco import COCO, hash_annotations
from tl_toolkit.sources.objects import count_readers, hash_image
from tl_toolkit.tasks.dense.resizing import Size, resize_target
from tl_toolkit.tasks.dense.spec import IGNORE

__all__ = ["TargetReader", "Targets", "UnknownValues", "hash_target"]

_KEPT_BYTES = 512 << 20
"""Targets of the model's size that a split keeps in memory; the rest is read at each call."""


class TargetReader(Protocol):
    """Reads the files that hold the targets of a task.

    Attributes:
        dtype: Type of targets inside a compiled step.
        ignored: The value of each number of a pixel without a target.
        num_sampling_groups: Groups that `sampling_groups` knows.
        fault: The problem of files that hold something else, for messages, as "hold values that are
            no class".
        expected: The content that they should have, as a sentence.
        hint: What to type; may be empty.
    """

    dtype: type[Any]
    ignored: float
    num_sampling_groups: int
    fault: str
    expected: str
    hint: str

    def read(self, path: str) -> np.ndarray:
        """Returns the targets in a file, (h, w, ...).

        Args:
            path: The file.

        Raises:
            OSError: It cannot be read.
            ValueError: It holds something else; the message says what.
        """

    def sampling_groups(self, target: np.ndarray) -> np.ndarray:
        """Returns the group of each pixel, by which pixels are sampled, uint8 (h, w).

        Groups are numbers from 0 on, as of classes that each get their share; IGNORE stands for
        pixels without a target.

        Args:
            target: As in `read`.
        """

    def turn(self, target: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Returns the targets of pixels after their image was turned, perhaps mirrored.

        No pixel is moved: the geometric transform has moved them already.

        Args:
            target: As in `read`.
            turn: float (2, 2), orthogonal: maps a direction (x, y) in the image before to that in
                the turned image, x to the right and y down.
        """


class UnknownValues(ValueError):
    """A file of targets that holds values without a meaning.

    Args:
        message: What it holds.
        values: The values, as they are written in a recipe.

    Attributes:
        values: The same.
    """

    def __init__(self, message: str, values: Sequence[str]) -> None:
        super().__init__(message)
        self.values = values


def hash_target(path: str) -> str:
    """Returns the SHA-256 of a target, in hexadecimal.

    Args:
        path: Its file, or `coco:<file>#<id>`, of which the annotations of the image count.

    Raises:
        OSError: It cannot be read.
        DataError: Annotations cannot be read.
    """
    return hash_annotations(path) if path.startswith(COCO) else hash_image(path)


class Targets:
    """The targets of one split, by index; those of the model's size stay in memory.

    Args:
        examples: Usable images of a manifest, with masks.
        reader: Reads the files of their targets.
        image_size: Height and width that images are resized to.
        resize: As in `resize_image`.
        memory_budget: Bytes that those in memory may take; the rest is read at each call.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        reader: TargetReader,
        *,
        image_size: Size,
        resize: Resize = "stretch",
        memory_budget: int = _KEPT_BYTES,
    ) -> None:
        self._examples = tuple(examples)
        self.reader = reader
        self.image_size = image_size
        self.resize = resize
        self._kept: dict[int, np.ndarray] = {}
        self._room = memory_budget
        self._counts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._examples)

    def whole(self, index: int) -> np.ndarray:
        """Returns a target as its file has it, (h, w, ...).

        Args:
            index: Place among the examples.

        Raises:
            DataError: The file is gone, or is not the one that was inspected.
        """
        path, *sha256 = self._examples[index].targets
        try:
            if any(sha256) and hash_target(path) != sha256[0]:
                raise ValueError("not the mask that was inspected")
            return self.reader.read(path)
        except (OSError, ValueError) as error:
            hint = "run it again: a new run inspects all masks anew"
            expected = "Masks must not change while a run uses them."
            raise DataError(
                Problem(path, f"is not what it was: {error}", expected, hint)
            ) from error

    def fit(self, target: np.ndarray) -> np.ndarray:
        """Returns a target as steps and epochs see it: of the model's size.

        Args:
            target: As its file has it.
        """
        return resize_target(target, self.image_size, self.resize, fill=self.reader.ignored)

    def resized(self, index: int) -> np.ndarray:
        """Returns a target of the model's size, (height, width, ...), which must not be changed.

        Args:
            index: Place among the examples.
        """
        if index in self._kept:
            return self._kept[index]
        target = self.fit(self.whole(index))
        # Threads may add a little more than the budget, which does no harm.
        if target.nbytes <= self._room:
            self._room -= target.nbytes
            self._kept[index] = target
        return target

    def count(self) -> np.ndarray:
        """Returns the pixels of each sampling group at the model's size, int64 (groups,).

        The first call reads what is not in memory, several files at a time; later calls read
        nothing.

        Raises:
            DataError: As in `whole`.
        """
        if self._counts is None:
            readers = count_readers(example.targets[0] for example in self._examples)
            with ThreadPoolExecutor(readers) as pool:
                counts = sum(
                    pool.map(self._count_image, range(len(self))),
                    start=np.zeros(IGNORE + 1, np.int64),
                )
            self._counts = counts[: self.reader.num_sampling_groups]
        return self._counts.copy()

    def _count_image(self, index: int) -> np.ndarray:
        sampling_groups = self.reader.sampling_groups(self.resized(index))
        return np.bincount(sampling_groups.reshape(-1), minlength=IGNORE + 1)
