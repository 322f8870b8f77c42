"""The lock file of a folder: what it says of its holder, and whether that lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tl_toolkit.runs.processes import find_boot_time, is_gone, shares_kernel

__all__ = [
    "CLAIM",
    "LOCK",
    "STALE_SECONDS",
    "UNNAMED_SECONDS",
    "HeldLock",
    "LockFile",
    "inspect",
    "is_lock",
    "is_same",
    "open_new",
    "parse_holder",
    "read_lock_file",
    "suppressing_gone",
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

_EXCLUSIVE_SECONDS = 1.0  # in which a file that is there, or just was, shows itself
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
        identity: Its content, which holds a random key, by which all hosts know the same file
            again; of one without a key its inode too, which sshfs makes up.
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


class HeldLock(NamedTuple):
    """A lock file that this process has created.

    Attributes:
        path: Its place.
        descriptor: The open file.
        text: What it holds.
    """

    path: Path
    descriptor: int
    text: bytes

    def is_there(self) -> bool:
        """Returns whether the file is still in its place.

        Its content is compared too: sshfs gives the lock of a follower the same inode.
        """
        with suppressing_gone():
            return is_same(self.descriptor, self.path) and self.path.read_bytes() == self.text
        return False


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
        with suppressing_gone():
            return read_lock_file(path, descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)  # drops the lock that asked
    return None


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
    holder = parse_holder(text)
    identity = text if "key" in holder else f"{status.st_ino} ".encode() + text
    return LockFile(path, identity, status.st_mtime, None if got is None else not got, holder)


def open_new(path: Path, mode: int) -> int:
    """Creates a file and opens it.

    SFTP has no error for a file that is there already: sshfs says EPERM, as where nothing may be
    written. So it is tried again where the file is gone by then.

    Args:
        path: The file.
        mode: os.O_RDWR or os.O_WRONLY.

    Raises:
        FileExistsError: It is there already.
        OSError: It cannot be created.
    """
    deadline = time.monotonic() + _EXCLUSIVE_SECONDS
    while True:
        try:
            return os.open(path, mode | os.O_CREAT | os.O_EXCL, 0o644)
        except PermissionError as error:
            if error.errno != errno.EPERM or time.monotonic() > deadline:
                raise
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        time.sleep(0.01)


def is_same(descriptor: int, path: Path) -> bool:
    """Returns whether an open file still lies in a place.

    Args:
        descriptor: The file.
        path: The place.
    """
    with suppressing_gone():
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


@contextlib.contextmanager
def suppressing_gone() -> Iterator[None]:
    """Ends a block quietly where a file is gone, or was removed on another host while it is open.

    NFS says ESTALE of one that is open, sshfs ENOENT.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise


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


def parse_holder(text: bytes) -> dict[str, Any]:
    """Returns the process that a lock names, {} for none.

    Args:
        text: Its content.
    """
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) and {"pid", "host"} <= set(holder) else {}
