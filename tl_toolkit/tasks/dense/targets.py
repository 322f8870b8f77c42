"""Targets for each pixel, in files: inspected before training, and resized with images."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from PIL import Image

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.images.upright import is_sideways
from tl_toolkit.sources.listing import MAX_NAMED, count_threads
from tl_toolkit.tasks.dense.spec import IGNORE

__all__ = [
    "UnknownValues",
    "TargetReader",
    "Targets",
    "inspect_targets",
    "place_pixels",
    "resize_target",
]

_Mode = Literal["stretch", "crop"]
_Size = tuple[int, int]
_KEPT_BYTES = 512 << 20
_NAMED_EXAMPLES = 3
_NAMED_VALUES = 5
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


class _Fault(NamedTuple):
    """What is wrong with a file: a kind, by which files are reported together, and details."""

    kind: str
    details: str
    values: Sequence[str] = ()


_UNREADABLE = "cannot be read"
_OTHER_SIZE = "differ in size from their images"


def inspect_targets(manifest: Manifest, reader: TargetReader, *, num_groups: int = 1) -> Manifest:
    """Opens the target of every image once, and adds its digest.

    An image without a pixel that counts is skipped as a broken one is: its loss would be 0.

    Args:
        manifest: Images that were inspected, with the column `mask`, the path of a target. Targets
            of skipped images are not opened.
        reader: Reads them.
        num_groups: How many sampling groups the training targets must hold, as all of one class
            teach nothing.

    Returns:
        The manifest with the column `mask_sha256` too.

    Raises:
        DataError: Targets cannot be read, have another size than their images, or hold something
            else, all of them at once; or those of training hold too few groups.
    """
    held: set[int] = set()

    def inspect(example: Example) -> tuple[Example, _Fault | None]:
        path = example.targets[0]
        if not example.usable:
            return replace(example, targets=(path, "")), None
        try:
            sha256 = _hash(path)
            target = reader.read(path)
            size = target.shape[:2]
        except OSError as error:
            return example, _Fault(_UNREADABLE, f"{path}: {error.strerror or error}")
        except ValueError as error:
            values = getattr(error, "values", ())
            return example, _Fault(reader.fault, f"{path}: {error}", values)
        expected = _upright_size(example.path)
        if expected != size:
            here, there = (f"{w} x {h}" for h, w in (size, expected))
            return example, _Fault(_OTHER_SIZE, f"{path}: {here}, its image is {there}")
        example = replace(example, targets=(path, sha256))
        counts = np.bincount(reader.sampling_groups(target).reshape(-1))
        groups = set(np.flatnonzero(counts).tolist())
        if groups <= {IGNORE}:
            reason = f"no pixel of its mask counts, all are ignored: {path}"
            return replace(example, verdict="broken", reason=reason), None
        if example.split == "train":
            held.update(groups - {IGNORE})
        return example, None

    with ThreadPoolExecutor(count_threads()) as pool:
        inspected = list(pool.map(inspect, manifest.examples))
    faults = [fault for _, fault in inspected if fault is not None]
    if faults:
        total = sum(example.usable for example in manifest.examples)
        raise DataError(list(_describe_faults(faults, reader, total)))
    examples = tuple(example for example, _ in inspected)
    if held and len(held) < num_groups:
        what = f"all masks to train from hold one value only, number {min(held)} of 0, 1, ..."
        expected = f"Nothing can be learned from one value. {reader.expected}"
        raise DataError(Problem("data.masks", what, expected, reader.hint))
    return replace(manifest, examples=examples, columns=("mask", "mask_sha256"))


def _describe_faults(
    faults: Sequence[_Fault], reader: TargetReader, total: int
) -> Iterator[Problem]:
    for kind in (_UNREADABLE, _OTHER_SIZE, reader.fault):
        same = [fault for fault in faults if fault.kind == kind]
        if not same:
            continue
        what = f"{len(same)} mask{'s' if len(same) > 1 else ''}: {kind}"
        counts = Counter(value for fault in same for value in fault.values)
        named = _NAMED_EXAMPLES if counts else MAX_NAMED
        more = [f"and {len(same) - named} more"] if len(same) > named else []
        details = [*_count_values(counts, total), *(fault.details for fault in same[:named]), *more]
        hint = ""
        if kind == reader.fault:
            details = [reader.expected, *details]
            hint = reader.hint
            if len(counts) == 1:
                hint = hint.replace("VALUE", next(iter(counts)))
        yield Problem("data.masks", what, "\n  ".join(details), hint)


def _count_values(counts: Counter[str], total: int) -> Iterator[str]:
    """Yields in how many of all masks each value is, the most frequent ones first."""
    for value, count in counts.most_common(_NAMED_VALUES):
        share = f"all {total}" if count == total else f"{count} of {total}"
        yield f"{value} in {share} masks"
    if len(counts) > _NAMED_VALUES:
        yield f"and {len(counts) - _NAMED_VALUES} more values"


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _upright_size(path: str) -> _Size:
    """Returns height and width of an image as the decoder turns it."""
    with Image.open(path) as image:
        width, height = image.size
        return (width, height) if is_sideways(image) else (height, width)


def place_pixels(
    source: _Size, size: _Size, mode: _Mode = "stretch"
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where rows and columns of an image are after a resize as in `resize_image`.

    Args:
        source: Height and width of the image.
        size: Height and width that it is resized to.
        mode: As in `resize_image`.

    Returns:
        float32 (height,) and (width,), in pixels of the resized image: the centre of its first one
        is 0. With "crop", places below 0 or above the last pixel were cut off.
    """
    rows, columns = (
        ((np.arange(length) + 0.5) * scale + shift - 0.5).astype(np.float32)
        for length, (scale, shift) in zip(source, _scales(source, size, mode), strict=True)
    )
    return rows, columns


