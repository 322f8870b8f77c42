"""What is wrong with the rows of a table: images that are missing or outside, targets, classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tl_toolkit.errors import Problem, closest
from tl_toolkit.recipe.remote import is_address, name_object
from tl_toolkit.sources.listing import (
    MAX_NAMED,
    FieldProblem,
    Links,
    Listing,
    SourceFile,
    name_some,
)
from tl_toolkit.sources.outside import OutsideCheck
from tl_toolkit.sources.table_rows import INSIDE, name_image

__all__ = ["Refusal", "Row", "check_classes_of_table", "check_rows"]

Refusal = Callable[[str, str], str]
"""Returns the problem of a value of a column, from the column's name and the value; "" for none."""


class Row(NamedTuple):
    """A row of a table, with the image that it names.

    Attributes:
        place: Where it stands, as "t.csv:3".
        line: Its line in the file, from 1.
        file: The image.
        split: As written.
        table: The file that it stands in.
    """

    place: str
    line: int
    file: SourceFile
    split: str
    table: Path


def check_rows(
    rows: Sequence[Row],
    path: Path,
    columns: Sequence[str],
    refuse: Refusal,
    links: Links,
    missing: Mapping[str, str],
) -> Iterator[Problem]:
    """Yields what is wrong with the rows of a table.

    Args:
        rows: The rows.
        path: The table.
        columns: The columns of targets.
        refuse: Returns the problem of a target.
        links: As in `read_table`.
        missing: Why an address is no object, by address.
    """
    if not rows:
        yield Problem("data.csv", f"{str(path)!r} has no rows", "A row is expected for each image.")
    firsts: dict[str, Row] = {}
    checks = {table: OutsideCheck(table.parent) for table in {row.table for row in rows}}
    own_names = {table: name_object(str(table)) for table in checks}
    faults: list[str] = []
    outside: list[str] = []
    for row in rows:
        if fault := missing.get(row.file.path):
            faults.append(f"{row.place}: {fault}")
            continue
        faults += [f"{row.place}: {words}" for words in _check_row(row, columns, refuse)]
        named = name_image(row.file.path)
        place = named.rpartition("#")[0] if row.file.path.startswith(INSIDE) else named
        is_own = place in ("", own_names[row.table])
        if links != "follow" and not is_own and checks[row.table](place):
            outside.append(f"{row.line}: {named!r}")
        first = firsts.setdefault(row.file.path, row)
        if row.file.path and first is not row:
            line = first.line if first.table == row.table else first.place
            faults.append(f"{row.place}: the image of line {line} again")
    if outside:
        count = "1 image" if len(outside) == 1 else f"{len(outside)} images"
        what = f"{path.name!r} names {count} outside its folder: line {name_some(outside)}"
        expected = f"Expected images below {str(path.parent)!r}."
        yield Problem("data.csv", what, expected, "data.links=follow to use them")
    for words in faults[:MAX_NAMED]:
        yield Problem("data.csv", words)
    if len(faults) > MAX_NAMED:
        yield Problem("data.csv", f"{path.name!r} has {len(faults) - MAX_NAMED} more wrong lines")


def _check_row(row: Row, columns: Sequence[str], refuse: Refusal) -> Iterator[str]:
    if not row.file.path:
        yield "no path"
    elif not row.file.path.startswith(INSIDE) and not _is_file(row.file.path):
        yield f"no file {row.file.path!r}"
    for column, value in zip(columns, row.file.targets, strict=True):
        if words := refuse(column, value):
            yield words
    if row.split and row.file.split is None:
        yield f"split {row.split!r}; expected train, validation, test or nothing"


def _is_file(path: str) -> bool:
    return is_address(path) or os.path.isfile(path)


def check_classes_of_table(
    listing: Listing, path: Path, labels: Sequence[str]
) -> Iterator[FieldProblem]:
    """Yields problems of classes that the table lacks, as a whole or in one of its splits.

    Args:
        listing: The rows that are used.
        path: The table.
        labels: All labels in it.
    """
    name = repr(str(path))
    known = set(labels)
    missing = [wanted for wanted in listing.classes if wanted not in known]
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
