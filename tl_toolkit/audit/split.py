"""Splits of a set of images, as a table that recipes take; a table that exists is continued."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.audit.inspect import InspectedFile
from tl_toolkit.audit.near import join_named, name_near
from tl_toolkit.images.placing import Group, place_by_hash, place_by_time, place_exactly
from tl_toolkit.sources.listing import SPLITS, name_some
from tl_toolkit.sources.objects import is_address

__all__ = ["DataSplit", "SplitImage", "SplitSettings", "build_split"]

_DIGITS = 12  # of a digest that names a group
_NEAR_GROUP = "group_near"
_OFF = 0.05  # of a class, from which its share of a split is said to be off


@dataclass(frozen=True)
class SplitImage:
    """An image with its split.

    Attributes:
        path: Absolute path.
        values: A value for each of the table's columns.
        label: Its class; "" for none.
        split: One of "train", "validation" and "test".
        group: What it has in common with others; "" for nothing.
        is_new: Whether an earlier table did not name it.
    """

    path: str
    values: tuple[str, ...]
    label: str
    split: str
    group: str
    is_new: bool


@dataclass(frozen=True)
class DataSplit:
    """A split of a set of images.

    Attributes:
        columns: Names of the columns beside path, split and that of near duplicates.
        images: The images, in the order of the source.
        group: The column that names what stays together; "" for none.
        notes: Sentences on what was left out, and on what may not be as it is meant.
    """

    columns: tuple[str, ...]
    images: tuple[SplitImage, ...]
    group: str = ""
    notes: tuple[str, ...] = ()

    def count(self) -> dict[str, dict[str, int]]:
        """Returns the images of each class in each split; "" stands for no class."""
        counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for image in self.images:
            counts[image.split][image.label] += 1
        return {split: dict(sorted(of.items())) for split, of in counts.items() if of}

    def tabulate(self) -> tuple[list[str], list[list[Any]]]:
        """Returns the columns and rows of a table with a row for each class, and one for all."""
        counts = self.count()
        labels = sorted({label for by_class in counts.values() for label in by_class})
        rows: list[list[Any]] = []
        for name, chosen in [*((label, [label]) for label in labels if label), ("all", labels)]:
            numbers = [sum(of.get(label, 0) for label in chosen) for of in counts.values()]
            shares = [f"{number / sum(numbers):.1%}" for number in numbers]
            rows.append(
                [name, *(part for pair in zip(numbers, shares, strict=True) for part in pair)]
            )
        return ["class", *(name for split in counts for name in (split, "share"))], rows

    def as_json(self) -> dict[str, Any]:
        """Returns counts and notes as plain values, with the split of each image by path."""
        return {
            "counts": self.count(),
            "new": sum(image.is_new for image in self.images),
            "notes": list(self.notes),
            "splits": {image.path: image.split for image in self.images},
        }

    def format(self, folder: str | Path) -> str:
        """Returns the table, as CSV, with paths relative to a folder.

        Args:
            folder: The folder that the table will lie in.
        """
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        extra = (self.group,) if self.group not in ("", *self.columns) else ()
        writer.writerow(("path", *self.columns, "split", *extra))
        for image in self.images:
            group = (image.group,) if extra else ()
            path = image.path if is_address(image.path) else os.path.relpath(image.path, folder)
            writer.writerow((path, *image.values, image.split, *group))
        return buffer.getvalue()


@dataclass(frozen=True)
class SplitSettings:
    """How images are split.

    Attributes:
        fractions: The share of "validation" and of "test".
        seed: Another seed, other splits.
        is_exact: Whether each class has its fractions to the image, see `place_exactly`.
        group: The column whose equal values stay together; "" for none.
        is_near: Whether images that look the same stay together.
    """

    fractions: Mapping[str, float]
    seed: int = 0
    is_exact: bool = False
    group: str = ""
    is_near: bool = False


def build_split(
    files: Sequence[InspectedFile],
    columns: Sequence[str],
    values: Sequence[Sequence[str]],
    settings: SplitSettings,
    *,
    times: Sequence[float] = (),
    known: Mapping[str, str] | None = None,
) -> DataSplit:
    """Splits images that can be read; equal ones stay together, and those of one group.

    Args:
        files: The images, inspected.
        columns: Names of the table's columns beside path and split.
        values: A value for each column, of each image.
        settings: The shares, and what stays together.
        times: When each image was taken; by default the splits do not depend on times.
        known: Splits by path, which stay.
    """
    place_of = columns.index(settings.group) if settings.group else None
    rows = [
        _Row(
            file,
            tuple(values[index]),
            "" if place_of is None else values[index][place_of],
            times[index] if times else 0.0,
            (known or {}).get(file.path, ""),
        )
        for index, file in enumerate(files)
        if file.is_usable
    ]
    near = name_near(
        [row.file.content.hash for row in rows], [row.file.content.signature for row in rows]
    )
    members = join_named(
        [row.file.sha256 for row in rows],
        [row.group and f"group {row.group}" for row in rows],
        near if settings.is_near else [""] * len(rows),
    )
    images = _place(rows, members, settings, is_timed=bool(times))
    notes = [
        *_describe_broken([file.path for file in files if not file.is_usable]),
        *_describe_torn([[images[index] for index in indices] for indices in members]),
        *([] if settings.is_near else _describe_near(near, images)),
        *([] if times or settings.is_exact else _describe_shares(images, settings.fractions)),
    ]
    named = _NEAR_GROUP if settings.is_near else settings.group
    return DataSplit(tuple(columns), tuple(images), named, tuple(notes))


def _place(
    rows: Sequence[_Row],
    members: Sequence[Sequence[int]],
    settings: SplitSettings,
    *,
    is_timed: bool,
) -> list[SplitImage]:
    """Returns the images with their splits, in order."""
    units = [_build_group([rows[index] for index in indices]) for indices in members]
    if is_timed:
        splits = place_by_time(units, settings.fractions)
    else:
        place = place_exactly if settings.is_exact else place_by_hash
        splits = place(units, settings.fractions, seed=settings.seed)
    images: dict[int, SplitImage] = {}
    for indices, split in zip(members, splits, strict=True):
        first = min(rows[index].file.sha256 for index in indices)[:_DIGITS]
        for index in indices:
            row = rows[index]
            group = first if settings.is_near else row.group
            images[index] = row.place(row.known or split, group)
    return [images[index] for index in range(len(rows))]


@dataclass(frozen=True)
class _Row:
    file: InspectedFile
    values: tuple[str, ...]
    group: str
    time: float
    known: str  # its earlier split

    def place(self, split: str, group: str) -> SplitImage:
        return SplitImage(
            self.file.path, self.values, self.file.label, split, group,
            is_new=not self.known,
        )  # fmt: skip


def _build_group(rows: Sequence[_Row]) -> Group:
    known = Counter(row.known for row in rows if row.known)
    names = [row.group for row in rows if row.group]
    return Group(
        key=f"group:{min(names)}" if names else min(row.file.sha256 for row in rows),
        labels=tuple(row.file.label for row in rows),
        split=known.most_common(1)[0][0] if known else "",
        time=max(row.time for row in rows),
    )


def _describe_broken(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    return [f"{len(paths)} files cannot be read and are left out: {name_some(paths)}"]


def _describe_torn(groups: Sequence[Sequence[SplitImage]]) -> list[str]:
    torn = [group for group in groups if len({image.split for image in group}) > 1]
    if not torn:
        return []
    paths = " and ".join(image.path for image in torn[0][:2])
    return [
        f"{len(torn)} groups lie in several splits, as the earlier table has them: {paths}. "
        "Try: --overwrite"
    ]


def _describe_near(near: Sequence[str], images: Sequence[SplitImage]) -> list[str]:
    where: dict[str, set[str]] = {}
    for name, image in zip(near, images, strict=True):
        if name:
            where.setdefault(name, set()).add(image.split)
    torn = sum(len(names) > 1 for names in where.values())
    if not torn:
        return []
    return [f"{torn} groups of near duplicates lie in several splits. Try: --near"]


def _describe_shares(images: Sequence[SplitImage], fractions: Mapping[str, float]) -> list[str]:
    """Names the classes whose shares are off, which a hash cannot help."""
    totals = Counter(image.label for image in images)
    counts = Counter((image.label, image.split) for image in images)
    off = sorted(
        {
            label or "all"
            for label, total in totals.items()
            for split, fraction in fractions.items()
            if fraction and abs(counts[label, split] / total - fraction) > _OFF + 1e-9
        }
    )
    if not off:
        return []
    return [f"shares of {name_some(off)} are off by more than {_OFF:.0%}. Try: --exact"]
