"""Findings of several images: copies, in and across splits and classes; and of whole classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tl_toolkit.audit.findings import Finding
from tl_toolkit.audit.inspect import InspectedFile
from tl_toolkit.audit.near import group_pairs
from tl_toolkit.sources.listing import Listing, name_some

__all__ = ["find_copies", "find_in_classes", "group_copies"]

_ORDER = ("test", "validation", "train", "")  # of the split in which a copy stays
_TINY = 10
_IMBALANCE = 10


def group_copies(files: Sequence[InspectedFile]) -> list[list[InspectedFile]]:
    """Returns groups of files with the same bytes, those with more than one.

    Args:
        files: The images.
    """
    groups: dict[str, list[InspectedFile]] = {}
    for file in files:
        if file.is_usable:
            groups.setdefault(file.sha256, []).append(file)
    return [group for group in groups.values() if len(group) > 1]


def find_copies(files: Sequence[InspectedFile], pairs: np.ndarray) -> Iterator[Finding]:
    """Yields groups of images that are the same or look the same.

    Args:
        files: The images.
        pairs: Those that look the same, of `pair_files`.
    """
    for group in group_copies(files):
        yield from _describe(group, "")
    for indices in group_pairs(pairs, len(files)):
        group = [files[index] for index in indices]
        if len({file.sha256 for file in group}) > 1:
            yield from _describe(group, "near_")


def _describe(group: Sequence[InspectedFile], prefix: str) -> Iterator[Finding]:
    """Yields what a group means: a leak, a conflict of labels or both, else a duplicate."""
    ordered = sorted(group, key=lambda file: (_ORDER.index(file.split), file.path))
    paths = tuple(file.path for file in ordered)
    splits = sorted({file.split for file in group}, key=_ORDER.index)
    labels = sorted({file.label for file in group})
    count = f"{len(group)} images"
    if len(splits) > 1:
        where = " and ".join(split or "no split" for split in splits)
        yield Finding(f"{prefix}leak", paths, f"{count} in {where}", paths[1:])
    if len(labels) > 1:
        yield Finding(f"{prefix}label_conflict", paths, f"{count} in {name_some(labels)}", paths)
    if len(splits) == len(labels) == 1:
        of_class = f" of {labels[0]}" if labels[0] else ""
        yield Finding(f"{prefix}duplicate", paths, f"{count}{of_class}", paths[1:])


def find_in_classes(listing: Listing, files: Sequence[InspectedFile]) -> Iterator[Finding]:
    """Yields classes that are missing in a split, tiny, or much smaller than others.

    Args:
        listing: The set.
        files: Its images, inspected.
    """
    if not listing.stratify:
        return
    splits = sorted({file.split for file in files}, key=_ORDER.index, reverse=True)
    counts = {split: dict.fromkeys(listing.classes, 0) for split in splits}
    for file in files:
        if file.is_usable and file.label in counts[file.split]:
            counts[file.split][file.label] += 1
    for split, by_class in counts.items():
        missing = [label for label, count in by_class.items() if not count]
        if missing:
            of_split = f" in {split}" if split else ""
            yield Finding("missing_class", (), f"no image of {name_some(missing)}{of_split}")
    training = next((counts[split] for split in ("", "train") if split in counts), {})
    tiny = [f"{label} ({count})" for label, count in training.items() if 0 < count < _TINY]
    if tiny:
        yield Finding("tiny_class", (), name_some(tiny))
    present = {label: count for label, count in training.items() if count}
    if present and max(present.values()) >= _IMBALANCE * min(present.values()):
        largest, smallest = (pick(present, key=present.__getitem__) for pick in (max, min))
        yield Finding(
            "imbalance", (),
            f"{largest} has {present[largest]:,} images, {smallest} {present[smallest]:,}",
        )  # fmt: skip
