"""The lock file of a folder: what it says of its holder, and whether that lives."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_toolkit.runs.processes import find_boot_time, is_gone, shares_kernel

__all__ = [
    "CLAIM",
    "LOCK",
    "STALE_SECONDS",
    "UNNAMED_SECONDS",
    "LockFile",
    "inspect",
    "is_lock",
    "read_lock_file",
    "try_flock",
]

LOCK = ".writing"
"""Name of the lock file."""

CLAIM = ".writing-by"
"""Name that version 0.3 gave it where there was no flock."""

STALE_SECONDS = 300.0
"""After so long without a beat a holder of another host is gone. It may be busy for a while, and
clocks and caches may be late."""

UNNAMED_SECONDS = 60.0
"""After which a file that names no holder was left by a kill."""

_CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def is_lock(name: str) -> bool:
    """Returns whether a file is a lock; they exist while a folder is written, and after a kill.

    Args:
        name: The file's name.
    """
    return name in (LOCK, CLAIM) or name.startswith(f"{LOCK}.")


@dataclass(frozen=True)
class LockFile:
    """A lock file at a moment.

    Attributes:
        path: The file.
        identity: Its inode and content, by which the same file is known again.
        beat: When its holder last gave a sign of life.
        is_locked: Whether somebody's `flock` holds it; None where there is none.
        holder: The process that it names, {} for none.
    """

    path: Path
    identity: bytes
    beat: float
    is_locked: bool | None
    holder: dict[str, Any] = field(default_factory=dict)

    def is_dead(self, now: float) -> bool:
        """Returns whether the process that made it has ended.

        Args:
            now: The time, by the clock that `beat` is read from.
        """
        if not self.holder:
            return not self.is_locked and now - self.beat > UNNAMED_SECONDS
        if shares_kernel(self.holder):
            if self.is_locked:
                return False
            if self.is_locked is False and self.holder.get("flock", True):
                return True
            if self.is_here:
                return is_gone(self.holder)
        elif self.is_here and (self.beat < find_boot_time() or not self.beats):
            return True  # this machine, before it was started again
        return self.beats and now - self.beat > STALE_SECONDS

    @property
    def is_here(self) -> bool:
        """Whether it names this host."""
        return bool(self.holder["host"] == socket.gethostname())

    @property
    def beats(self) -> bool:
        """Whether the holder gives signs of life; that of an earlier version does not."""
        return "flock" in self.holder


def inspect(path: Path) -> LockFile | None:
    """Returns a lock file as it is now; None where there is none, or none that can be read.

    Args:
        path: The file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return read_lock_file(path, descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)  # drops the lock that asked


def read_lock_file(path: Path, descriptor: int, kind: int) -> LockFile:
    """Returns what an open lock file is, and tries to lock it, which says whether it is locked.

    Args:
        path: The file.
        descriptor: The same, opened.
        kind: LOCK_SH or LOCK_EX of fcntl.
    """
    got = try_flock(descriptor, kind)
    status = os.fstat(descriptor)
    text = os.pread(descriptor, status.st_size, 0)
    identity = f"{status.st_ino} ".encode() + text
    return LockFile(path, identity, status.st_mtime, None if got is None else not got, _parse(text))


def try_flock(descriptor: int, kind: int) -> bool | None:
    """Returns whether a file could be locked; None where the disk has no `flock`.

    Args:
        descriptor: The file.
        kind: LOCK_SH or LOCK_EX of fcntl.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _CANNOT_LOCK:
            return None
        raise
    return True


def _parse(text: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and {"pid", "host"} <= set(holder) else {}
