"""One writer a folder: a lock that ends with the process that holds it.

The lock is `flock` on a file in the folder. The kernel drops it when its process ends, however it
ends, so that a process id that now belongs to another program blocks nobody. Where a file system
has no `flock`, a file names the writer by host, boot, process id and start time instead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_toolkit.errors import Problem, RecipeError

__all__ = ["LOCK_NAMES", "describe_process", "hold", "is_abandoned", "is_gone"]

_LOCK, _CLAIM = ".writing", ".writing-by"
LOCK_NAMES = (_LOCK, _CLAIM)
"""Names of lock files; they exist while a folder is written, and after a kill."""

_CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_PATIENCE_SECONDS = 5.0  # a question, or the moment before a writer has named itself, is shorter
_STALE_SECONDS = 60.0  # after which a file that names no writer was left by a kill


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds a folder alone while the block writes to it. Threads exclude each other as well.

    Args:
        folder: The folder; must exist.

    Raises:
        RecipeError: Another process, or another thread, holds it.
        OSError: The lock file cannot be created.
    """
    path, descriptor = _acquire(Path(folder))
    try:
        yield
    finally:
        # Removed while it is locked: a process that has opened it by now sees that it is gone.
        with contextlib.suppress(OSError):
            if _is_same(descriptor, path):
                path.unlink()
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may share the descriptor
        os.close(descriptor)


def is_abandoned(folder: Path) -> bool:
    """Returns whether a killed writer left a lock in a folder, which nobody holds.

    A lock file is empty for a moment, until its writer has locked it: an empty one counts as held
    unless it is old.

    Args:
        folder: The folder.
    """
    claim, path = Path(folder) / _CLAIM, Path(folder) / _LOCK
    if holder := _read_holder(claim):
        return is_gone(holder)
    if claim.exists():
        return not _is_fresh(claim)
    if _is_fresh(path):
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # never locked, released by now, or not ours to lock
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _is_same(descriptor, path)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def describe_process() -> dict[str, Any]:
    """Returns what identifies this process: host, boot, process id and start time."""
    return {
        "host": socket.gethostname(),
        "boot": _read_boot(),
        "pid": os.getpid(),
        "process_started": _read_start(os.getpid()),
    }


def _acquire(folder: Path) -> tuple[Path, int]:
    """Returns the lock file and its open descriptor."""
    path = folder / _LOCK
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, json.dumps(describe_process()).encode())
                return path, descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            holder = _read_holder(path)
            if (holder and not is_gone(holder)) or time.monotonic() > deadline:
                raise _refuse(folder, path) from error
            time.sleep(0.01)  # it is held by somebody who asks whether the folder is abandoned
            continue
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _CANNOT_LOCK:
                raise
            path.unlink(missing_ok=True)
            return _claim(folder)
        os.close(descriptor)  # its holder removed it after it was opened here


def _claim(folder: Path) -> tuple[Path, int]:
    """Creates the file that names the writer, where there is no `flock`."""
    path = folder / _CLAIM
    holder = _read_holder(path)
    if holder and is_gone(holder):
        _remove_claim(path, holder)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError as error:
        raise _refuse(folder, path) from error
    os.write(descriptor, json.dumps(describe_process()).encode())
    return path, descriptor


def _remove_claim(path: Path, holder: Mapping[str, Any]) -> None:
    """Removes a dead writer's claim, and puts it back if another process was faster to claim."""
    aside = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if _read_holder(aside) == holder:
            aside.unlink()
        else:
            os.rename(aside, path)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_fresh(path: Path) -> bool:
    """Tells whether a lock file was made a moment ago, and names no writer yet."""
    try:
        stat = path.stat()
    except OSError:
        return False
    return not stat.st_size and time.time() - stat.st_mtime < _STALE_SECONDS


def _refuse(folder: Path, path: Path) -> RecipeError:
    holder = _read_holder(path)
    writer = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
    return RecipeError(
        Problem(
            where=str(folder),
            what=f"is being written by {writer}",
            expected="A folder has one writer at a time, and a run in progress is not replaced.",
            hint="wait for it, or another --out"
            + (f"; if it is gone: rm {path}" if path.name == _CLAIM else ""),
        )
    )


def _read_holder(path: Path) -> dict[str, Any]:
    """Returns the process that a lock file names; empty if it cannot be read."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) and {"pid", "host"} <= set(holder) else {}


def is_gone(holder: Mapping[str, Any]) -> bool:
    """Returns whether a process has surely ended; False for a process of another host.

    Args:
        holder: What `describe_process` returned in that process.
    """
    here = describe_process()
    if holder["host"] != here["host"]:
        return False
    if holder.get("boot") != here["boot"]:
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # it exists, and belongs to another user
        pass
    return bool(_read_start(holder["pid"]) != holder.get("process_started"))


def _read_boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return None


def _read_start(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since the boot; None where that is unknown."""
    try:
        # Its second field is the program's name, which may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])  # field 22 of proc(5)
