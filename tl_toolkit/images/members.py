"""Images that lie in a file with others, written once into the cache, where all else reads them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.runs.files import describe_unwritable, name_draft, write_atomically
from tl_toolkit.sources.members import INSIDE, locate_member, read_members
from tl_toolkit.sources.objects import name_object

__all__ = ["EXTRACTED", "count_extracted", "extract_members"]

EXTRACTED = "extracted"
"""The folder of the cache that receives the images."""

_INDEX = "index.json"
_SUFFIXES = {
    b"\xff\xd8": ".jpg",
    b"\x89P": ".png",
    b"GI": ".gif",
    b"BM": ".bmp",
    b"RI": ".webp",
    b"II": ".tif",
    b"MM": ".tif",
    b"\x93N": ".npy",
}
"""Endings by the first bytes; the decoder goes by the content, people and Pillow by the name."""


def extract_members(paths: Sequence[str], folder: Path) -> list[str]:
    """Returns paths with a file in the place of each image that lies in another file.

    What was written for a file that has not changed since is taken as it is. An image that is
    missing in its file keeps its path.

    Args:
        paths: Files, or `inside:<file>#<place>`.
        folder: Receives the images, in a folder for each file.

    Raises:
        DataError: A file cannot be read.
        OutputError: The folder cannot be written.
    """
    wanted: dict[Path, list[int]] = {}
    for path in paths:
        if path.startswith(INSIDE):
            file, row = locate_member(path)
            wanted.setdefault(file, []).append(row)
    extracted = {file: _extract(file, rows, folder) for file, rows in wanted.items()}

    def find(path: str) -> str:
        file, row = locate_member(path)
        return extracted[file].get(row, path)

    return [find(path) if path.startswith(INSIDE) else path for path in paths]


def count_extracted(folder: Path) -> tuple[int, int]:
    """Returns how many images a folder of `extract_members` holds, and their bytes.

    Args:
        folder: The folder; it need not exist.
    """
    sizes = []
    for path in folder.glob("*/*"):
        with contextlib.suppress(OSError):  # removed a moment ago
            if path.name != _INDEX:
                sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)


def _extract(file: Path, rows: Sequence[int], folder: Path) -> dict[int, str]:
    """Writes the images of one file that are not written yet; returns the path of each."""
    key = hashlib.sha256(os.fsencode(file)).hexdigest()[:8]
    place = (folder / f"{file.stem[:64]}-{key}").absolute()
    identity = _identify(file)
    known = _read_index(place / _INDEX, identity)
    missing = {row for row in rows if row not in known or not _is_whole(place, *known[row])}
    if missing:
        for row in missing & known.keys():
            del known[row]
        for row, encoded in read_members(file, missing):
            digest = hashlib.sha256(encoded).hexdigest()
            name = f"{row}-{digest[:16]}{_SUFFIXES.get(encoded[:2], '.image')}"
            _write(place / name, encoded)
            known[row] = (name, len(encoded))
        index = {"identity": identity, "images": [[row, *entry] for row, entry in known.items()]}
        write_atomically(place / _INDEX, json.dumps(index))
    return {row: str(place / known[row][0]) for row in rows if row in known}


def _write(path: Path, encoded: bytes) -> None:
    """Writes an image without forcing it to the disk: 2,000 images took 3.5 s, and 28 s with it.

    The index that names it is written last and has its size: after a power failure a file that is
    not whole is written again.
    """
    draft = name_draft(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(encoded)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise describe_unwritable(path, error) from error


def _identify(file: Path) -> str:
    try:
        state = os.stat(file)
    except OSError as error:
        raise DataError(
            Problem(name_object(str(file)), f"cannot be read: {error.strerror}")
        ) from error
    return f"{state.st_ino}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"


def _is_whole(place: Path, name: str, size: int) -> bool:
    try:
        return (place / name).stat().st_size == size
    except OSError:
        return False


def _read_index(path: Path, identity: str) -> dict[int, tuple[str, int]]:
    """Returns name and bytes of each image that was written for this state of a file."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        index = json.loads(path.read_bytes())
        if index["identity"] == identity:
            return {int(row): (Path(name).name, int(size)) for row, name, size in index["images"]}
    return {}
