"""Images by their name, whether files of this machine or objects of a store: states and bytes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import stat
import time
import unicodedata
from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from pathlib import Path, PosixPath
from typing import BinaryIO

from tl_toolkit.catalog.published import is_offline
from tl_toolkit.errors import DataError, OutputError, Problem
from tl_toolkit.recipe.remote import (
    find_address,
    find_address_fault,
    find_object_fault,
    is_address,
    mirror_of,
    name_object,
)
from tl_toolkit.runs.files import hash_file, write_json
from tl_toolkit.sources.listing import Listing, count_threads, suffix_of
from tl_toolkit.sources.object_cache import open_cache
from tl_toolkit.sources.stores import Facts, fetch_object, find_object, list_objects

__all__ = [
    "INDEX",
    "ObjectPath",
    "as_path",
    "common_folder",
    "count_readers",
    "find_address",
    "hash_image",
    "is_address",
    "list_beside",
    "list_object_images",
    "locate_objects",
    "name_listed",
    "name_object",
    "open_image",
    "read_image_file",
    "remember_objects",
    "stat_image",
]

INDEX = ".mirror.json"
"""The file in the folder of an address that holds size and tag of each object below it."""

_LISTED = ".objects.json"
"""The same of the objects right in it that tables name, of which no command makes files."""

_BELOW = ".below.json"
"""The same of all objects below it that a command was asked for, or of itself, as the path ""."""

_READERS = 32
"""Objects that are read at a time: a request waits much longer than it computes."""

_COLLAPSED = re.compile(r"(s3|gs|gcs|abfs|az|memory):/(?=[^/])")

_facts: dict[str, Facts] = {}
"""What this process was told of objects, by address."""


class ObjectPath(PosixPath):
    """The address of an object as a path, so that its name, ending and folder are found.

    It is no file of this machine: `stat_image` and `read_image_file` take it.
    """

    def __str__(self) -> str:
        """Returns the address: paths have one slash after the scheme, addresses two."""
        return re.sub(r"^(\w+):/(?=[^/])", r"\1://", super().__str__())

    def absolute(self) -> ObjectPath:
        """Returns the path itself."""
        return self


def as_path(name: str | os.PathLike[str]) -> Path:
    """Returns the path of a file, or of an object by its address.

    Args:
        name: As it was typed; an address that was made a path has lost a slash.

    Raises:
        DataError: An address may hold credentials, or is none of plain folders.
    """
    text = _COLLAPSED.sub(r"\1://", os.fspath(name), count=1)
    if not is_address(text) or text.startswith("file:"):
        return Path(name)
    if fault := find_address_fault(text):
        raise DataError(Problem("the address", fault))
    return ObjectPath(text)


def common_folder(paths: Iterable[str]) -> str:
    """Returns the folder that all files or objects lie below; "" where they have none in common.

    Args:
        paths: Absolute paths and addresses; names of built-in images have no folder.
    """
    folders = {os.path.dirname(path) for path in paths}
    schemes = {f"{path.partition('://')[0]}://" if is_address(path) else "" for path in folders}
    if len(schemes) != 1 or not all(is_address(path) or os.path.isabs(path) for path in folders):
        return ""
    (scheme,) = schemes
    return scheme + os.path.commonpath(path.removeprefix(scheme) for path in folders)


def count_readers(paths: Iterable[str]) -> int:
    """Returns how many images to read at a time: more where any of them is an object.

    Args:
        paths: Files and objects.
    """
    return max(count_threads(), _READERS) if any(map(is_address, paths)) else count_threads()


def stat_image(path: str | os.PathLike[str]) -> os.stat_result:
    """Returns the state of a file, or that of an object, whose inode stands for its tag.

    Args:
        path: The file or the address.

    Raises:
        OSError: It cannot be read, or there is none.
        DataError: The store cannot be read.
    """
    name = os.fspath(path)
    if not is_address(name):
        return os.stat(name)
    facts = _find_facts(name)
    digest = hashlib.sha256(facts.tag.encode("utf-8", "backslashreplace")).digest()
    # Without a tag it counts as changed now, so that nobody remembers its content.
    changed = 0 if facts.tag else time.time_ns()
    values = (stat.S_IFREG | 0o444, int.from_bytes(digest[:8], "big"), 0, 1, 0, 0, facts.size)
    seconds = changed // 10**9
    times = {"st_atime_ns": changed, "st_mtime_ns": changed, "st_ctime_ns": changed}
    return os.stat_result((*values, seconds, seconds, seconds), times)


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a file, or those of an object, from the cache if it has them.

    Args:
        path: The file or the address.

    Raises:
        OSError: It cannot be read, or there is none.
        DataError: The store cannot be read, or has another object by now.
    """
    name = os.fspath(path)
    if not is_address(name):
        with open(name, "rb") as file:
            return file.read()
    facts = _find_facts(name)
    kept = _read_kept(name, facts)
    if kept is not None:
        return kept
    _refuse_offline(name)
    encoded = fetch_object(name, facts.size)
    if facts.tag:
        open_cache().put(_name_state(name, facts), encoded)
    return encoded


