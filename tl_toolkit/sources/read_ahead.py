"""Objects of a list, read before they are asked for, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tl_toolkit.sources.objects import ObjectPath, count_readers

__all__ = ["ReadAhead"]


class ReadAhead:
    """Reads the objects among some paths in their order, as many ahead as are read at a time.

    Files of this machine are read when they are asked for.

    Args:
        paths: Files and objects in the order that they will be asked for.
        load: Returns the bytes of one; called by several threads.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[Path], bytes]) -> None:
        objects = [path for path in dict.fromkeys(paths) if isinstance(path, ObjectPath)]
        self._load = load
        self._waiting = iter(objects)
        self._readers = count_readers(map(str, objects))
        self._pool = ThreadPoolExecutor(self._readers) if objects else None
        self._ahead: dict[Path, Future[bytes]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends reading ahead."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def load(self, path: Path) -> bytes:
        """Returns the bytes of a path, or raises what `load` did; may be called by several threads.

        Args:
            path: One of the paths, or any other.
        """
        if self._pool is None:
            return self._load(path)
        with self._lock:
            while len(self._ahead) < self._readers and (following := next(self._waiting, None)):
                self._ahead[following] = self._pool.submit(self._load, following)
            reading = self._ahead.pop(path, None)
        return self._load(path) if reading is None else reading.result()
