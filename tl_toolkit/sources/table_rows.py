"""Rows of a table as they stand in its file, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from tl_toolkit.errors import Problem

__all__ = ["MAX_BYTES", "SPLIT_WORDS", "RawRow", "TableReader", "refuse_file"]

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


class RawRow(NamedTuple):
    """A row of a table, as text.

    Attributes:
        line: Its place in the file, from 1.
        cells: Values by the name of their column; one that is missing is None or absent.
        file: The file that it stands in: relative paths are relative to its folder.
    """

    line: int
    cells: Mapping[str, str | None]
    file: Path


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
