"""The feature store on disk: rows of a prefix's output, found again by the image they are of.

    <cache>/features/<key>/<shard>/{whole.json, images.npy, 0.npy, 1.npy, ...}

A key names what computed the rows; a shard holds the rows of some images, in one file for each
tensor of the cut. Shards are written beside their place and renamed into it, whole or not at all,
and never change: a reader needs no lock, and keeps what it has mapped even if it is deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.runs.locks import LOCK_NAMES, hold, is_abandoned

_WHOLE = "whole.json"
_DRAFT = ".draft-"
# A draft is without a lock for a moment when it is made, and again before it is published.
_STALE_SECONDS = 60


@dataclass(frozen=True)
class Shard:
    """A stretch of rows as it lies on disk.

    Attributes:
        path: Its folder.
        size: Bytes of all its files.
        images: Number of rows.
        used: When it was last read or written, in seconds since 1970.
        made_by: What computed it, in words.
    """

    path: Path
    size: int
    images: int
    used: float
    made_by: str


class StoredExamples:
    """Batch of chosen images, mapped into memory from one or more shards.

    Args:
        shards: The tensors of each shard.
        shard: Of each row, the shard that it is in.
        row: Of each row, its place in there.
    """

    def __init__(
        self, shards: Sequence[list[np.ndarray]], shard: np.ndarray, row: np.ndarray
    ) -> None:
        self._segments = shards
        self._segment = shard
        self._row = row

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of all tensors together, as float32."""
        return sum(4 * int(np.prod(tensor.shape[1:])) for tensor in self._segments[0])

    def take(self, indices: np.ndarray) -> list[np.ndarray]:
        """Returns rows in the given order: float32 (n, ...) of each tensor."""
        shard, row = self._segment[indices], self._row[indices]
        if len(self._segments) == 1:
            return [tensor[row].astype(np.float32, copy=False) for tensor in self._segments[0]]
        found = [
            np.empty((len(indices), *tensor.shape[1:]), np.float32) for tensor in self._segments[0]
        ]
        for number, tensors in enumerate(self._segments):
            (places,) = np.nonzero(shard == number)
            for target, tensor in zip(found, tensors, strict=True):
                target[places] = tensor[row[places]]
        return found


class Entry:
    """All shards of one key.

    Args:
        folder: Where they lie; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[bytes, tuple[Path, int]] = {}
        self._seen: set[Path] = set()

    def missing(self, images: Sequence[bytes]) -> list[bytes]:
        """Returns the images, by the SHA-256 of their content, that no shard holds; each once."""
        self._look()
        return [image for image in dict.fromkeys(images) if image not in self._known]

    def read(self, images: Sequence[bytes]) -> StoredExamples | None:
        """Maps the rows of images in the given order; None unless all of them are stored."""
        self._look()
        places = [self._known.get(image) for image in images]
        if not places or any(place is None for place in places):
            return None
        paths = list(dict.fromkeys(place[0] for place in places if place))
        try:
            shards = [_map_segment(path) for path in paths]
        except OSError:  # torn, or deleted a moment ago by a process that needed room
            for path in paths:
                if not _is_whole(path):
                    _delete(path)
            self._known, self._seen = {}, set()
            return None
        numbers = {path: number for number, path in enumerate(paths)}
        pairs = [(numbers[place[0]], place[1]) for place in places if place]
        shard, row = np.array(pairs, np.int64).T
        return StoredExamples(shards, shard, row)

    @contextlib.contextmanager
    def write(
        self, images: Sequence[bytes], shapes: Sequence[tuple[int, ...]], dtype: str, made_by: str
    ) -> Iterator[ShardWriter]:
        """Gives a writer for the rows of these images, in order; published when the block succeeds.

        Args:
            images: SHA-256 of each image's content.
            shapes: Of each tensor, without the batch.
            dtype: float32 or float16.
            made_by: What computes the rows, in words.

        Raises:
            OSError: The folder cannot be written, or the disk is full.
        """
        name = f"{os.getpid()}-{time.time_ns():x}-{os.urandom(4).hex()}"
        draft = self.folder / f"{_DRAFT}{name}"
        draft.mkdir(parents=True)
        writer = ShardWriter(draft, len(images), shapes, dtype)
        try:
            with hold(draft):
                yield writer
                writer.finish(images, made_by)
            if self.missing(images):  # else another process was faster
                draft.rename(self.folder / name)
        finally:
            writer.close()
            shutil.rmtree(draft, ignore_errors=True)

    def _look(self) -> None:
        """Takes in shards that were published since the last time."""
        for path in sorted(_segments_of(self.folder)):
            if path in self._seen:
                continue
            # What is torn may be so from its very first byte: that is an EOFError.
            with contextlib.suppress(OSError, ValueError, EOFError):
                for row, image in enumerate(np.load(path / "images.npy")):
                    self._known.setdefault(image.tobytes(), (path, row))
                self._seen.add(path)


class ShardWriter:
    """Appends rows to the files of a draft.

    Plain files, not mapped ones: a disk that is full then raises an error instead of a signal.
    """

    def __init__(
        self, folder: Path, rows: int, shapes: Sequence[tuple[int, ...]], dtype: str
    ) -> None:
        self._folder = folder
        self._rows = rows
        self._written = 0
        self._dtype = np.dtype(dtype)
        self._files: list[IO[bytes]] = []
        for number, shape in enumerate(shapes):
            file = open(folder / f"{number}.npy", "wb")
            self._files.append(file)
            header = {"descr": self._dtype.str, "fortran_order": False, "shape": (rows, *shape)}
            np.lib.format.write_array_header_1_0(file, header)

    def add(self, tensors: Sequence[np.ndarray]) -> None:
        """Appends rows: (n, ...) of each tensor."""
        for file, tensor in zip(self._files, tensors, strict=True):
            file.write(np.ascontiguousarray(tensor, self._dtype))
        self._written += len(tensors[0])

    def finish(self, images: Sequence[bytes], made_by: str) -> None:
        """Writes what makes it a shard, and forces all of it to the disk."""
        if self._written != self._rows:
            raise ValueError(f"expected {self._rows} rows, got {self._written}")
        self.close()
        digests = np.frombuffer(b"".join(images), np.uint8).reshape(len(images), -1)
        np.save(self._folder / "images.npy", digests)
        files = [path for path in self._folder.iterdir() if path.name not in LOCK_NAMES]
        sizes = {path.name: path.stat().st_size for path in files}
        about = {"made_by": made_by, "images": self._rows, "sizes": sizes}
        (self._folder / _WHOLE).write_text(json.dumps(about))
        # After a power cut a name may be there before the bytes are: those must come first.
        for path in (*files, self._folder / _WHOLE):
            with open(path, "rb+") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Closes the files; may be called again."""
        for file in self._files:
            file.close()