def resize_target(target: np.ndarray, size: _Size, mode: _Mode = "stretch") -> np.ndarray:
    """Resizes a target as `resize_image` does its image; each pixel takes the nearest target.

    Args:
        target: (h, w, ...).
        size: Height and width of the result.
        mode: As in `resize_image`.
    """
    scales = _scales(target.shape[:2], size, mode)
    for axis, (length, (scale, shift)) in enumerate(zip(size, scales, strict=True)):
        nearest = np.floor((np.arange(length) + 0.5 - shift) / scale).astype(np.int64)
        target = np.take(target, np.clip(nearest, 0, target.shape[axis] - 1), axis=axis)
    return target


def _scales(source: _Size, size: _Size, mode: _Mode) -> list[tuple[float, float]]:
    """Returns the factor and the shift of rows and of columns."""
    scales = [length / before for length, before in zip(size, source, strict=True)]
    if mode == "crop":
        scales = [max(scales)] * 2
    return [
        (scale, (length - before * scale) / 2)
        for scale, length, before in zip(scales, size, source, strict=True)
    ]


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
        image_size: _Size,
        resize: _Mode = "stretch",
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
            if any(sha256) and _hash(path) != sha256[0]:
                raise ValueError("not the mask that was inspected")
            return self.reader.read(path)
        except (OSError, ValueError) as error:
            hint = "run it again: a new run inspects all masks anew"
            expected = "Masks must not change while a run uses them."
            raise DataError(
                Problem(path, f"is not what it was: {error}", expected, hint)
            ) from error

    def resized(self, index: int) -> np.ndarray:
        """Returns a target of the model's size, (height, width, ...), which must not be changed.

        Args:
            index: Place among the examples.
        """
        if index in self._kept:
            return self._kept[index]
        target = resize_target(self.whole(index), self.image_size, self.resize)
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
            with ThreadPoolExecutor(count_threads()) as pool:
                counts = sum(
                    pool.map(self._count_image, range(len(self))),
                    start=np.zeros(IGNORE + 1, np.int64),
                )
            self._counts = counts[: self.reader.num_sampling_groups]
        return self._counts.copy()

    def _count_image(self, index: int) -> np.ndarray:
        sampling_groups = self.reader.sampling_groups(self.resized(index))
        return np.bincount(sampling_groups.reshape(-1), minlength=IGNORE + 1)
