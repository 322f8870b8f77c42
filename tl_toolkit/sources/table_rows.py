"""Rows of a table as they stand in its file, whatever kind of file it is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from tl_toolkit.errors import Problem
from tl_toolkit.recipe.remote import name_object

__all__ = [
    "INSIDE",
    "MAX_BYTES",
    "SPLIT_WORDS",
    "RawRow",
    "TableReader",
    "find_shards",
    "name_image",
    "name_member",
    "refuse_file",
]

INSIDE = "inside:"
"""Prefix of the path of an image in a file with others: `inside:<file>#<place>`."""

MAX_BYTES = 256 << 20
"""Bytes of a table of text, which is read as a whole."""

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
"""What tables and folders call the splits, in small letters."""

_SHARD_FOLDERS = {"data", *SPLIT_WORDS}


class RawRow(NamedTuple):
    """A row of a table, as text.

    Attributes:
        line: Its place in the file, from 1.
        cells: Values by the name of their column; one that is missing is None or absent.
        file: The file that it stands in: relative paths are relative to its folder.
        member: The path of an image that lies in the file itself; "" where `path` names one.
    """

    line: int
    cells: Mapping[str, str | None]
    file: Path
    member: str = ""


class TableReader(Protocol):
    """Reads one kind of table; a module of this folder with these functions is one."""

    def recognizes(self, path: Path) -> bool:
        """Returns whether a file or folder is such a table.

        Args:
            path: The file or folder; it need not exist.
        """

    def read_header(self, path: Path, expected: str) -> tuple[tuple[str, ...], list[Problem]]:
        """Returns the names of the columns, `path` and `split` among them, or why there are none.

        Args:
            path: The table.
            expected: The expected content, for messages.
        """

    def read_rows(
        self, path: Path, header: tuple[str, ...], expected: str
    ) -> tuple[list[RawRow], list[Problem]]:
        """Returns the rows in their order, or why they cannot be read.

        Args:
            path: The table.
            header: As `read_header` returned it.
            expected: The expected content, for messages.
        """


def refuse_file(path: Path) -> str:
    """Returns why a table is not opened: a pipe would be waited for, a device has no end.

    Args:
        path: The table.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return "is no regular file"
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        return f"has more than {MAX_BYTES >> 20} MiB"
    return ""


def name_member(file: Path, row: int) -> str:
    """Returns the path of an image that lies in a file with others.

    Args:
        file: The file.
        row: Its place in it, from 1.
    """
    return f"{INSIDE}{os.path.abspath(file)}#{row}"


def name_image(path: str) -> str:
    """Returns what people call an image: one in a file with others `/data/shop.parquet#12`.

    Of a copy of a file on an object store it is the address, `s3://photos/shop.parquet#12`.

    Args:
        path: Any path, as `name_member` returns it or another.
    """
    return name_object(path.removeprefix(INSIDE))


def find_shards(path: Path, pattern: str) -> list[tuple[Path, str]]:
    """Returns the files of a folder that a table is divided into, and the split of each.

    They lie in the folder, in its folder `data` or in folders of splits. The split is told by such
    an inner folder or by the file's name, as in `train-00000-of-00002.parquet`; "" where neither
    does. The folder's own name tells none.

    Args:
        path: The folder; there are none below a file.
        pattern: What the files are called, as "*.parquet".
    """
    if not path.is_dir():
        return []
    try:
        inner = [entry for entry in sorted(path.iterdir()) if entry.name.lower() in _SHARD_FOLDERS]
        files = [file for folder in (path, *inner) for file in sorted(folder.glob(pattern))]
    except OSError:
        return []
    inside = {entry: SPLIT_WORDS.get(entry.name.lower(), "") for entry in inner}
    return [
        (file, inside.get(file.parent) or _find_split(file.name))
        for file in files
        if file.is_file()
    ]


def _find_split(name: str) -> str:
    """Returns the split of a file's name: the last word of one before its number and ending."""
    stem = re.split(r"-\d{5}-of-\d{5}|\.(?:parquet|tfrecords?)", name)[0]
    if ".tfrecord-" in name:  # as tfds names them: <set>-<split>.tfrecord-00000-of-00001
        stem = stem.rpartition("-")[2]
    words = re.split(r"[^a-z]+", stem.lower())
    return next((SPLIT_WORDS[word] for word in reversed(words) if word in SPLIT_WORDS), "")
