"""Folders and tables on object stores, brought into the cache and then read as local ones.

Each image of a folder is an empty file of its name there, so that folders of stores follow the
rules of all folders; its bytes are read when they are asked for (`sources.objects`). A table is
copied to where the listing of its folder would put it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from tl_toolkit.catalog.published import is_offline
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.recipe.remote import (
    find_address,
    find_object_fault,
    mirror_of,
    mirror_of_table,
    name_object,
)
from tl_toolkit.runs.files import describe_unwritable, name_draft, write_atomically, write_json
from tl_toolkit.runs.locks import hold
from tl_toolkit.sources import table_rows
from tl_toolkit.sources.listing import MAX_BYTES, suffix_of
from tl_toolkit.sources.objects import (
    INDEX,
    ObjectPath,
    as_path,
    read_image_file,
    read_index,
    remember_objects,
)
from tl_toolkit.sources.stores import Facts, fetch_object, find_object, list_objects

__all__ = ["find_source", "list_remote"]

_COPIED = (".json", ".jsonl", ".csv", ".txt")
"""Endings of what a listing opens: annotations, tables and lists of splits."""

_PACKED = (".parquet", ".tfrecord")

_WAIT_SECONDS = 3600.0  # for another process that lists the same folder
_POLL_SECONDS = 0.2
_logger = logging.getLogger("tl_toolkit")


def list_remote(sources: Mapping[str, Path | float | None]) -> None:
    """Lists the folders of object stores among some sources, and copies the tables.

    What the store does not hold any more is removed. Hidden files, names that lead out of the
    folder, links and pipes are left out. Credentials are those that fsspec finds in the
    environment. Offline the last listing and the last copy are taken as they are.

    Args:
        sources: By field; what lies on this machine is left alone.

    Raises:
        DataError: A folder or a table is missing, too large or cannot be read; or what reads it is
            not installed.
        OutputError: The cache cannot be written.
    """
    for field, source in sources.items():
        if not isinstance(source, Path):
            continue
        if find_address(source):
            _update(field, source, source, source / INDEX, _list)
        elif find_address(source.parent):
            _update(field, source, source.parent, source, _copy)


def _update(
    field: str,
    source: Path,
    folder: Path,
    needed: Path,
    update: Callable[[str, str, Path], None],
) -> None:
    """Brings a folder or a table up to date, while no other process does; offline it is there."""
    address = name_object(str(source))
    where = f"{field}: {address}"
    if is_offline():
        if not needed.is_file():
            expected = "Offline (--offline, or TL_TOOLKIT_OFFLINE) nothing is fetched."
            raise DataError(Problem(where, "is not in the cache", expected, ""))
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _holding(where, folder):
            update(where, address, source)
    except OSError as error:
        raise describe_unwritable(folder, error) from error


def find_source(source: str | os.PathLike[str], where: str) -> Path:
    """Returns a folder or table by its path; of an address what stands for it, up to date.

    An address that ends in .csv is a table, any other one a folder.

    Args:
        source: A path or an address.
        where: Its name in messages.

    Raises:
        DataError: As in `list_remote`.
    """
    path = as_path(source)
    if not isinstance(path, ObjectPath):
        return path
    is_table = path.suffix.lower() == ".csv"
    if is_table and (fault := find_object_fault(str(path))):
        raise DataError(Problem(where, fault))
    place = mirror_of_table(str(path)) if is_table else mirror_of(str(path))
    list_remote({where: place})
    return place


def _copy(where: str, address: str, place: Path) -> None:
    """Copies a table, whose bytes are in the cache if it has not changed."""
    if any(ending in place.name.lower() for ending in _PACKED):
        expected = "Of files with images in them those of this machine are read."
        raise DataError(Problem(where, "is no table of text", expected, "copy it here"))
    try:
        facts = find_object(address)
        if facts.size > table_rows.MAX_BYTES:
            raise DataError(Problem(where, f"has more than {table_rows.MAX_BYTES >> 20} MiB"))
        remember_objects(address.rpartition("/")[0], {place.name: facts})
        content = read_image_file(address)
    except FileNotFoundError:
        expected = "A table (CSV) is expected."
        raise DataError(Problem(where, "no such object", expected, "")) from None
    write_atomically(place, content)
    index = place.parent / INDEX
    if (known := read_index(index)).get(place.name, facts) != facts:
        write_json(index, {**known, place.name: facts})  # else a listing may take an older copy


@contextlib.contextmanager
def _holding(where: str, folder: Path) -> Iterator[None]:
    """Holds a folder; waits for another process that does, as several trials of a search may."""
    deadline = time.monotonic() + _WAIT_SECONDS
    is_told = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(folder))
                break
            except RecipeError as error:
                if time.monotonic() > deadline:
                    raise
                if not is_told:
                    _logger.warning("%s: waiting, its listing %s", where, error.problems[0].what)
                is_told = True
            time.sleep(_POLL_SECONDS)
        yield


def _list(where: str, address: str, folder: Path) -> None:
    files = _leave_out_markers(list_objects(where, address))
    if not files:
        raise DataError(Problem(where, "holds no file", "expected a folder of images.", ""))
    known = read_index(folder / INDEX)
    if known != files:
        (folder / INDEX).unlink(missing_ok=True)  # it is of another state from here on
    _remove_others(folder, files)
    for name, facts in files.items():
        _place(address, name, facts, folder, known.get(name))
    if known != files:
        write_json(folder / INDEX, files)
    os.utime(folder / INDEX)  # the newest listing counts
    remember_objects(address, files)


def _leave_out_markers(files: Mapping[str, Facts]) -> dict[str, Facts]:
    """Returns objects without those that others lie below: tools mark folders by empty ones."""
    folders = {""}  # a single object at the address itself, which is no folder
    for name in files:
        while (name := name.rpartition("/")[0]) not in folders:
            folders.add(name)
    return {name: facts for name, facts in files.items() if name not in folders}


def _place(address: str, name: str, facts: Facts, folder: Path, known: Facts | None) -> None:
    """Puts an empty file in the place of an image, and a copy in that of what a listing opens."""
    place = folder / name
    size = facts.size if suffix_of(name) in _COPIED and facts.size <= MAX_BYTES else 0
    with contextlib.suppress(OSError):
        if place.stat().st_size == size and (known == facts or not size):
            return
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = name_draft(place, folder)
    try:
        draft.write_bytes(fetch_object(f"{address}/{name}", size) if size else b"")
        os.replace(draft, place)
    finally:
        draft.unlink(missing_ok=True)


def _remove_others(folder: Path, names: Collection[str]) -> None:
    """Removes what the store does not hold, and folders that are empty then."""
    for parent, _, found in os.walk(folder, topdown=False):
        for name in found:
            place = Path(parent, name)
            is_own = place.parent == folder and name.startswith(".")  # index, draft and lock
            if not is_own and place.relative_to(folder).as_posix() not in names:
                place.unlink(missing_ok=True)
        if parent != str(folder):
            with contextlib.suppress(OSError):  # it holds files
                os.rmdir(parent)
