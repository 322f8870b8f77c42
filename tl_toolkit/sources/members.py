"""Images that lie in a file with others: read from it, whatever kind of file it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from tl_toolkit.errors import DataError
from tl_toolkit.recipe.remote import name_object
from tl_toolkit.sources import parquet, tfrecords
from tl_toolkit.sources.image_folders import find_metadata
from tl_toolkit.sources.table_rows import INSIDE, TableReader, name_member

__all__ = [
    "INSIDE",
    "find_files",
    "find_member",
    "holds_images",
    "list_members",
    "locate_member",
    "read_members",
    "split_member",
]


def find_files(path: Path) -> list[Path]:
    """Returns the files with images in them that a table is divided into; [] for other tables.

    Args:
        path: The file or folder; the files may still be empty.
    """
    for reader in (parquet, tfrecords):
        if not find_metadata(path) and reader.recognizes(path):
            return [file for file, _ in reader.find_files(path)]
    return []


def split_member(name: str) -> tuple[str, int]:
    """Returns the file and the place of an image that is named as `shop.parquet#12`.

    Args:
        name: Any path or address; the file of others is "", and the place 0.
    """
    file, _, row = name.rpartition("#")
    return (file, int(row)) if row.isdecimal() and holds_images(file) else ("", 0)


def holds_images(name: str) -> bool:
    """Returns whether a name ends as that of a file with images in it does.

    Args:
        name: A path or an address.
    """
    return parquet.has_ending(name) or tfrecords.has_ending(name)


def find_member(name: str) -> str:
    """Returns the path of an image that people name as `shop.parquet#12`; "" for any other name.

    Args:
        name: An absolute path, and after its last `#` the place in that file, from 1.
    """
    file, _, row = name.rpartition("#")
    path = Path(file)
    if not (file and row.isdecimal() and path.is_file()):
        return ""
    is_table = parquet.recognizes(path) or tfrecords.recognizes(path)
    return name_member(path, int(row)) if is_table else ""


def list_members(path: Path) -> list[str]:
    """Returns the paths of the images that lie in a file with others; [] for any other file.

    Args:
        path: The file, or one image of it as `shop.parquet#12`.

    Raises:
        DataError: The file cannot be read.
    """
    if member := find_member(os.path.abspath(path)):
        return [member]
    readers: tuple[TableReader, ...] = (parquet, tfrecords)
    reader = next((each for each in readers if path.is_file() and each.recognizes(path)), None)
    if reader is None:
        return []
    header, problems = reader.read_header(path, "")
    rows, more = ([], []) if problems else reader.read_rows(path, header, "")
    if problems or more:
        raise DataError(
            [replace(problem, where=name_object(str(path))) for problem in (*problems, *more)]
        )
    return [row.member for row in rows if row.member]


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
