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

__all__ = ["DataSplit", "SplitImage", "build_split"]

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
            path = os.path.relpath(image.path, folder)
            writer.writerow((path, *image.values, image.split, *group))
        return buffer.getvalue()


def build_split(
    files: Sequence[InspectedFile],
    columns: Sequence[str],
    values: Sequence[Sequence[str]],
    fractions: Mapping[str, float],
    *,
    seed: int = 0,
    is_exact: bool = False,
    group: str = "",
    is_near: bool = False,
    times: Sequence[float] = (),
    known: Mapping[str, str] | None = None,
) -> DataSplit:
    """Splits images that can be read; equal ones stay together, and those of one group.

    Args:
        files: The images, inspected.
        columns: Names of the table's columns beside path and split.
        values: A value for each column, of each image.
        fractions: The share of "validation" and of "test".
        seed: Another seed, other splits.
        is_exact: Whether each class has its fractions to the image, see `place_exactly`.
        group: The column whose equal values stay together; "" for none.
        is_near: Whether images that look the same stay together.
        times: When each image was taken; by default the splits do not depend on times.
        known: Splits by path, which stay.
    """
    known = known or {}
    rows = [
        _Row(
            file,
            tuple(values[index]),
            values[index][columns.index(group)] if group else "",
            times[index] if times else 0.0,
            known.get(file.path, ""),
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
        near if is_near else [""] * len(rows),
    )
    units = [_build_group([rows[index] for index in indices]) for indices in members]
    if times:
        placed = place_by_time(units, fractions)
    else:
        place = place_exactly if is_exact else place_by_hash
        placed = place(units, fractions, seed=seed)
    images: dict[int, SplitImage] = {}
    for indices, split in zip(members, placed, strict=True):
        first = min(rows[index].file.sha256 for index in indices)[:_DIGITS] if is_near else ""
        for index in indices:
            images[index] = rows[index].place(rows[index].known or split, first)
    ordered = [images[index] for index in range(len(rows))]
    torn = [members for members in members if len({images[index].split for index in members}) > 1]
    notes = [
        *_describe_broken([file.path for file in files if not file.is_usable]),
        *_describe_torn([[images[index].path for index in indices] for indices in torn]),
        *([] if is_near else _describe_near(near, ordered)),
        *([] if times or is_exact else _describe_shares(ordered, fractions)),
    ]
    named = _NEAR_GROUP if is_near else group
    return DataSplit(tuple(columns), tuple(ordered), named, tuple(notes))


@dataclass(frozen=True)
class _Row:
    file: InspectedFile
    values: tuple[str, ...]
    group: str
    time: float
    known: str  # its earlier split

    def place(self, split: str, group: str) -> SplitImage:
        return SplitImage(
            self.file.path, self.values, self.file.label, split, group or self.group,
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


def _describe_torn(groups: Sequence[Sequence[str]]) -> list[str]:
    if not groups:
        return []
    paths = " and ".join(groups[0][:2])
    return [
        f"{len(groups)} groups lie in several splits, as the earlier table has them: {paths}. "
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
