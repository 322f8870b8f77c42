"""The files and objects that rows of a table name."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tl_toolkit.recipe.remote import find_object_fault, is_address, mirror_of_file, name_object
from tl_toolkit.sources.members import find_member, split_member
from tl_toolkit.sources.objects import locate_objects
from tl_toolkit.sources.places import join
from tl_toolkit.sources.remote import list_remote
from tl_toolkit.sources.table_checks import Row
from tl_toolkit.sources.table_rows import name_member

__all__ = ["find_file", "find_objects"]


def find_file(folder: Path, name: str) -> str:
    """Returns the path as the disk spells it: a Mac decomposes letters, and a table may not.

    Of `shop.parquet#12` it is the path of the image that lies in that file; an address stays, and
    what a table on an object store names becomes one.

    Args:
        folder: The folder of the table, which paths are relative to.
        name: As the table has it.
    """
    path = join(name_object(str(folder)), name) if name else ""
    if not path or is_address(path):
        return path
    if member := find_member(path):
        return member
    if path.isascii() or os.path.exists(path):
        return path
    spellings = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next(filter(os.path.exists, spellings), path)


def find_objects(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """Returns rows with the addresses that their stores have, and why others are no objects.

    Args:
        rows: The rows; those that name files stay as they are.

    Raises:
        DataError: A store cannot be read.
    """
    folders = {name_object(str(row.table.parent)) for row in rows}
    own = tuple(f"{folder}/" for folder in folders if is_address(folder))
    rows = _find_members(rows)
    missing, spelled = locate_objects((row.file.path for row in rows), own)
    located = [
        row._replace(file=row.file._replace(path=spelled.get(row.file.path, row.file.path)))
        for row in rows
    ]
    return located, missing


def _find_members(rows: Sequence[Row]) -> list[Row]:
    """Returns rows with the path in a copy for each image named as `s3://b/shop.parquet#12`."""
    copies: dict[str, Path] = {}
    found = []
    for row in rows:
        file, place = split_member(row.file.path) if is_address(row.file.path) else ("", 0)
        if file and not find_object_fault(file):
            if file not in copies:
                copies[file] = mirror_of_file(file)
                list_remote({row.place: copies[file]})
            row = row._replace(file=row.file._replace(path=name_member(copies[file], place)))
        found.append(row)
    return found
