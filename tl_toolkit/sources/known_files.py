"""What is known of files that were read before, in one SQLite database: their contents."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from tl_toolkit.recipe.remote import is_address

__all__ = ["DATABASE", "CacheTable", "KnownFiles", "encode_path"]

DATABASE = "images-1.sqlite"
"""The database's name in the cache folder; the number is that of its tables' layout."""

_YOUNG = 2_000_000_000  # nanoseconds; the coarsest clock of a file system in use, FAT's
_READ_TIMEOUT_SECONDS = 1.0
_WRITE_TIMEOUT_SECONDS = 10.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class CacheTable:
    """One table of the database: read key by key, written at once by `save`; children add both.

    The cache may be lost, but never does harm. A damaged database is renamed to `*.damaged` and
    begun anew, a folder that cannot be written is only read, and a key that cannot be read is
    unknown. Several processes may read and write at a time. SQLite's rollback journal is used,
    because its write-ahead log needs shared memory, which network disks do not have.

    Attributes:
        new: Rows by key that `save` writes.

    Args:
        folder: The cache folder; `save` creates it if there is something to save.
        layout: The CREATE TABLE statement, without those words.
    """

    def __init__(self, folder: Path, layout: str) -> None:
        self._path = folder.absolute() / DATABASE
        self._layout = layout
        self.new: dict[Any, tuple[Any, ...]] = {}
        self._lock = threading.Lock()
        self._damaged: tuple[int, int] | None = None  # the damaged file's device and inode
        self._reader = self._open_for_reading()

    def save(self) -> None:
        """Writes new rows, and stops reading."""
        self._close_reader()
        if not self.new:
            return
        with contextlib.suppress(sqlite3.Error, OSError, UnicodeError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._put_aside()
                self._write()
            except sqlite3.Error as error:
                # A table of another layout is a plain SQL error.
                if not (_is_damage(error) or _code_of(error) == sqlite3.SQLITE_ERROR):
                    raise
                self._damaged = self._identify()
                self._put_aside()
                self._write()

    def read(self, query: str, *key: Any) -> tuple[Any, ...] | None:
        """Returns the stored row that a query selects, None for none.

        Args:
            query: With a mark for each value of the key.
            key: The values.
        """
        with self._lock:
            if self._reader is None:
                return None
            try:
                row = self._reader.execute(query, key).fetchone()
            except sqlite3.Error as error:
                # No later key is tried: each might wait for the same lock.
                self._damaged = self._identify() if _is_damage(error) else None
                self._close_reader()
                return None
        return None if row is None else tuple(row)

    def read_all(self, query: str, *key: Any) -> list[tuple[Any, ...]]:
        """Returns all stored rows that a query selects, none where they cannot be read.

        Args:
            query: As for `read`.
            key: As for `read`.
        """
        with self._lock:
            if self._reader is None:
                return []
            try:
                return [tuple(row) for row in self._reader.execute(query, key)]
            except sqlite3.Error as error:
                self._damaged = self._identify() if _is_damage(error) else None
                return []

    def _write(self) -> None:
        connection = sqlite3.connect(
            self._path, timeout=_WRITE_TIMEOUT_SECONDS, isolation_level=None
        )
        with contextlib.closing(connection):
            # The lock is taken first: a reader that becomes a writer would not wait for others.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"CREATE TABLE IF NOT EXISTS {self._layout}")
            rows = list(self.new.values())
            table, marks = self._layout.split(" ", 1)[0], ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)
            connection.execute("COMMIT")

    def _open_for_reading(self) -> sqlite3.Connection | None:
        try:
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro",
                uri=True,
                timeout=_READ_TIMEOUT_SECONDS,
                check_same_thread=False,
            )
        except sqlite3.Error:
            return None
        weakref.finalize(self, connection.close)
        return connection

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _identify(self) -> tuple[int, int] | None:
        try:
            stat = os.stat(self._path)
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def _put_aside(self) -> None:
        """Renames a damaged database, unless another process has already begun a new one."""
        if self._damaged is not None and self._damaged == self._identify():
            os.replace(self._path, self._path.with_name(f"{DATABASE}.damaged"))
            # The journal would be rolled back into the new database.
            self._path.with_name(f"{DATABASE}-journal").unlink(missing_ok=True)
        self._damaged = None


class KnownFiles(CacheTable):
    """The contents of files that have not changed since they were read.

    As in Git, a file is taken to be the same if its device, inode, size, time of modification and
    time of status change are. The last one cannot be set back: it shows an edit in place by a tool
    that keeps the time of modification (`exiftool -P`). A file that changed a moment before it was
    read is not remembered: it could change again within the clock's resolution.

    Args:
        folder: The cache folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "files (path BLOB PRIMARY KEY, identity TEXT NOT NULL, sha256 TEXT NOT NULL) "
            "WITHOUT ROWID",
        )

    def get(self, path: str, stat: os.stat_result) -> str | None:
        """Returns the SHA-256 of a file's bytes, or None if it is not known.

        Args:
            path: The file.
            stat: Its present state.
        """
        query = "SELECT identity, sha256 FROM files WHERE path = ?"
        stored = self.read(query, encode_path(path))
        if stored is None or stored[0] != _describe(stat) or not isinstance(stored[1], str):
            return None
        return stored[1]

    def add(self, path: str, stat: os.stat_result, sha256: str) -> None:
        """Remembers a file; may be called by several threads.

        Args:
            path: The file.
            stat: Its state before it was read.
            sha256: The digest of its bytes.
        """
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _YOUNG:
            key = encode_path(path)
            self.new[key] = (key, _describe(stat), sha256)


def encode_path(path: str) -> bytes:
    """Returns an absolute path as bytes: SQLite's text holds no names that are not UTF-8.

    Args:
        path: The path, or the address of an object, which is absolute.
    """
    return os.fsencode(path if is_address(path) else os.path.abspath(path))


def _describe(stat: os.stat_result) -> str:
    """Returns the identity as text: inodes have 64 bits, SQLite's integers 63."""
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return ":".join(map(str, identity))


def _code_of(error: sqlite3.Error) -> int | None:
    """Returns SQLite's primary result code; None for an error of Python's own module."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    return _code_of(error) in _DAMAGED
