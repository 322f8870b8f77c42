"""Image folders of Hugging Face: images beside a file metadata.jsonl or metadata.csv."""

from __future__ import annotations

import csv
import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_toolkit.errors import Problem
from tl_toolkit.sources.table_rows import SPLIT_WORDS, RawRow, refuse_file

__all__ = ["METADATA", "find_metadata", "read_header", "read_rows", "recognizes"]

METADATA = ("metadata.jsonl", "metadata.csv")
"""Names of the file that lists the images of a folder."""

_FILE_NAME = "file_name"
_SEPARATOR = "|"
_EXPECTED = 'One JSON object a line is expected, as {"file_name": "001.png", "label": "cat"}.'


def find_metadata(path: Path) -> list[tuple[Path, str]]:
    """Returns the files that list images, and the split of each; "" where a folder names none.

    Args:
        path: Such a file; or a folder that holds one, or folders of splits with one in each.
    """
    if path.suffix.lower() == ".jsonl" or _is_csv(path):
        return [(path, "")]
    if not path.is_dir():
        return []
    if own := _find_in(path):
        return [(own, "")]
    try:
        folders = sorted(entry for entry in path.iterdir() if entry.name.lower() in SPLIT_WORDS)
    except OSError:
        return []
    listed = [(_find_in(folder), SPLIT_WORDS[folder.name.lower()]) for folder in folders]
    return [(file, split) for file, split in listed if file is not None]


def _find_in(folder: Path) -> Path | None:
    files = [folder / name for name in METADATA]
    return next(
        (file for file in files if file.suffix == ".jsonl" and file.is_file() or _is_csv(file)),
        None,
    )


def _is_csv(path: Path) -> bool:
    """Returns whether it is a metadata.csv with the column file_name, and no table of ours."""
    if path.name != METADATA[1] or refuse_file(path):
        return False
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return _FILE_NAME in header and "path" not in header


def recognizes(path: Path) -> bool:
    """Returns whether it lists images by file_name; see `TableReader`.

    Args:
        path: The file or folder.
    """
    return bool(find_metadata(path))


def read_header(path: Path, expected: str) -> tuple[tuple[str, ...], list[Problem]]:
    """Returns the names of the columns; see `TableReader`.

    Args:
        path: The file or folder.
        expected: The expected content, for messages.
    """
    rows, problems = _read(path)
    return tuple(dict.fromkeys(name for row in rows for name in row.cells)), problems


def read_rows(
    path: Path, header: tuple[str, ...], expected: str
) -> tuple[list[RawRow], list[Problem]]:
    """Returns the rows of all metadata files; see `TableReader`.

    Args:
        path: The file or folder.
        header: The names of the columns.
        expected: The expected content, for messages.
    """
    return _read(path)


def _read(path: Path) -> tuple[list[RawRow], list[Problem]]:
    files = find_metadata(path)
    for file, _ in files:
        if fault := refuse_file(file) or ("" if file.exists() else "does not exist"):
            return [], [Problem("data.csv", f"{str(file)!r} {fault}", _EXPECTED)]
    try:
        states = [os.stat(file) for file, _ in files]
        stamps = tuple((state.st_size, state.st_mtime_ns) for state in states)
        rows, problems = _read_files(tuple(files), stamps)
    except OSError as error:
        what = f"{error.filename!r} cannot be read: {error.strerror}"
        return [], [Problem("data.csv", what, _EXPECTED)]
    return list(rows), list(problems)


@functools.lru_cache(maxsize=2)  # header, columns and rows are asked for one after the other
def _read_files(
    files: tuple[tuple[Path, str], ...], stamps: tuple[tuple[int, int], ...]
) -> tuple[tuple[RawRow, ...], tuple[Problem, ...]]:
    """Reads all files once for each state of them."""
    rows: list[RawRow] = []
    for file, split in files:
        try:
            lines = list(_read_lines(file) if file.suffix.lower() == ".jsonl" else _read_csv(file))
        except (ValueError, RecursionError, csv.Error) as error:
            return (), (Problem("data.csv", f"{str(file)!r} {_word(error)}", _EXPECTED),)
        if lines and not any(_FILE_NAME in cells for _, cells in lines):
            what = f"{str(file)!r} has no {_FILE_NAME}; it has {', '.join(lines[0][1]) or 'none'}"
            return (), (Problem("data.csv", what, _EXPECTED),)
        rows += [RawRow(line, _rename(cells, split), file) for line, cells in lines]
    if not any("split" in row.cells for row in rows):
        rows = _split_by_folder(rows)
    return tuple(rows), ()


def _read_lines(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with open(file, encoding="utf-8-sig") as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError(f"is {type(values).__name__}, no object")
                cells = {name: _as_text(value) for name, value in values.items()}
                "".join([*cells, *cells.values()]).encode()  # refuses half of an emoji
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {_word(error)}") from error
            yield number, cells


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with open(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        for row in reader:
            yield reader.line_num, {name: value or "" for name, value in row.items() if name}


def _as_text(value: Any) -> str:
    """Returns a JSON value as a cell: names of a list are joined by the sign between labels.

    Raises:
        ValueError: A name in a list holds that sign.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        if any(_SEPARATOR in name for name in value):
            raise ValueError(f"a name in {value!r} holds {_SEPARATOR!r}")
        return _SEPARATOR.join(value)
    return json.dumps(value)


def _rename(cells: Mapping[str, str], split: str) -> dict[str, str]:
    """Returns a row with the names of columns that tables have here."""
    renamed = {name: value for name, value in cells.items() if name != "path"}
    renamed = {"path" if name == _FILE_NAME else name: value for name, value in renamed.items()}
    return {**renamed, "split": split} if split else renamed


def _split_by_folder(rows: Iterable[RawRow]) -> list[RawRow]:
    """Adds the split of each row where all images lie in folders that are called like splits."""
    rows = list(rows)
    firsts = [Path(row.cells.get("path") or "").parts[:1] for row in rows]
    splits = [SPLIT_WORDS.get("".join(first).lower()) for first in firsts]
    if not all(splits):
        return rows
    return [
        row._replace(cells={**row.cells, "split": split})
        for row, split in zip(rows, splits, strict=True)
    ]


def _word(error: Exception) -> str:
    """Returns what is wrong with a line or a file, in words."""
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "holds half of a character of two escapes"
    if isinstance(error, json.JSONDecodeError):
        return f"is no JSON: {error.msg}, column {error.colno}"
    return "is nested too deeply" if isinstance(error, RecursionError) else str(error)