def _read_kept(address: str, facts: Facts) -> bytes | None:
    """Returns the bytes of an object in a state of it; None where the cache lacks them."""
    kept = open_cache().get(_name_state(address, facts)) if facts.tag else None
    return kept if kept is not None and len(kept) == facts.size else None


def _name_state(address: str, facts: Facts) -> str:
    return f"{address}\0{facts.size}\0{facts.tag}"


def open_image(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file, or the bytes of an object; for what reads no more than a header.

    Args:
        path: The file or the address.

    Raises:
        OSError: As in `read_image_file`.
        DataError: As in `read_image_file`.
    """
    name = os.fspath(path)
    return io.BytesIO(read_image_file(name)) if is_address(name) else open(name, "rb")


def hash_image(path: str) -> str:
    """Returns the SHA-256 of a file or an object, in hexadecimal.

    Args:
        path: The file or the address.

    Raises:
        OSError: As in `read_image_file`.
        DataError: As in `read_image_file`.
    """
    if is_address(path):
        return hashlib.sha256(read_image_file(path)).hexdigest()
    return hash_file(Path(path))


def name_listed(listing: Listing) -> Listing:
    """Returns a listing with addresses in the place of the files that stand for objects.

    Args:
        listing: Images, and their targets.
    """
    files = tuple(
        file._replace(path=name_object(file.path), targets=tuple(map(name_object, file.targets)))
        for file in listing.files
    )
    ignored = tuple(entry._replace(path=name_object(entry.path)) for entry in listing.ignored)
    return replace(listing, files=files, ignored=ignored)


def list_object_images(path: ObjectPath, suffixes: Set[str]) -> list[Path]:
    """Lists an object itself, or the images below an address; offline as they were listed last.

    Args:
        path: The address.
        suffixes: Endings of the images' names.

    Raises:
        DataError: It cannot be read, there is no image, or offline it is not in the cache.
    """
    address = str(path)
    found = _find_listed(address) if is_offline() else list_objects(address, address)
    if found and not is_offline():
        _note(mirror_of(address) / _BELOW, found)
    if "" in found:
        remember_objects(str(path.parent), {path.name: found[""]})
        if is_offline() and _read_kept(address, found[""]) is None:
            _refuse_offline(address)
        return [path]
    remember_objects(address, found)
    names = [name for name in found if suffix_of(name) in suffixes]
    if not names:
        raise DataError(Problem(address, "is no object, and holds no images"))
    return [ObjectPath(f"{address}/{name}") for name in names]


def locate_objects(
    paths: Iterable[str], below: tuple[str, ...] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns why addresses are no objects, and the store's spelling of those it spells otherwise.

    Lists the folders that they lie in, each once. Offline no address is refused.

    Args:
        paths: Addresses; files are left alone.
        below: Addresses of folders, with a slash, below which a name may hold any sign.

    Raises:
        DataError: A store cannot be read.
    """
    faults: dict[str, str] = {}
    spelled: dict[str, str] = {}
    by_folder: dict[str, list[str]] = {}
    for path in filter(is_address, paths):
        is_plain = path.startswith(below) and not {".", ".."} & set(path.split("/"))
        if fault := "" if is_plain else find_object_fault(path):
            faults[path] = fault
        else:
            folder, _, name = path.rpartition("/")
            by_folder.setdefault(folder, []).append(name)
    for folder, names in by_folder.items():
        found = list_beside(folder)
        for name in set(names) - found.keys():
            forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
            if other := next((form for form in forms if form in found), ""):
                spelled[f"{folder}/{name}"] = f"{folder}/{other}"
            elif not is_offline():
                faults[f"{folder}/{name}"] = f"no object {folder}/{name}"
    return faults, spelled


def list_beside(folder: str) -> Mapping[str, Facts]:
    """Returns the objects right in a folder by name; offline those of the last listing.

    Args:
        folder: Its address.

    Raises:
        DataError: The store cannot be read.
    """
    place = mirror_of(folder) / _LISTED
    if is_offline():
        return read_index(place)
    found = list_objects(folder, folder, deep=False)
    remember_objects(folder, found)
    _note(place, found)
    return found


def _note(place: Path, found: Mapping[str, Facts]) -> None:
    with contextlib.suppress(OSError, OutputError):  # else it is not there offline
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, found)


