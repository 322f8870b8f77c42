"""Bytes of objects that were read before, within a budget: the least recently used make room."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.runs.files import default_cache_dir, name_draft

__all__ = ["OBJECTS", "ObjectCache", "open_cache"]

OBJECTS = "objects"
"""The folder of the cache that holds the bytes of objects."""

_BUDGET_GB = 50.0
_DIGEST_BYTES = 32  # of SHA-256, before the bytes of each object
_FULL = 0.9  # share of the budget that is left after making room
_TOUCH_SECONDS = 60.0
_logger = logging.getLogger("tl_toolkit")


class ObjectCache:
    """Bytes by a key; it may be lost, is shared by processes, and never does harm.

    A file holds the digest of its bytes: one that is torn or damaged is read from the store again.
    Where nothing can be written, nothing is kept.

    Attributes:
        folder: The folder; `put` creates it.

    Args:
        folder: The folder.
        budget: Bytes that all files together may take.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder = folder
        self._budget = budget
        self._held: int | None = None  # bytes of all files when they were counted, and of later
        self._unseen = 0  # bytes that were added since then
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """Returns bytes, None if they are not here.

        Args:
            key: Any text.
        """
        place = self._place(key)
        if not self._budget:
            return None
        try:
            with open(place, "rb") as file:
                content = file.read()
                used = os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        digest, encoded = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(encoded).digest() != digest:
            return None
        if time.time() - used > _TOUCH_SECONDS:
            with contextlib.suppress(OSError):
                os.utime(place)
        return encoded

    def put(self, key: str, encoded: bytes) -> None:
        """Keeps bytes, if there is room for them at all; may be called by several threads.

        Args:
            key: As in `get`.
            encoded: The bytes.
        """
        size = len(encoded) + _DIGEST_BYTES
        if size > self._budget:
            return
        place = self._place(key)
        draft = name_draft(place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # Not forced to the disk: the digest tells what a power failure has torn.
            draft.write_bytes(hashlib.sha256(encoded).digest() + encoded)
            os.replace(draft, place)
        except FileNotFoundError:  # another process made room, or has cleared the cache
            return
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            self._report(error)
            return
        with self._lock:
            self._make_room(size)

    def measure(self) -> tuple[int, int]:
        """Returns how many objects are kept, and their bytes."""
        sizes = [size for _, size, _ in self._list()]
        return len(sizes), sum(sizes)

    def clear(self) -> tuple[int, int]:
        """Deletes all of them; returns how many there were, and their bytes."""
        files = list(self._list())
        for _, _, path in files:
            with contextlib.suppress(OSError):
                os.unlink(path)
        return len(files), sum(size for _, size, _ in files)

    def _make_room(self, added: int) -> None:
        self._unseen += added
        is_within = self._held is not None and self._held + self._unseen <= self._budget
        # Other processes add files too, so that all are counted now and then.
        if is_within and self._unseen <= self._budget * (1 - _FULL):
            return
        files = sorted(self._list())
        total = sum(size for _, size, _ in files)
        if total > self._budget:
            for _, size, path in files:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total -= size
                if total <= self._budget * _FULL:
                    break
        self._held, self._unseen = total, 0

    def _list(self) -> Iterator[tuple[int, int, str]]:
        """Yields when each file was last used, its bytes and its path."""
        for folder in self.folder.glob("*/"):
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):  # removed by another process
                        status = entry.stat()
                        yield status.st_mtime_ns, status.st_size, entry.path

    def _place(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / name[:2] / name

    def _report(self, error: OSError) -> None:
        if self._budget:
            _logger.warning("objects are not kept in the cache: %s", error.strerror or error)
            self._budget = 0


_caches: dict[tuple[Path, int], ObjectCache] = {}
_caches_lock = threading.Lock()


def open_cache() -> ObjectCache:
    """Returns the cache of this process, in the user's cache folder.

    Raises:
        DataError: TL_TOOLKIT_REMOTE_GB is no number.
    """
    key = (default_cache_dir().absolute() / OBJECTS, _read_budget())
    with _caches_lock:
        return _caches.setdefault(key, ObjectCache(*key))


def _read_budget() -> int:
    typed = os.environ.get("TL_TOOLKIT_REMOTE_GB") or _BUDGET_GB
    try:
        budget = float(typed)
    except ValueError:
        budget = math.nan
    if not (math.isfinite(budget) and budget >= 0):
        expected = "expected the GB of the cache for objects, 0 to keep none."
        raise DataError(Problem("TL_TOOLKIT_REMOTE_GB", repr(typed), expected))
    return int(budget * 1e9)
