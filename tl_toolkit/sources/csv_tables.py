"""Tables in CSV: with commas, semicolons or tabs, in UTF-8."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from tl_toolkit.errors import Problem
from tl_toolkit.sources.folders import describe_unreadable
from tl_toolkit.sources.table_rows import RawRow, refuse_file

__all__ = ["read_header", "read_rows", "recognizes"]

_DELIMITERS = (",", ";", "\t")


def recognizes(path: Path) -> bool:
    """Returns whether it is a file: what it holds is told by its header.

    Args:
        path: The file.
    """
    return path.is_file()


def read_header(path: Path, expected: str) -> tuple[tuple[str, ...], list[Problem]]:
    """Returns the names of the columns; see `TableReader`.

    Args:
        path: The table.
        expected: The expected content, for messages.
    """
    if fault := refuse_file(path):
        return (), [Problem("data.csv", f"{str(path)!r} {fault}", f"{expected}.")]
    if path.is_dir():
        kinds = "no metadata.jsonl, metadata.csv, .parquet or .tfrecord"
        what = f"{str(path)!r} is a folder that holds {kinds}"
        return (), [Problem("data.csv", what, f"{expected}.", f"data.train={path}")]
    try:
        delimiter = _find_delimiter(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file, delimiter=delimiter), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return (), [_describe_fault(path, expected, error)]
    return tuple(name.strip() for name in columns), []


def read_rows(
    path: Path, header: tuple[str, ...], expected: str
) -> tuple[list[RawRow], list[Problem]]:
    """Returns the rows; see `TableReader`.

    Args:
        path: The table.
        header: The names of its columns.
        expected: The expected content, for messages.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, fieldnames=header, delimiter=_find_delimiter(path))
            next(reader, None)  # the header itself
            return [RawRow(reader.line_num, row, path) for row in reader], []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [_describe_fault(path, expected, error)]


def _find_delimiter(path: Path) -> str:
    """Returns the sign that makes a column `path` of a table's first line, and most columns."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        line = file.readline()
    headers = {sign: next(csv.reader([line], delimiter=sign), []) for sign in _DELIMITERS}
    return max(
        headers,
        key=lambda sign: ("path" in map(str.strip, headers[sign]), len(headers[sign])),
    )


def _describe_fault(path: Path, expected: str, error: Exception) -> Problem:
    """Returns why a table cannot be read; of another encoding, which it is and how to leave it."""
    if not isinstance(error, UnicodeDecodeError):
        return describe_unreadable(path, "data.csv", expected, error)
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        what, encoding = "is UTF-16, not UTF-8", "UTF-16"
    else:
        number, line = _find_undecodable(data)
        text = line.decode("cp1252", "replace")[:60]
        what = f"is not UTF-8: line {number} is {text!r} in Windows-1252"
        encoding = "WINDOWS-1252"
    command = f"iconv -f {encoding} -t UTF-8 {shlex.quote(path.name)} > utf8.csv"
    hint = f"save it as CSV UTF-8, or: {command}"
    return Problem("data.csv", f"{str(path)!r} {what}", "A table in UTF-8 is expected.", hint)


def _find_undecodable(data: bytes) -> tuple[int, bytes]:
    """Returns the first line that is not UTF-8, and its number, counted from 1."""
    for number, line in enumerate(data.splitlines(), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return number, line
    return 1, b""
