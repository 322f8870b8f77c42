"""The feature store on disk: a prefix's outputs, looked up by their image.

    <cache>/features/<key>/<shard>/

A key names what computed the features; an entry holds all shards of a key, a shard the features of
some images. Shards are written beside their place and renamed into it, whole or not at all, and
never change: a reader needs no lock, and keeps what it has mapped even if it is deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tl_toolkit.features.leases import LEASE_PREFIX, FolderLeases, Leases
from tl_toolkit.features.shards import (
    DRAFT_PREFIX,
    SENT,
    Shard,
    ShardWriter,
    StoredExamples,
    delete_shard,
    describe_shard,
    is_whole,
    map_shard,
    read_images,
)
from tl_toolkit.features.shared import SharedShards
from tl_toolkit.features.store_leases import StoreLeases
from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.runs.lock_files import is_lock
from tl_toolkit.runs.locks import hold, is_abandoned
from tl_toolkit.sources.objects import find_address

__all__ = ["SPARE_DISK", "Entry", "FeatureCache"]

SPARE_DISK = 1e9
"""Bytes that the store leaves free."""

# A draft is without a lock for a moment when it is made, and again before it is published.
_STALE_SECONDS = 60


class Entry:
    """All shards of one key.

    Args:
        folder: The folder of the shards; need not exist.
        shared: The same shards in an object store; None where the folder is all.

    Attributes:
        folder: As above.
        leases: Who computes parts of it now.
    """

    def __init__(self, folder: Path, shared: SharedShards | None = None) -> None:
        self.folder = folder
        self.leases: Leases = FolderLeases(folder)
        if shared is not None:
            self.leases = StoreLeases(shared.address, FolderLeases(folder))
        self._shared = shared
        self._is_synced = False
        self._known: dict[bytes, tuple[Path, int]] = {}
        self._seen: set[Path] = set()

    def missing(self, images: Sequence[bytes]) -> list[bytes]:
        """Returns the images that no shard holds, each once.

        Args:
            images: SHA-256 of each image's content.
        """
        self._refresh()
        missing = [image for image in dict.fromkeys(images) if image not in self._known]
        if self._shared is not None and (missing or not self._is_synced):
            self._shared.pull(missing)
            self._is_synced = True
            self._refresh()
            missing = [image for image in missing if image not in self._known]
        return missing

    def read(self, images: Sequence[bytes]) -> StoredExamples | None:
        """Maps the features of images; None unless all of them are stored.

        Args:
            images: SHA-256 of each image's content; the examples have the same order.
        """
        if self.missing(images):
            return None
        places = [self._known.get(image) for image in images]
        if not places or any(place is None for place in places):
            return None
        paths = list(dict.fromkeys(place[0] for place in places if place))
        try:
            shards = [map_shard(path) for path in paths]
        except OSError:  # torn, or deleted a moment ago by a process that needed room
            for path in paths:
                if not is_whole(path):
                    delete_shard(path)
            self._known, self._seen = {}, set()
            return None
        numbers = {path: number for number, path in enumerate(paths)}
        pairs = [(numbers[place[0]], place[1]) for place in places if place]
        shard, row = np.array(pairs, np.int64).T
        return StoredExamples(shards, shard, row)

    @contextlib.contextmanager
    def write(
        self,
        images: Sequence[bytes],
        shapes: Sequence[tuple[int, ...]],
        dtype: str,
        made_by: str,
        *,
        data: str = "",
    ) -> Iterator[ShardWriter]:
        """Yields a writer for the features of images, which are published if the block succeeds.

        Args:
            images: SHA-256 of each image's content; examples are added in this order.
            shapes: Shapes of each tensor, without the batch.
            dtype: float32 or float16.
            made_by: A description of the prefix that computes the features.
            data: Where the images come from.

        Raises:
            OSError: The folder cannot be written, or the disk is full.
        """
        name = f"{os.getpid()}-{time.time_ns():x}-{os.urandom(4).hex()}"
        draft = self.folder / f"{DRAFT_PREFIX}{name}"
        draft.mkdir(parents=True)
        writer = ShardWriter(draft, len(images), shapes, dtype)
        try:
            with hold(draft):
                yield writer
                writer.finish(images, made_by, data)
            if self.missing(images):  # else another process was faster
                draft.rename(self.folder / name)
                if self._shared is not None:
                    self._shared.push(self.folder / name)
        finally:
            writer.close()
            shutil.rmtree(draft, ignore_errors=True)

    def _refresh(self) -> None:
        """Reads shards that were published since the last call, and forgets deleted ones."""
        paths = sorted(_shards_in(self.folder))
        if not self._seen.issubset(paths):
            self._known, self._seen = {}, set()
        for path in paths:
            if path in self._seen:
                continue
            with contextlib.suppress(OSError, ValueError):
                for row, image in enumerate(read_images(path)):
                    self._known.setdefault(image, (path, row))
                self._seen.add(path)


class FeatureCache:
    """All entries under one folder, within a budget.

    Args:
        root: The folder; by default `features` in TL_TOOLKIT_CACHE or the user's cache folder. One
            that stands for an address holds copies of what is there.
        budget: Bytes that copies of an object store may take; None for no limit.
    """

    def __init__(self, root: Path | None = None, *, budget: int | None = None) -> None:
        self.root = root or default_cache_dir() / "features"
        self._address = find_address(self.root)
        self._budget = budget

    def entry(self, key: str) -> Entry:
        """Returns the entry of a key, with or without shards.

        Args:
            key: Hexadecimal digits.
        """
        folder = self.root / key
        if not self._address:
            return Entry(folder)
        return Entry(folder, SharedShards(f"{self._address}/{key}", folder, self._has_room))

    def _has_room(self, size: int) -> bool:
        held = sum(shard.size for shard in self.shards())
        if self._budget is not None and held + size > self._budget:
            return False
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return size <= shutil.disk_usage(self.root).free - SPARE_DISK
        except OSError:  # who writes there says why
            return False

    def shards(self) -> list[Shard]:
        """Returns all shards, the least recently used one first."""
        shards = []
        for path in (path for folder in _folders_in(self.root) for path in _shards_in(folder)):
            with contextlib.suppress(OSError, ValueError):
                shards.append(describe_shard(path))
        return sorted(shards, key=lambda shard: shard.used)

    def make_room(self, needed: int, budget: int, *, keep: Sequence[str] = ()) -> bool:
        """Deletes least recently used shards until `needed` more bytes fit into the budget.

        Copies of an object store that this host has not sent yet stay: nobody else has them.

        Args:
            needed: Bytes that are to be written.
            budget: Bytes that all shards together may take.
            keep: Keys that are in use and stay.

        Returns:
            Whether they fit now; if they cannot, nothing is deleted.
        """
        self.sweep()
        shards = self.shards()
        spare = [
            shard
            for shard in shards
            if shard.path.parent.name not in keep and not self._is_unsent(shard)
        ]
        excess = sum(shard.size for shard in shards) + needed - budget
        if excess > sum(shard.size for shard in spare):
            return False
        for shard in spare:
            if excess <= 0:
                break
            delete_shard(shard.path)
            excess -= shard.size
        return True

    def measure_unsent(self) -> int:
        """Returns the bytes of shards that an object store may lack, and which stay for that."""
        return sum(shard.size for shard in self.shards() if self._is_unsent(shard))

    def _is_unsent(self, shard: Shard) -> bool:
        return bool(self._address) and not (shard.path / SENT).exists()

    def clear(self) -> tuple[int, int]:
        """Deletes all shards; returns how many there were, and their bytes."""
        shards = self.shards()
        for shard in shards:
            delete_shard(shard.path)
        self.sweep()
        for folder in _folders_in(self.root):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
        return len(shards), sum(shard.size for shard in shards)

    def sweep(self) -> None:
        """Removes drafts of interrupted writers; a folder that no writer created stays."""
        for folder in _folders_in(self.root):
            for draft in folder.glob(f"{DRAFT_PREFIX}*"):
                if _is_left(draft):
                    shutil.rmtree(draft, ignore_errors=True)
            for lease in folder.glob(f"{LEASE_PREFIX}*"):
                if is_abandoned(lease):
                    shutil.rmtree(lease, ignore_errors=True)
                with contextlib.suppress(OSError):  # held, or gone
                    lease.rmdir()  # its holder was killed before it locked it, or after


def _is_left(draft: Path) -> bool:
    """Returns whether a draft of this store has lost its writer, on any host."""
    if is_abandoned(draft):
        return True
    if not draft.name.removeprefix(DRAFT_PREFIX).split("-")[0].isdecimal():
        return False  # no writer made it
    try:
        paths = list(draft.iterdir())
        changed = max(path.stat().st_mtime for path in (draft, *paths))
    except OSError:  # published or removed by another process
        return False
    is_locked = any(is_lock(path.name) for path in paths)
    return not is_locked and time.time() - changed > _STALE_SECONDS


def _folders_in(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir()]
    except OSError:
        return []


def _shards_in(folder: Path) -> list[Path]:
    return [path for path in _folders_in(folder) if not path.name.startswith(".")]
