"""Folders and files on object stores, brought into the cache and then read as local ones.

Each image of a folder is an empty file of its name there, so that folders of stores follow the
rules of all folders; its bytes are read when they are asked for (`sources.objects`). A file that is
named itself is copied as a whole to where the listing of its folder would put it: a table,
annotations, a file with images in it, weights, the files of a run.

What was brought up to date once may be taken as it is for the rest of the process: the trials of a
search need no store, and all of them have what the first one had.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from tl_toolkit.catalog.published import is_offline
from tl_toolkit.errors import DataError, Problem, RecipeError, closest
from tl_toolkit.recipe.remote import (
    find_address,
    name_object,
)
from tl_toolkit.runs.files import describe_unwritable, name_draft, write_json
from tl_toolkit.runs.locks import hold
from tl_toolkit.sources import table_rows
from tl_toolkit.sources.copies import Copies
from tl_toolkit.sources.listing import MAX_BYTES, suffix_of
from tl_toolkit.sources.members import find_files, holds_images
from tl_toolkit.sources.objects import INDEX, read_index, remember_objects
from tl_toolkit.sources.stores import Facts, fetch_object, find_object, list_objects

__all__ = ["copy_files", "copy_packed", "list_remote"]

_COPIED = (".json", ".jsonl", ".csv", ".txt")
"""Endings of what a listing opens: annotations, tables and lists of splits."""

_TABLES = (".csv", ".jsonl")
_TABLE = "data.table"

_WAIT_SECONDS = 3600.0  # for another process that lists the same folder
_POLL_SECONDS = 0.2
_logger = logging.getLogger("tl_toolkit")

_asked: set[Path] = set()
"""What this process has brought up to date."""


def list_remote(sources: Mapping[str, Path | float | None], *, again: bool = True) -> None:
    """Lists the folders of object stores among some sources, and copies the files.

    What the store does not hold any more is removed. Hidden files, names that lead out of the
    folder, links and pipes are left out. Credentials are those that fsspec finds in the
    environment. Offline the last listing and the last copy are taken as they are.

    Args:
        sources: By field; what lies on this machine is left alone. In the folder of `data.table`
            the files with images in them are copied, too.
        again: Whether a store is asked for what this process has from it already.

    Raises:
        DataError: A folder or a file is missing, too large or cannot be read; or what reads it is
            not installed.
        OutputError: The cache cannot be written.
    """
    for field, source in sources.items():
        if not isinstance(source, Path):
            continue
        if find_address(source):
            _update(field, source, _list, _is_listed, again=again)
            if field == _TABLE:
                copy_packed(field, source)
        elif find_address(source.parent):
            _update(field, source, _copy, _is_copied, again=again)


def copy_files(
    field: str, folder: Path, needed: Collection[str], optional: Collection[str], *, again: bool
) -> None:
    """Copies files right in a folder of an object store to where a listing of it would put them.

    Args:
        field: Its name in messages.
        folder: What stands for the folder.
        needed: Names of the files.
        optional: Names of files that may be missing; a copy of one that is gone is removed.
        again: As in `list_remote`.

    Raises:
        DataError: One that is needed is missing, or cannot be read.
        OutputError: The cache cannot be written.
    """

    def copy(where: str, address: str, place: Path) -> None:
        listed = list_objects(where, address, deep=False)
        if missing := [name for name in needed if name not in listed]:
            what = f"holds no {', '.join(missing)}"
            hint = "the name of bucket and folder"
            raise DataError(Problem(where, what, hint=hint))
        copies = Copies(place)
        for name in (*needed, *optional):
            if name in listed:
                copies.fetch(name, f"{address}/{name}", listed[name])
            else:
                (place / name).unlink(missing_ok=True)

    def is_copied(place: Path) -> bool:
        return all(map(Copies(place).holds, needed))

    _update(field, folder, copy, is_copied, again=again)


def copy_packed(field: str, folder: Path) -> None:
    """Copies the files with images in them of a folder that was listed, if it is a table of them.

    Args:
        field: Its name in messages.
        folder: What stands for the folder.

    Raises:
        DataError: A file cannot be read.
        OutputError: The cache cannot be written.
    """
    _update(field, folder, _copy_packed, _holds_packed, again=True)


def _update(
    field: str,
    source: Path,
    update: Callable[[str, str, Path], None],
    is_here: Callable[[Path], bool],
    *,
    again: bool,
) -> None:
    """Brings a folder or a file up to date, while no other process does; offline it is there."""
    address = name_object(str(source))
    where = f"{field}: {address}"
    if not again and source in _asked and is_here(source):
        return
    if is_offline():
        if not is_here(source):
            expected = "Offline (--offline, or TL_TOOLKIT_OFFLINE) nothing is fetched."
            hint = "the same command with a connection"
            raise DataError(Problem(where, "is not in the cache", expected, hint))
        return
    folder = source if find_address(source) else source.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _holding(where, folder):
            update(where, address, source)
    except OSError as error:
        raise describe_unwritable(folder, error) from error
    _asked.add(source)


def _is_listed(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def _is_copied(place: Path) -> bool:
    """Returns whether a file is a whole copy: its own, or one that a listing of its folder made."""
    if Copies(place.parent).holds(place.name):
        return True
    listed = read_index(place.parent / INDEX).get(place.name)
    return listed is not None and place.is_file() and place.stat().st_size == listed.size


def _holds_packed(folder: Path) -> bool:
    copies = Copies(folder)
    is_whole = all(copies.holds(_name_in(folder, file)) for file in find_files(folder))
    # `cache clear` deletes copies, and what was listed is another table without them.
    listed = filter(holds_images, read_index(folder / INDEX))
    return is_whole and all((folder / name).is_file() for name in listed)


def _copy(where: str, address: str, place: Path) -> None:
    """Copies a file, unless there is a copy of its present state."""
    try:
        facts = find_object(address)
    except FileNotFoundError:
        raise DataError(_describe_missing(where, address)) from None
    if place.suffix.lower() in _TABLES and facts.size > table_rows.MAX_BYTES:
        raise DataError(Problem(where, f"has more than {table_rows.MAX_BYTES >> 20} MiB"))
    Copies(place.parent).fetch(place.name, address, facts)
    index = place.parent / INDEX
    if (known := read_index(index)).get(place.name, facts) != facts:
        listed = index.stat().st_mtime_ns
        write_json(index, {**known, place.name: facts})  # else a listing may take an older copy
        os.utime(index, ns=(listed + 1, listed + 1))  # of all others it is as old as it was


def _describe_missing(where: str, address: str) -> Problem:
    """Returns that there is no such object, with the nearest name in its folder if one is near."""
    folder, _, name = address.rpartition("/")
    beside: Mapping[str, Facts] = {}
    with contextlib.suppress(DataError):  # a store may let others read objects, and list none
        beside = list_objects(folder, folder, deep=False)
    near = closest(name, beside)
    expected = f"A file is expected{'; ' if near else '.'}{near}"
    hint = "" if near else "the name of bucket and folder"
    if where.startswith(_TABLE):
        hint = f"{_TABLE}={address}/ if it is a folder"
    return Problem(where, "no such object", expected, hint)


def _copy_packed(where: str, address: str, folder: Path) -> None:
    """Copies the files with images in them of a folder that was listed."""
    copies, listed = Copies(folder), read_index(folder / INDEX)
    for file in find_files(folder):
        name = _name_in(folder, file)
        if name in listed:
            copies.fetch(name, f"{address}/{name}", listed[name])


def _name_in(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


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
    copies = Copies(folder)
    for name, facts in files.items():
        # Another process may read an older copy until a new one takes its place.
        if not copies.holds(name, facts if _is_opened(name, facts) else None):
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


def _is_opened(name: str, facts: Facts) -> bool:
    return suffix_of(name) in _COPIED and facts.size <= MAX_BYTES


def _place(address: str, name: str, facts: Facts, folder: Path, known: Facts | None) -> None:
    """Puts an empty file in the place of an image, and a copy in that of what a listing opens."""
    place = folder / name
    size = facts.size if _is_opened(name, facts) else 0
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
