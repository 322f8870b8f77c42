"""Whole copies of objects on this machine, each made once for a state of its object."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tl_toolkit.errors import DataError, OutputError, Problem
from tl_toolkit.recipe.remote import find_address, mirrors
from tl_toolkit.runs.files import drafted, is_draft, write_json
from tl_toolkit.sources.stores import Facts, copy_object, find_object

__all__ = ["NOTES", "Copies", "clear_copies", "list_mirrors", "measure_copies"]

NOTES = ".copies.json"
"""The file in a folder of copies that says which state of its object each of them is."""

_LARGE = 200_000_000  # bytes that may take longer than people wait for without a word
_logger = logging.getLogger("tl_toolkit")


class Copies:
    """The copies in a folder, which its user holds while `fetch` is called.

    A note on each has what the store said of its object, and when the copy was written: what was
    put in its place since, whole or not, counts as none.

    Args:
        folder: The folder that stands for one of a store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._notes = dict(_read_notes(folder / NOTES))

    def holds(self, name: str, facts: Facts | None = None) -> bool:
        """Returns whether there is a copy of an object.

        Args:
            name: Its path in the folder.
            facts: The state that it must be of; by default any. A store without tags has none.
        """
        if name not in self._notes or (facts is not None and not facts.tag):
            return False
        known, changed = self._notes[name]
        try:
            state = os.stat(self._folder / name)
        except OSError:
            return False
        is_untouched = (state.st_size, state.st_mtime_ns) == (known.size, changed)
        return is_untouched and facts in (None, known)

    def fetch(self, name: str, address: str, facts: Facts) -> None:
        """Copies an object; a copy of the same state stays.

        Args:
            name: Its path in the folder.
            address: The object.
            facts: What the store says of it.

        Raises:
            DataError: It cannot be read, has another size by now, or changes meanwhile.
            OutputError: The copy cannot be written, as on a full disk.
        """
        if self.holds(name, facts):
            return
        for path in self._folder.glob(".[!.]*"):  # indexes have a dot more, and writers at any time
            if is_draft(path.name):  # of a process that was killed
                path.unlink(missing_ok=True)
        place = self._folder / name
        if place.is_dir():  # there were objects below this name when the folder was listed
            shutil.rmtree(place, ignore_errors=True)
        with drafted(place) as draft:
            _refuse_full(address, draft.parent, facts.size)
            if facts.size >= _LARGE:
                _logger.warning("%s: copying %.1f GB into the cache", address, facts.size / 1e9)
            before = _ask(address)
            copy_object(address, draft)
            if (size := draft.stat().st_size) != facts.size:
                raise _refuse_change(address, f"has {size} bytes, {facts.size} were listed")
            if _ask(address) != before:  # a copy may take several requests, of one state each
                raise _refuse_change(address, "was changed while it was copied")
        self._notes[name] = (facts, place.stat().st_mtime_ns)
        notes = {name: [*facts, changed] for name, (facts, changed) in self._notes.items()}
        with contextlib.suppress(OutputError):  # the copy is whole, and is made again next time
            write_json(self._folder / NOTES, notes)


def list_mirrors() -> dict[str, Path]:
    """Returns the folders of the cache that stand for folders of stores, by their addresses."""
    return {find_address(folder): folder for folder in sorted(mirrors().glob("*/"))}


def measure_copies() -> tuple[int, int]:
    """Returns how many copies the cache holds, and their bytes."""
    sizes = [path.stat().st_size for path in _list_copies()]
    return len(sizes), sum(sizes)


def clear_copies() -> tuple[int, int]:
    """Deletes the copies in the cache; returns how many there were, and their bytes."""
    count = total = 0
    for path in _list_copies():
        with contextlib.suppress(OSError):  # removed by another process
            size = path.stat().st_size
            path.unlink()
            count, total = count + 1, total + size
    return count, total


def _list_copies() -> Iterator[Path]:
    for notes in mirrors().glob(f"*/{NOTES}"):
        copies = Copies(notes.parent)
        yield from (notes.parent / name for name in _read_notes(notes) if copies.holds(name))


def _ask(address: str) -> Facts:
    try:
        return find_object(address)
    except FileNotFoundError:
        raise _refuse_change(address, "is not there any more") from None


def _refuse_change(address: str, what: str) -> DataError:
    expected = "Files must not change while they are copied."
    return DataError(Problem(address, what, expected, "the same command again"))


def _refuse_full(address: str, folder: Path, size: int) -> None:
    """Raises an error where the disk has less room than a copy takes."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return
    if 0 < disk.total and disk.free < size:  # some network disks say nothing
        what = f"has {size:,} bytes, and the disk of the cache has {disk.free:,} left"
        hint = "tltool cache clear, or TL_TOOLKIT_CACHE=DIR on another disk"
        raise OutputError(Problem(address, what, "Its copy takes as much room.", hint))


def _read_notes(place: Path) -> Mapping[str, tuple[Facts, int]]:
    """Returns facts and time of change of each copy; none where the notes cannot be read."""
    try:
        notes = json.loads(place.read_text(encoding="utf-8"))
        return {
            str(name): (Facts(int(size), str(tag)), int(changed))
            for name, (size, tag, changed) in notes.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
