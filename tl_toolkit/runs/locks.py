"""One writer a folder: a lock file that names its holder, and whose time shows that it lives.

The file is created by an exclusive open, which one process succeeds in, of all hosts that share the
disk. It names its holder by host, boot, process id and start time. The holder locks it by `flock`
too, which the kernel drops when the process ends, however it ends: so a process id that belongs to
another program by now blocks nobody. To processes of other hosts neither says anything: a process
id means nothing there, and `flock` may not reach them. For them a thread of the holder sets the
file's time again and again, and a file whose time is old has lost its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_toolkit.errors import OutputError, Problem, RecipeError
from tl_toolkit.runs.heart import Heart
from tl_toolkit.runs.lock_files import (
    CLAIM,
    LOCK,
    STALE_SECONDS,
    UNNAMED_SECONDS,
    HeldLock,
    LockFile,
    inspect,
    is_same,
    open_new,
    read_lock_file,
    suppressing_gone,
    try_flock,
)
from tl_toolkit.runs.processes import describe_process, is_gone, shares_kernel

__all__ = [
    "describe_holder",
    "find_holder",
    "hold",
    "is_abandoned",
    "is_taken_over",
    "name_holder",
    "refuse_follower",
]

_BEAT_SECONDS = 15.0
_PATIENCE_SECONDS = 5.0  # the moment before a holder has named itself is shorter

_logger = logging.getLogger("tl_toolkit")


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds a folder alone while the block writes to it. Threads exclude each other as well.

    The lock of a process that has ended is taken over: on this host at once, on another one when it
    has given no sign of life for five minutes.

    Args:
        folder: The folder; must exist.

    Raises:
        RecipeError: Another process, or another thread, holds it.
        OSError: The lock file cannot be created.
    """
    path = Path(folder) / LOCK
    held = _acquire(path)
    heart = Heart(functools.partial(_beat, held), _BEAT_SECONDS)
    try:
        yield
    finally:
        is_still = heart.stop()
        # Removed while it is locked: a process that has opened it by now sees that it is gone.
        with contextlib.suppress(OSError):
            if held.is_there():
                path.unlink()
        with contextlib.suppress(OSError):
            fcntl.flock(held.descriptor, fcntl.LOCK_UN)  # a forked child may share the descriptor
        if is_still:  # else the thread may use it yet, on a disk that does not answer
            os.close(held.descriptor)


def is_abandoned(folder: Path) -> bool:
    """Returns whether a writer that has ended left a lock in a folder, which nobody holds.

    A lock file is empty for a moment, until its writer has named itself: an empty one counts as
    held unless it is old.

    Args:
        folder: The folder.
    """
    seen = inspect(Path(folder) / LOCK)
    return seen is not None and seen.is_dead(time.time())


def find_holder(folder: Path) -> dict[str, Any] | None:
    """Returns what identifies the process that holds a folder, and None where none does.

    Args:
        folder: The folder.

    Returns:
        As `describe_process`, and `since`; {} for one that has not named itself.
    """
    seen = inspect(Path(folder) / LOCK)
    if seen is not None:
        return None if seen.is_dead(time.time()) else seen.holder
    claim = inspect(Path(folder) / CLAIM)
    return None if claim is None or claim.is_dead(time.time()) else claim.holder


def describe_holder(folder: Path) -> str:
    """Returns who holds a folder and since when, as words; "another process" if unknown.

    Args:
        folder: The folder.
    """
    return name_holder(find_holder(folder) or {})


def is_taken_over(folder: Path) -> bool:
    """Returns whether another process holds a folder by now.

    A process that was suspended for minutes, as with a laptop's lid, finds that when it wakes.

    Args:
        folder: A folder that this process has held.
    """
    holder, here = find_holder(folder), describe_process()
    return bool(holder) and {name: (holder or {}).get(name) for name in here} != here


def refuse_follower(folder: Path) -> None:
    """Refuses to write to a folder that another process has taken over.

    Args:
        folder: As in `is_taken_over`.

    Raises:
        OutputError: It has.
    """
    if is_taken_over(folder):
        what = f"is being written by {name_holder(find_holder(folder) or {})} by now"
        expected = (
            f"This process gave no sign of life for {STALE_SECONDS / 60:.0f} minutes, and its "
            "folder was taken over."
        )
        raise OutputError(Problem(str(folder), what, expected, "another --out"))


