"""Files with the same bytes in two splits, found without reading files that differ in size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tl_toolkit.errors import Problem
from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.sources.known_files import KnownFiles
from tl_toolkit.sources.listing import SourceFile
from tl_toolkit.sources.objects import hash_image, stat_image

__all__ = ["Leak", "describe_leaks", "find_leaks", "refuse_leaks", "split_of"]

_NAMED = 5


class Leak(NamedTuple):
    """Two files with the same bytes, or images that look the same.

    Attributes:
        path: One of them.
        split: Its split.
        equals: The other.
        equals_split: The split of that.
        is_near: Whether they look the same and their bytes differ.
    """

    path: str
    split: str
    equals: str
    equals_split: str
    is_near: bool = False

    def __str__(self) -> str:
        """Returns both with their splits."""
        verb = "looks like" if self.is_near else "is"
        return f"{self.path} ({self.split}) {verb} {self.equals} ({self.equals_split})"


def describe_leaks(leaks: Sequence[Leak]) -> str:
    """Returns how many images leak, and the first of them, a line each.

    Args:
        leaks: All of one kind, at least one.
    """
    one, many = ("image", "images")
    if leaks[0].is_near:
        one, many = ("pair of near duplicates", "pairs of near duplicates")
    count = f"1 {one} is" if len(leaks) == 1 else f"{len(leaks)} {many} are"
    more = f"\n  and {len(leaks) - _NAMED} more" if len(leaks) > _NAMED else ""
    named = "\n  ".join(map(str, leaks[:_NAMED]))
    return f"{count} in two splits:\n  {named}{more}"


def refuse_leaks(what: str, option: str = "", *, hint: str = "") -> Problem:
    """Returns the problem that images leak, with what to type.

    Args:
        what: Which do, after the field.
        option: What `tltool data check` needs to leave them out.
        hint: What to type instead, where no split is named that could leave them out.
    """
    expected = "What trains must not measure, or figures are too good."
    check = f"tltool data check RECIPE{option} --exclusions exclude.csv"
    hint = hint or f"{check}, and data.exclude=exclude.csv"
    return Problem("", what, expected, f"{hint}; or data.leakage=allow to train all the same")


def find_leaks(files: Sequence[SourceFile], *, cache_dir: Path | None = None) -> list[Leak]:
    """Returns pairs of files with the same bytes in different splits, each file once.

    Only files are read that have the size of one in another split, and only if their bytes are not
    known from an earlier reading. A file that cannot be read is no leak: the scan names it.

    Args:
        files: Listed images; one without a split counts as of "train".
        cache_dir: Keeps digests; by default TL_TOOLKIT_CACHE or the user's cache.
    """
    by_size: dict[int, list[tuple[SourceFile, os.stat_result]]] = {}
    for file in files:
        try:
            status = stat_image(file.path)
        except OSError:
            continue
        if status.st_size:  # empty files are no images, whatever else
            by_size.setdefault(status.st_size, []).append((file, status))
    suspects = [
        group for group in by_size.values() if len({split_of(file) for file, _ in group}) > 1
    ]
    if not suspects:
        return []
    known = KnownFiles(cache_dir or default_cache_dir())
    first: dict[str, SourceFile] = {}
    leaks = []
    for file, status in (entry for group in suspects for entry in group):
        digest = _hash(file.path, status, known)
        earlier = first.setdefault(digest, file) if digest else file
        if split_of(earlier) != split_of(file):
            leaks.append(Leak(file.path, split_of(file), earlier.path, split_of(earlier)))
    known.save()
    return leaks


def split_of(file: SourceFile) -> str:
    """Returns the split of an image, "train" for one that fractions divide.

    Args:
        file: The image.
    """
    return file.split or "train"


def _hash(path: str, status: os.stat_result, known: KnownFiles) -> str:
    digest = known.get(path, status)
    if digest is None:
        try:
            digest = hash_image(path)
        except OSError:
            return ""
        known.add(path, status, digest)
    return digest
