"""Images that lie in a file with others: read from it, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from tl_toolkit.sources import parquet, tfrecords
from tl_toolkit.sources.table_rows import INSIDE

__all__ = ["INSIDE", "locate_member", "read_members"]


def locate_member(path: str) -> tuple[Path, int]:
    """Returns the file that an image lies in, and its place in it, from 1.

    Args:
        path: As `inside:<file>#<place>`.
    """
    file, _, row = path.removeprefix(INSIDE).rpartition("#")
    return Path(file), int(row)


def read_members(file: Path, rows: Collection[int]) -> Iterator[tuple[int, bytes]]:
    """Yields the encoded images at some places of a file, with the places, a few at a time.

    Args:
        file: The file.
        rows: The places, from 1; one without an image is left out.

    Raises:
        DataError: The file cannot be read.
    """
    if parquet.recognizes(file):
        return parquet.read_images(file, rows)
    return tfrecords.read_images(file, rows)
