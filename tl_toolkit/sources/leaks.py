"""Files with the same bytes in two splits, found without reading files that differ in size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tl_toolkit.runs.files import default_cache_dir, hash_file
from tl_toolkit.sources.known_files import KnownFiles
from tl_toolkit.sources.listing import SourceFile

__all__ = ["Leak", "find_leaks"]


class Leak(NamedTuple):
    """Two files with the same bytes.

    Attributes:
        path: One of them.
        split: Its split.
        equals: The other.
        equals_split: The split of that.
    """

    path: str
    split: str
    equals: str
    equals_split: str

    def __str__(self) -> str:
        """Returns both with their splits."""
        return f"{self.path} ({self.split}) is {self.equals} ({self.equals_split})"


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
            status = os.stat(file.path)
        except OSError:
            continue
        if status.st_size:  # empty files are no images, whatever else
            by_size.setdefault(status.st_size, []).append((file, status))
    suspects = [
        group for group in by_size.values() if len({_split_of(file) for file, _ in group}) > 1
    ]
    if not suspects:
        return []
    known = KnownFiles(cache_dir or default_cache_dir())
    first: dict[str, SourceFile] = {}
    leaks = []
    for file, status in (entry for group in suspects for entry in group):
        digest = _hash(file.path, status, known)
        earlier = first.setdefault(digest, file) if digest else file
        if _split_of(earlier) != _split_of(file):
            leaks.append(Leak(file.path, _split_of(file), earlier.path, _split_of(earlier)))
    known.save()
    return leaks


def _split_of(file: SourceFile) -> str:
    return file.split or "train"


def _hash(path: str, status: os.stat_result, known: KnownFiles) -> str:
    digest = known.get(path, status)
    if digest is None:
        try:
            digest = hash_file(Path(path))
        except OSError:
            return ""
        known.add(path, status, digest)
    return digest
