"""Images named in a table: a column path, a column split if wanted, and columns of targets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from tl_toolkit.errors import Problem, nearest
from tl_toolkit.sources import csv_tables, image_folders, parquet, tfrecords
from tl_toolkit.sources.listing import (
    MAX_NAMED,
    FieldProblem,
    Links,
    SourceFile,
    name_some,
    normalize,
)
from tl_toolkit.sources.table_checks import Refusal, Row, check_rows
from tl_toolkit.sources.table_images import find_file, find_objects
from tl_toolkit.sources.table_rows import INSIDE, SPLIT_WORDS, RawRow, TableReader, name_image

__all__ = [
    "NOT_TARGETS",
    "Cell",
    "blame_table",
    "describe_cells",
    "field_of_table",
    "find_wrong_cells",
    "is_slip",
    "is_table",
    "list_paths",
    "read_columns",
    "read_header",
    "read_splits",
    "read_table",
    "refuse_index",
]

NOT_TARGETS = ("path", "split")
"""Columns that name the image and its split."""

_READERS: tuple[TableReader, ...] = (image_folders, parquet, tfrecords, csv_tables)
"""The kinds of tables; the first one that recognizes a file or folder reads it."""

_LIKE_SPLIT = frozenset(
    {"splits", "set", "sets", "subset", "partition", "fold", "dataset", "data_split", "phase"}
)
"""Names that tables give to the column `split`."""

_UNNAMED = re.compile(r"(Unnamed: \d+(\.\d+)?)?")
"""The name of an index that pandas wrote, or wrote, read and wrote again."""

_Value = TypeVar("_Value")


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        line: Line of the file, from 1.
        value: As written, without blanks around it.
        file: The file that the line is in, where the table has several; "" for the table.
    """

    line: int
    value: str
    file: str = ""


def refuse_empty(column: str, value: str) -> str:
    """Refuses a target that is missing; see `Refusal`.

    Args:
        column: Name of the column.
        value: The value.
    """
    return "" if value else f"no {column}"


def mend_decimal(value: str) -> str:
    """Returns a number that is written with a decimal comma with a point, "" for any other value.

    Args:
        value: As "0,5".
    """
    return value.replace(",", ".") if re.fullmatch(r"[+-]?\d+,\d+", value) else ""


def is_table(path: Path) -> bool:
    """Returns whether a path may be a table: a file, or a folder that lists its images in one.

    Args:
        path: The file or folder.
    """
    return any(reader.recognizes(path) for reader in _READERS)


def _find_reader(path: Path) -> TableReader:
    return next((reader for reader in _READERS if reader.recognizes(path)), csv_tables)


def field_of_table(path: Path) -> str:
    """Returns the field of a recipe's `data` that names a table: "csv", or "table" if no CSV.

    Args:
        path: The file or folder.
    """
    return "csv" if _find_reader(path) is csv_tables else "table"


def read_header(
    path: Path, *, expected: str, names: Mapping[str, str] = MappingProxyType({})
) -> tuple[tuple[str, ...], list[Problem]]:
    """Returns the names of a table's columns, or why they cannot be read.

    Args:
        path: The table.
        expected: The expected content, for messages.
        names: Columns that the table calls otherwise: its own name of each.
    """
    header, problems = _find_reader(path).read_header(path, expected)
    problems = problems or [
        _describe_misnamed(path, column, own, header)
        for column, own in names.items()
        if own not in header
    ]
    return tuple(dict.fromkeys(_rename(dict.fromkeys(header), names))), problems


def _rename(cells: Mapping[str, _Value], names: Mapping[str, str]) -> dict[str, _Value]:
    """Returns cells by the names that columns have here; others of such a name are left out."""
    ours = {own: column for column, own in names.items()}
    return {ours.get(name, name): value for name, value in cells.items()
            if name in ours or name not in names}  # fmt: skip


def _describe_misnamed(path: Path, column: str, own: str, header: Sequence[str]) -> Problem:
    field, near = f"data.columns.{column}", nearest(own, header)
    what = f"{str(path)!r} has no column {own!r}"
    expected = f"Its columns are {name_some(map(repr, header))}."
    return Problem(field, what, expected, f"{field}={near}" if near else "")


