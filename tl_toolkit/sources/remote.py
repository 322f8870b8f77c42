"""Folders on object stores, listed into the cache and then walked as local ones.

Each image is an empty file of its name there, so that folders of stores follow the rules of all
folders; its bytes are read when they are asked for (`sources.objects`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tl_toolkit.catalog.published import is_offline
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.recipe.remote import find_address, mirror_of
from tl_toolkit.runs.files import describe_unwritable, name_draft, write_json
from tl_toolkit.runs.locks import hold
from tl_toolkit.sources.listing import MAX_BYTES, suffix_of
from tl_toolkit.sources.objects import INDEX, ObjectPath, as_path, read_index, remember_objects
from tl_toolkit.sources.stores import Facts, fetch_object, list_objects

__all__ = ["find_source", "list_remote_folders"]

_COPIED = (".json", ".jsonl", ".csv", ".txt")
"""Endings of what a listing opens: annotations, tables and lists of splits."""

_WAIT_SECONDS = 3600.0  # for another process that lists the same folder
_POLL_SECONDS = 0.2
_logger = logging.getLogger("tl_toolkit")


def list_remote_folders(folders: Mapping[str, Path | float | None]) -> None:
    """Lists the folders of object stores among some folders.

    What the store does not hold any more is removed. Hidden files, names that lead out of the
    folder, links and pipes are left out. Credentials are those that fsspec finds in the
    environment. Offline the last listing is taken as it is.

    Args:
        folders: By field; what lies on this machine is left alone.

    Raises:
        DataError: A folder is missing or cannot be read; or what reads it is not installed.
        OutputError: The cache cannot be written.
    """
    for field, folder in folders.items():
        if isinstance(folder, Path) and (address := find_address(folder)):
            if is_offline():
                _refuse_missing(field, address, folder)
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with _holding(f"{field}: {address}", folder):
                    _list(f"{field}: {address}", address, folder)
            except OSError as error:
                raise describe_unwritable(folder, error) from error


def find_source(source: str | os.PathLike[str], where: str) -> Path:
    """Returns a folder or table by its path; of an address the folder that lists it, up to date.

    Args:
        source: A path or an address.
        where: Its name in messages.

    Raises:
        DataError: As in `list_remote_folders`.
    """
    path = as_path(source)
    if not isinstance(path, ObjectPath):
        return path
    folder = mirror_of(str(path))
    list_remote_folders({where: folder})
    return folder


def _refuse_missing(field: str, address: str, folder: Path) -> None:
    """Refuses a folder that was never listed, where no connection may be opened."""
    if not (folder / INDEX).is_file():
        expected = "Offline (--offline, or TL_TOOLKIT_OFFLINE) nothing is fetched."
        raise DataError(Problem(f"{field}: {address}", "is not in the cache", expected, ""))


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
    known = read_index(folder)
    if known != files:
        (folder / INDEX).unlink(missing_ok=True)  # it is of another state from here on
    _remove_others(folder, files)
    for name, facts in files.items():
        _place(address, name, facts, folder, known.get(name))
    if known != files:
        write_json(folder / INDEX, files)
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
