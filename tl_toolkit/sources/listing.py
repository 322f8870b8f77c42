"""The listing of a recipe's images, and the text of its messages."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tl_toolkit.errors import Problem

SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
MAX_BYTES = 1 << 29  # TensorFlow counts the bytes of a string in int32; images stay far below.
MAX_NAMED = 20  # How many files a message names before it only counts.

# A field of the recipe's `data` section, and what is wrong with it.
FieldProblem = tuple[str, Problem]


class SourceFile(NamedTuple):
    """One image that a recipe names.

    Attributes:
        path: Absolute path, or `builtin:digits/<index>`.
        split: One of SPLITS, or None if fractions decide.
        targets: As text, a value for each column of the listing.
    """

    path: str
    split: str | None
    targets: tuple[str, ...] = ()


class Ignored(NamedTuple):
    """A file that is not listed as an image, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The images of a recipe, in an order that depends on their names only.

    Attributes:
        classes: Class names in the order of the model's outputs; none where outputs are no classes.
        files: The images.
        fractions: Splits still to be sampled from the files without a split, and their shares.
        ignored: Files beside them that are not listed as images; hidden files are not counted.
        columns: Names of the targets of each file.
        stratify: The column that splits are stratified by; "" for none.
    """

    classes: tuple[str, ...]
    files: tuple[SourceFile, ...]
    fractions: Mapping[str, float] = field(default_factory=dict)
    ignored: tuple[Ignored, ...] = ()
    columns: tuple[str, ...] = ("label",)
    stratify: str = "label"

    def count(self) -> dict[str | None, dict[str, int]]:
        """Returns the number of images of each class in each split (None: fractions decide).

        Where splits are not stratified all images are counted together, under "".
        """
        counts: dict[str | None, dict[str, int]] = {}
        place = self.columns.index(self.stratify) if self.stratify else None
        names = ("",) if place is None else self.classes
        for file in self.files:
            of_split = counts.setdefault(file.split, dict.fromkeys(names, 0))
            of_split["" if place is None else file.targets[place]] += 1
        return counts

    def describe_ignored(self) -> str:
        """Describes ignored files, as "3 files ignored: 2 .txt, 1 linked folder", or ""."""
        return describe_ignored(self.ignored)


def find_fractions(
    files: Sequence[SourceFile], values: Mapping[str, object]
) -> tuple[tuple[SourceFile, ...], dict[str, float]]:
    """Clears the split of training images if a fraction of them belongs in other splits.

    Args:
        files: Listed images.
        values: The recipe's fields validation and test: a fraction, a folder, or None.

    Returns:
        The files, and the fraction of each split that no file was listed for.
    """
    listed = {file.split for file in files}
    fractions = {
        split: value
        for split, value in values.items()
        if isinstance(value, float) and split not in listed
    }
    split = None if fractions else "train"
    return tuple(
        file._replace(split=split) if file.split in (None, "train") else file for file in files
    ), fractions


def describe_ignored(ignored: Sequence[Ignored]) -> str:
    """Returns how many files were ignored for each reason, or "".

    Args:
        ignored: The files.
    """
    if not ignored:
        return ""
    counts = collections.Counter(entry.reason for entry in ignored)
    reasons = sorted(counts, key=lambda reason: (-counts[reason], reason))[:5]
    kinds = ", ".join(f"{counts[reason]} {reason}" for reason in reasons)
    return f"{len(ignored)} file{'s' if len(ignored) > 1 else ''} ignored: {kinds}"


def name_some(names: Iterable[str]) -> str:
    """Returns names joined by commas: the first MAX_NAMED, and how many more there are.

    Args:
        names: The names.
    """
    names = list(names)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def count_threads() -> int:
    """Returns how many images to decode at a time; each may need half a gigabyte for that."""
    return min(8, os.cpu_count() or 1)