def refuse_index(path: Path, names: Sequence[str]) -> Problem | None:
    """Returns why columns are no targets: one of them has no name, as the index of a DataFrame.

    Args:
        path: The table.
        names: The columns that are taken for targets because no recipe chooses any.
    """
    unnamed = next((name for name in names if _UNNAMED.fullmatch(name)), None)
    if unnamed is None:
        return None
    what = f"has the column {unnamed!r}" if unnamed else "has a column without a name"
    expected = "Row numbers, which pandas writes so, are no target."
    hint = f"write it with index=False, as df.to_csv({path.name!r}, index=False)"
    return Problem("data.csv", f"{str(path)!r} {what}", expected, hint)


def read_table(
    path: Path,
    columns: Sequence[str] = ("label",),
    *,
    refuse: Refusal = refuse_empty,
    expected: str = "",
    group: str = "",
    links: Links = "refuse",
    names: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[SourceFile], list[FieldProblem]]:
    """Lists the rows of a table in their order, and the problems of the table or of single rows.

    Args:
        path: The table; relative paths in it are relative to its folder.
        columns: The columns of targets.
        refuse: Returns the problem of a target.
        expected: The expected content, for messages; by default the columns.
        group: The column that names the group of each image; "" for none.
        links: Whether images may lie outside the table's folder, or links in it lead out: with
            "follow" alone.
        names: As in `read_header`.
    """
    path = Path(os.path.abspath(path))
    words = " and ".join(("path", *columns)) if len(columns) == 1 else ", ".join(
        ("path", *columns)
    )  # fmt: skip
    expected = expected or (f"A table is expected with the columns {words}, and split if you like")
    rows, problems = _read_rows(path, columns, expected, names)
    if not problems:
        rows, missing = find_objects(rows)
        problems = list(check_rows(rows, path, columns, refuse, links, missing))
    if problems or not group:
        return [row.file for row in rows], blame_table(problems)
    cells = read_columns(path, [group], names).get(group)
    if not cells:
        return [row.file for row in rows], [("group", _describe_no_group(path, group, names))]
    problems = describe_cells(
        path, find_wrong_cells({group: cells}, refuse_empty), refuse_empty, "a group for each image"
    )
    files = [row.file._replace(group=cell.value) for row, cell in zip(rows, cells, strict=True)]
    return files, [("group", replace(problem, where="data.group")) for problem in problems]


def blame_table(problems: Sequence[Problem]) -> list[FieldProblem]:
    """Returns problems with their fields: that of the table, but for names of columns.

    Args:
        problems: As `read_header` returns them.
    """
    return [
        (problem.where if problem.where.startswith("data.columns.") else "csv", problem)
        for problem in problems
    ]


def _describe_no_group(path: Path, group: str, own_names: Mapping[str, str]) -> Problem:
    header, _ = read_header(path, expected="", names=own_names)
    names = [name for name in header if name not in NOT_TARGETS]
    near = nearest(group, names)
    what = f"{str(path)!r} has no column {group!r}"
    expected = f"Its columns are {name_some(map(repr, names))}."
    return Problem("data.group", what, expected, f"data.group={near}" if near else "")


def read_columns(
    path: Path, columns: Sequence[str], names: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[Cell]]:
    """Returns the cells of some columns of a table, none if it cannot be read.

    Args:
        path: The table.
        columns: Names of its columns.
        names: As in `read_header`.
    """
    rows, _ = _read_rows(path, columns, "", names)
    return {
        name: [
            Cell(row.line, row.file.targets[place], str(row.table) if row.table != path else "")
            for row in rows
        ]
        for place, name in enumerate(columns)
    }


def list_paths(path: Path) -> list[str]:
    """Returns the files and objects that a table names, without images in its own files.

    Args:
        path: The table, with a column path; of one that cannot be read there are none.
    """
    rows, _ = _read_rows(Path(os.path.abspath(path)), (), "")
    return [row.file.path for row in rows if not row.file.path.startswith(INSIDE)]


