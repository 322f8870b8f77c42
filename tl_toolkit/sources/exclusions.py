"""Images that a recipe leaves out by name: a table with the column path, and the reason of each."""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.remote import hide_credentials, is_address, mirror_of_file, name_object
from tl_toolkit.sources.copies import Copies
from tl_toolkit.sources.folders import describe_unreadable
from tl_toolkit.sources.listing import Excluded, FieldProblem, Listing, name_some
from tl_toolkit.sources.members import list_members, split_member
from tl_toolkit.sources.places import Presence, join
from tl_toolkit.sources.table_rows import name_image

__all__ = ["exclude_files", "read_exclusions"]

_EXPECTED = "A table is expected with the column path, and reason if you like"


def read_exclusions(path: Path) -> dict[str, str]:
    """Returns the reason of each image that a table names, by absolute path.

    Args:
        path: The table, CSV; paths in it are relative to its folder, which may be one of a store.
            An image in a file with others is named as `shop.parquet#12`.

    Raises:
        DataError: It cannot be read, or has no column path.
    """
    place = Path(os.path.abspath(path))
    try:
        with open(place, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or ()):
                names = ", ".join(reader.fieldnames or ()) or "none"
                what = f"{str(path)!r} has no column path"
                raise DataError(Problem("data.exclude", what, f"{_EXPECTED}; it has {names}."))
            rows = [(row["path"] or "", row.get("reason") or "") for row in reader]
    except (OSError, csv.Error) as error:
        raise DataError(describe_unreadable(place, "data.exclude", _EXPECTED, error)) from error
    folder = name_object(str(place.parent))
    return {join(folder, name): reason for name, reason in rows if name}


def exclude_files(listing: Listing, table: Path) -> tuple[Listing, list[FieldProblem]]:
    """Leaves images out of a listing.

    Args:
        listing: The images.
        table: Names those that are left out, as in `read_exclusions`.

    Returns:
        The listing without them, which counts them; and the problems of the table.
    """
    try:
        reasons = read_exclusions(table)
    except DataError as error:
        return listing, [("exclude", problem) for problem in error.problems]
    name = name_object(str(table))
    kept = tuple(file for file in listing.files if name_image(file.path) not in reasons)
    missing = _find_missing(reasons, {name_image(file.path) for file in listing.files})
    if reasons and len(missing) == len(reasons):
        what = f"{name!r} names no file that exists, as {_show(missing[0])!r}"
        expected = "Paths in it are relative to its folder."
        return listing, [("exclude", Problem("data.exclude", what, expected))]
    excluded = Excluded(name, len(listing.files) - len(kept), name_some(map(_show, missing)))
    return replace(listing, files=kept, excluded=excluded), []


def _show(path: str) -> str:
    """Returns a path without credentials; of `s3://photos/shop.parquet#12` the row stays."""
    file, row = split_member(path)
    return f"{hide_credentials(file)}#{row}" if file else hide_credentials(path)


def _find_missing(reasons: Mapping[str, str], listed: Set[str]) -> list[str]:
    is_there = Presence(is_strict=False)  # images of another set may lie on a store out of reach
    list_rows = functools.cache(_list_rows)

    def is_row(path: str) -> bool:
        file, _ = split_member(path)
        if not (file and is_there(file)):
            return False
        rows = list_rows(file)
        return rows is None or path in rows

    return [
        path for path in reasons if path not in listed and not is_there(path) and not is_row(path)
    ]


def _list_rows(file: str) -> Set[str] | None:
    """Returns the images in a file with others, as `shop.parquet#12`; None where nobody can say.

    A file on a store is read if there is a copy of it: one of another set is not copied for this.
    """
    place = mirror_of_file(file) if is_address(file) else Path(file)
    if is_address(file) and not Copies(place.parent).holds(place.name):
        return None
    try:
        return {name_image(member) for member in list_members(place)}
    except DataError:
        return None
