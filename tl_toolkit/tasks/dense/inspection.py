"""Inspects the targets of all images before the first epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.images.bands import read_size
from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.manifest import Example, Manifest
from tl_toolkit.sources.listing import MAX_NAMED
from tl_toolkit.sources.objects import count_readers
from tl_toolkit.tasks.dense.resizing import Size, resize_target
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.targets import TargetReader, hash_target

__all__ = ["inspect_targets"]

_NAMED_EXAMPLES = 3
_NAMED_VALUES = 5


class _Fault(NamedTuple):
    """What is wrong with a file: a kind, by which files are reported together, and details."""

    kind: str
    details: str
    values: Sequence[str] = ()


_UNREADABLE = "cannot be read"
_OTHER_SIZE = "differ in size from their images"


def inspect_targets(
    manifest: Manifest,
    reader: TargetReader,
    *,
    num_groups: int = 1,
    image_size: Size | None = None,
    resize: Resize = "stretch",
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Opens the target of every image once, and adds its digest.

    An image without a pixel that counts is skipped as a broken one is: its loss would be 0. So is
    one for training or validation that loses all of them when it is resized or cropped.

    Args:
        manifest: Images that were inspected, with the column `mask`, the path of a target. Targets
            of skipped images are not opened.
        reader: Reads them.
        num_groups: How many sampling groups the training targets must hold, as all of one class
            teach nothing.
        image_size: Height and width that images are resized to; None for their own.
        resize: As in `resize_image`.
        progress: As in `Task.inspect_targets`; what it raises ends the inspection.

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
            sha256 = hash_target(path)
            target = reader.read(path)
            size = target.shape[:2]
        except OSError as error:
            return example, _Fault(_UNREADABLE, f"{path}: {error.strerror or error}")
        except ValueError as error:
            values = getattr(error, "values", ())
            return example, _Fault(reader.fault, f"{path}: {error}", values)
        expected = read_size(example.path)
        if expected != size:
            here, there = (f"{w} x {h}" for h, w in (size, expected))
            return example, _Fault(_OTHER_SIZE, f"{path}: {here}, its image is {there}")
        example = replace(example, targets=(path, sha256))
        counts = np.bincount(reader.sampling_groups(target).reshape(-1))
        groups = set(np.flatnonzero(counts).tolist())
        if groups <= {IGNORE}:
            reason = f"no pixel of its mask counts, all are ignored: {path}"
            return replace(example, verdict="broken", reason=reason), None
        is_resized = example.split in ("train", "validation")
        if image_size is not None and is_resized and IGNORE in groups:
            seen = resize_target(reader.sampling_groups(target), image_size, resize, fill=IGNORE)
            if (seen == IGNORE).all():
                how = "cropped" if resize == "crop" else "resized"
                h, w = image_size
                reason = f"no pixel of its mask counts once it is {how} to {w} x {h}: {path}"
                return replace(example, verdict="broken", reason=reason), None
        if example.split == "train":
            held.update(groups - {IGNORE})
        return example, None

    inspected: list[tuple[Example, _Fault | None]] = []
    pool = ThreadPoolExecutor(count_readers(example.path for example in manifest.examples))
    try:
        for found in pool.map(inspect, manifest.examples):
            inspected.append(found)
            if progress is not None:
                progress(len(inspected), len(manifest.examples))
    finally:
        pool.shutdown(cancel_futures=True)
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