def remember_objects(folder: str, facts: Mapping[str, Facts]) -> None:
    """Remembers in this process what a store says of objects, so that nobody asks again.

    Args:
        folder: The address that they lie below.
        facts: By their path there.
    """
    _facts.update((f"{folder}/{name}", of_object) for name, of_object in facts.items())


def _find_facts(address: str) -> Facts:
    if address not in _facts:
        _facts[address] = _find_stored(address) or _ask(address)
    return _facts[address]


def _find_stored(address: str) -> Facts | None:
    """Returns what the last listing of it or of a folder above said, by whatever process."""
    listings = [(mirror_of(address) / _BELOW, "")] if is_offline() else []
    listings += [
        (mirror_of(folder) / index, name)
        for folder, name in _split_address(address)
        # Online what a table names is listed by each command, and this may be an older state.
        for index in (INDEX, *([_LISTED, _BELOW] if is_offline() else []))
    ]
    found = [
        (_find_age(place), facts)
        for place, name in listings
        if (facts := read_index(place).get(name)) is not None
    ]
    return max(found, key=lambda entry: entry[0])[1] if found else None


def _find_listed(address: str) -> Mapping[str, Facts]:
    """Returns what the last listing said of an object, which has the path "", or below a folder."""
    if facts := _facts.get(address) or _find_stored(address):
        return {"": facts}
    listings = [
        (mirror_of(folder) / index, prefix)
        for folder, prefix in [
            (address, ""),
            *((folder, f"{name}/") for folder, name in _split_address(address)),
        ]
        for index in (INDEX, _BELOW)
    ]
    for place, prefix in sorted(listings, key=lambda entry: -_find_age(entry[0])):
        below = {
            name.removeprefix(prefix): facts
            for name, facts in read_index(place).items()
            if name.startswith(prefix)
        }
        if below:
            return below
    _refuse_offline(address)
    return {}


def _ask(address: str) -> Facts:
    _refuse_offline(address)
    return find_object(address)


def _split_address(address: str) -> Iterable[tuple[str, str]]:
    """Yields each folder that an object lies below, the nearest first, and its path there."""
    start = address.index("://") + 3
    end = len(address)
    while (end := address.rfind("/", start, end)) > start:
        yield address[:end], address[end + 1 :]


def read_index(place: Path) -> Mapping[str, Facts]:
    """Returns size and tag of each object that was listed for an address; none if it never was.

    Args:
        place: The file `INDEX` in the folder of an address, or another of its form.
    """
    return _read_index(place, changed) if (changed := _find_age(place)) else {}


def _find_age(place: Path) -> int:
    try:
        return place.stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=8)
def _read_index(path: Path, changed: int) -> Mapping[str, Facts]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): Facts(int(size), str(tag)) for name, (size, tag) in index.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _refuse_offline(address: str) -> None:
    if is_offline():
        expected = "Offline (--offline, or TL_TOOLKIT_OFFLINE) nothing is fetched."
        hint = "the same command with a connection"
        raise DataError(Problem(address, "is not in the cache", expected, hint))
