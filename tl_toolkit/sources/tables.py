"""Images named in a CSV table with the columns path, label and, if wanted, split."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tl_toolkit.errors import Problem, closest
from tl_toolkit.sources.folders import describe_unreadable
from tl_toolkit.sources.listing import MAX_NAMED, Found, Listing, SourceFile, name_some

_EXPECTED = "A table is expected with the columns path and label, and split if you like"
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


class _Row(NamedTuple):
    line: int
    file: SourceFile
    split: str  # as written


def read_table(path: Path) -> tuple[list[SourceFile], list[Found]]:
    """Lists the rows of a table in their order, and what is wrong with it or with single rows."""
    path = Path(os.path.abspath(path))
    rows, problems = _read_rows(path)
    if not problems:
        problems = list(_check_rows(rows, path))
    return [row.file for row in rows], [("csv", problem) for problem in problems]


def _read_rows(path: Path) -> tuple[list[_Row], list[Problem]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
            missing = [name for name in ("path", "label") if name not in columns]
            if missing:
                what = f"{str(path)!r} has no column {' and no column '.join(missing)}"
                expected = f"{_EXPECTED}; it has {', '.join(columns) or 'none'}."
                return [], [Problem("data.csv", what, expected)]
            reader.fieldnames = columns
            return [_as_row(reader.line_num, row, path.parent) for row in reader], []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [describe_unreadable(path, "data.csv", _EXPECTED, error)]


def _as_row(line: int, row: Mapping[str, str | None], folder: Path) -> _Row:
    path, label, split = ((row.get(name) or "").strip() for name in ("path", "label", "split"))
    full = os.path.normpath(folder / path) if path else ""
    return _Row(line, SourceFile(full, label, _SPLITS.get(split.lower())), split)


def _check_rows(rows: Sequence[_Row], path: Path) -> Iterator[Problem]:
    if not rows:
        yield Problem("data.csv", f"{str(path)!r} has no rows", "A row is expected for each image.")
    first_lines: dict[str, int] = {}
    wrong: list[str] = []
    for row in rows:
        wrong += [f"line {row.line}: {words}" for words in _tell_row(row)]
        first = first_lines.setdefault(row.file.path, row.line)
        if row.file.path and first != row.line:
            wrong.append(f"line {row.line}: the image of line {first} again")
    for words in wrong[:MAX_NAMED]:
        yield Problem("data.csv", f"{path.name!r}, {words}")
    if len(wrong) > MAX_NAMED:
        yield Problem("data.csv", f"{path.name!r} has {len(wrong) - MAX_NAMED} more wrong lines")


def _tell_row(row: _Row) -> Iterator[str]:
    if not row.file.path:
        yield "no path"
    elif not os.path.isfile(row.file.path):
        yield f"no file {row.file.path!r}"
    if not row.file.label:
        yield "no label"
    if row.split and row.file.split is None:
        yield f"split {row.split!r}; expected train, validation, test or nothing"


def check_table(listing: Listing, path: Path, labels: Sequence[str]) -> Iterator[Found]:
    """Yields classes that the table lacks, as a whole or in one of its splits.

    Args:
        listing: The rows that are used.
        path: The table.
        labels: All labels in it.
    """
    name = repr(str(path))
    missing = [wanted for wanted in listing.classes if wanted not in labels]
    if missing:
        near = closest(missing[0], labels)
        what = f"{name} has no image of {name_some(map(repr, missing))}"
        expected = f"Its labels are {name_some(map(repr, labels))}{'; ' if near else '.'}{near}"
        yield "classes", Problem("data.classes", what, expected)
    elif len(labels) < 2:
        what = f"{name} holds one class only ({', '.join(labels)})"
        yield "csv", Problem("data.csv", what, "At least 2 labels are needed.")
    else:
        counts = listing.count()
        training = None if listing.fractions else "train"
        for split in dict.fromkeys((training, *counts)):
            of_split = counts.get(split, dict.fromkeys(listing.classes, 0))
            empty = [label for label, count in of_split.items() if not count]
            if empty:
                what = f"{name} has no {split or 'train'} row of {name_some(map(repr, empty))}"
                yield "csv", Problem("data.csv", what, "Each split needs every class.")