def read_splits(path: Path) -> dict[str, str]:
    """Returns the split of each image that a table places, by absolute path; none if unreadable.

    One in a file with others goes by `/data/shop.parquet#12`.

    Args:
        path: The table, with columns path and split.
    """
    rows, _ = _read_rows(Path(os.path.abspath(path)), (), "")
    return {name_image(row.file.path): row.file.split for row in rows if row.file.split}


def find_wrong_cells(
    columns: Mapping[str, Sequence[Cell]], refuse: Refusal
) -> dict[str, list[Cell]]:
    """Returns the cells of each column that are refused.

    Args:
        columns: Cells by the name of their column.
        refuse: Returns the problem of a value.
    """
    return {
        name: [cell for cell in cells if refuse(name, cell.value)]
        for name, cells in columns.items()
    }


def is_slip(wrong: Sequence[Cell], cells: Sequence[Cell]) -> bool:
    """Returns whether so few cells of a column are wrong that the others say what it holds.

    Args:
        wrong: The wrong cells.
        cells: All cells of the column.
    """
    return bool(wrong) and 2 * len(wrong) < len(cells) and len(wrong) <= max(1, len(cells) // 10)


def describe_cells(
    path: Path, columns: Mapping[str, Sequence[Cell]], refuse: Refusal, hint: str = ""
) -> list[Problem]:
    """Returns a problem for each refused cell, the first MAX_NAMED of them.

    Args:
        path: The table.
        columns: Refused cells by the name of their column.
        refuse: Returns the problem of a value.
        hint: What to type.
    """
    cells = [(cell, name) for name, of_column in columns.items() for cell in of_column]
    return [
        Problem("", f"{cell.file or path}:{cell.line}: {refuse(name, cell.value)}", hint=hint)
        for cell, name in sorted(cells)[:MAX_NAMED]
    ]


def _read_rows(
    path: Path,
    columns: Sequence[str],
    expected: str,
    names: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[Row], list[Problem]]:
    header, problems = read_header(path, expected=expected, names=names)
    if problems:
        return [], problems
    missing = [name for name in ("path", *columns) if name not in header]
    if missing:
        what = f"{str(path)!r} has no column {' and no column '.join(missing)}"
        there = f"{expected}; it has {', '.join(header) or 'none'}."
        likely = {
            name: nearest(name, header) for name in missing if name in (*NOT_TARGETS, "label")
        }
        hint = " ".join(f"data.columns.{name}={near}" for name, near in likely.items() if near)
        return [], [Problem("data.csv", what, there, hint)]
    reader = _find_reader(path)
    lines, problems = reader.read_rows(path, reader.read_header(path, expected)[0], expected)
    if problems:
        return [], problems
    if names:
        lines = [row._replace(cells=_rename(row.cells, names)) for row in lines]
    if split := _find_misnamed_split(header, [row.cells for row in lines]):
        what = f"{str(path)!r} has splits in the column {split!r}"
        there = "They are read from the column 'split' alone."
        return [], [Problem("data.csv", what, there, f"'split' as the name of {split!r}")]
    root = path if path.is_dir() else path.parent
    return [_as_row(row, root, columns) for row in lines], []


def _find_misnamed_split(header: Sequence[str], rows: Sequence[Mapping[str, str | None]]) -> str:
    """Returns the column that holds splits under another name, or ""."""
    if "split" in header:
        return ""
    for name in header:
        if name.lower() in _LIKE_SPLIT or nearest(name, ["split"], likeness=0.8):
            values = {(row.get(name) or "").strip().lower() for row in rows} - {""}
            if values and values <= set(SPLIT_WORDS):
                return name
    return ""


def _as_row(row: RawRow, root: Path, columns: Sequence[str]) -> Row:
    path, split = ((row.cells.get(name) or "").strip() for name in NOT_TARGETS)
    targets = tuple(normalize((row.cells.get(name) or "").strip()) for name in columns)
    full = row.member or find_file(row.file.parent, path)
    file = SourceFile(full, SPLIT_WORDS.get(split.lower()), targets)
    place = f"{os.path.relpath(row.file, root)}:{row.line}"
    return Row(place, row.line, file, split, row.file)