def _acquire(path: Path) -> HeldLock:
    """Creates the lock file."""
    _refuse_claim(path.with_name(CLAIM))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return _create(path)
        except FileExistsError:
            seen = inspect(path)
            if seen is None and time.monotonic() > deadline:  # it cannot be read
                raise
        if seen is None:  # released by now
            continue
        if seen.is_dead(_read_clock(path)):
            _remove(seen)
        elif seen.holder and not (seen.is_here and is_gone(seen.holder)):
            raise _refuse(seen)
        # Else its holder is about to name itself, or somebody is about to take it over.
        if time.monotonic() > deadline:
            raise _refuse(seen)
        time.sleep(0.01)


def _refuse_claim(path: Path) -> None:
    """Refuses a folder that a process of version 0.3 holds."""
    claim = inspect(path)
    if claim is not None:
        if not claim.is_dead(time.time()):
            raise _refuse(claim)
        path.unlink(missing_ok=True)


def _create(path: Path) -> HeldLock:
    descriptor = open_new(path, os.O_RDWR)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        # Somebody who asks whether it is locked holds it for a moment.
        while (is_locked := try_flock(descriptor, fcntl.LOCK_EX)) is False:
            if time.monotonic() > deadline:  # a disk whose locks are none: beats do without
                break
            time.sleep(0.001)
        facts = {"since": time.time(), "flock": bool(is_locked), "key": os.urandom(8).hex()}
        text = json.dumps({**describe_process(), **facts}).encode()
        os.write(descriptor, text)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return HeldLock(path, descriptor, text)


def _remove(seen: LockFile) -> None:
    """Removes the lock file of a process that has ended, if it is still the same one.

    Of several processes that see it, one may do so: the one that creates a file which is named by
    what they have seen. Without that, the second would remove the lock that the first has created.
    """
    key = hashlib.sha256(seen.identity).hexdigest()[:16]
    token = seen.path.with_name(f"{LOCK}.{key}")
    try:
        os.close(open_new(token, os.O_WRONLY))
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):  # its owner was killed in this moment
            if time.time() - token.stat().st_mtime > UNNAMED_SECONDS:
                token.unlink()
        return
    try:
        _remove_same(seen)
    finally:
        token.unlink(missing_ok=True)


def _remove_same(seen: LockFile) -> None:
    with suppressing_gone():
        _remove_opened(seen, os.open(seen.path, os.O_RDWR))


def _remove_opened(seen: LockFile, descriptor: int) -> None:
    try:
        now = read_lock_file(seen.path, descriptor, fcntl.LOCK_EX)
        is_old = (now.identity, now.beat) == (seen.identity, seen.beat)
        # An old lock of another host's may outlive it on a server; here it was free, or is dead.
        if is_old and now.is_locked == seen.is_locked and is_same(descriptor, seen.path):
            seen.path.unlink()
    finally:
        os.close(descriptor)


def _read_clock(path: Path) -> float:
    """Returns the time of the disk's own clock, which may differ from this host's."""
    probe = path.with_name(f"{LOCK}.{os.urandom(8).hex()}")
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            return os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            probe.unlink()
    except OSError:
        return time.time()


def _beat(held: HeldLock) -> bool:
    """Sets the time of a lock file; returns whether it is still ours."""
    with contextlib.suppress(OSError):
        if not held.is_there():
            _logger.warning("%s is no longer ours: another process took it", held.path)
            return False
        os.utime(held.descriptor)
    return True


def _refuse(seen: LockFile) -> RecipeError:
    """Returns the error that names who holds a folder, since when, and what can be done."""
    what = f"is being written by {name_holder(seen.holder)}"
    expected = "A folder has one writer at a time, and a run in progress is not replaced."
    hint = "wait for it, or another --out"
    holder = seen.holder
    if holder and seen.is_here and shares_kernel(holder):
        hint += f"; `kill {holder['pid']}` ends it"
    elif holder and seen.beats:
        seconds = max(0.0, time.time() - seen.beat)
        expected += (
            f" It gave a sign of life {seconds:.0f} s ago; after {STALE_SECONDS / 60:.0f} minutes "
            "without one its folder is free."
        )
        hint += f"; `kill {holder['pid']}` on {holder['host']} ends it"
    elif holder:
        hint += f"; if it is gone: rm {seen.path}"
    return RecipeError(Problem(str(seen.path.parent), what, expected, hint))


def name_holder(holder: Mapping[str, Any]) -> str:
    """Returns a process and since when it holds something, as words.

    Args:
        holder: What `find_holder` returns; "another process" for {}.
    """
    if not holder:
        return "another process"
    name = f"process {holder['pid']} on {holder['host']}"
    if not isinstance(holder.get("since"), int | float):
        return name
    return f"{name} since {time.strftime('%Y-%m-%d %H:%M', time.localtime(holder['since']))}"