class FeatureCache:
    """All shelves under one folder, within a budget.

    Args:
        root: The folder; by default `features` in TL_TOOLKIT_CACHE or the user's cache folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_cache_dir() / "features"

    def entry(self, key: str) -> Entry:
        """Returns the entry of a key, with or without shards."""
        return Entry(self.root / key)

    def shards(self) -> list[Shard]:
        """Returns all shards, the least recently used one first."""
        found = []
        for path in (path for folder in _folders_of(self.root) for path in _segments_of(folder)):
            with contextlib.suppress(OSError, ValueError, KeyError):
                about = _read_whole(path)
                used = (path / _WHOLE).stat().st_mtime
                size = sum(about["sizes"].values())
                found.append(Shard(path, size, about["images"], used, about["made_by"]))
        return sorted(found, key=lambda shard: shard.used)

    def make_room(self, needed: int, budget: int, *, keep: Sequence[str] = ()) -> bool:
        """Deletes least recently used shards until `needed` more bytes fit into the budget.

        Args:
            needed: Bytes that are to be written.
            budget: Bytes that all shards together may take.
            keep: Keys that are in use and stay.

        Returns:
            Whether they fit now; if they cannot, nothing is deleted.
        """
        self._sweep()
        shards = self.shards()
        spare = [shard for shard in shards if shard.path.parent.name not in keep]
        excess = sum(shard.size for shard in shards) + needed - budget
        if excess > sum(shard.size for shard in spare):
            return False
        for shard in spare:
            if excess <= 0:
                break
            _delete(shard.path)
            excess -= shard.size
        return True

    def clear(self) -> tuple[int, int]:
        """Deletes all shards; returns how many there were, and their bytes."""
        shards = self.shards()
        for shard in shards:
            _delete(shard.path)
        self._sweep()
        for folder in _folders_of(self.root):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        return len(shards), sum(shard.size for shard in shards)

    def _sweep(self) -> None:
        """Removes what interrupted writers left; a name that is none of theirs is let be."""
        for folder in _folders_of(self.root):
            for draft in folder.glob(f"{_DRAFT}*"):
                if _is_left(draft):
                    shutil.rmtree(draft, ignore_errors=True)


def _folders_of(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir()]
    except OSError:
        return []


def _segments_of(folder: Path) -> list[Path]:
    return [path for path in _folders_of(folder) if not path.name.startswith(".")]


def _is_left(draft: Path) -> bool:
    """Tells whether a draft of this store has no writer any more, on whatever host it was."""
    if is_abandoned(draft):
        return True
    if not draft.name.removeprefix(_DRAFT).split("-")[0].isdecimal():
        return False  # none of ours
    try:
        paths = list(draft.iterdir())
        changed = max(path.stat().st_mtime for path in (draft, *paths))
    except OSError:  # published or removed by another process
        return False
    is_locked = any(path.name in LOCK_NAMES for path in paths)
    return not is_locked and time.time() - changed > _STALE_SECONDS


def _read_whole(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((path / _WHOLE).read_text())
    return about


def _is_whole(path: Path) -> bool:
    """Tells whether all files of a shard are there, with the sizes they were written with."""
    try:
        sizes = _read_whole(path)["sizes"]
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _map_segment(path: Path) -> list[np.ndarray]:
    """Maps the tensors of a shard and marks it as used.

    Raises:
        OSError: It is gone or torn.
    """
    if not _is_whole(path):
        raise OSError(f"{path} is not whole")
    tensors = len(_read_whole(path)["sizes"]) - 1
    with contextlib.suppress(OSError):  # a cache that may only be read serves as well
        os.utime(path / _WHOLE)
    return [np.load(path / f"{number}.npy", mmap_mode="r") for number in range(tensors)]


def _delete(path: Path) -> None:
    """Takes a shard away in one step, and only then deletes its files."""
    gone = path.with_name(f"{_DRAFT}{os.getpid()}-{path.name}")
    with contextlib.suppress(OSError):
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
