"""Leases in an object store: small objects that their holders create, renew and delete.

    <address>/<key>/.lease-<digits>

Each names its holder and has a random key, and a beat that grows. The clocks of hosts may differ,
so a waiter watches: an object that has not changed for five minutes of the waiter's own clock has
lost its holder, and is replaced. Where two do so in the same moment, or a holder was suspended for
so long, a part is computed twice, with the same values.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.published import is_offline
from tl_toolkit.errors import DataError
from tl_toolkit.features.leases import FolderLeases
from tl_toolkit.runs.heart import Heart
from tl_toolkit.runs.lock_files import STALE_SECONDS, parse_holder
from tl_toolkit.runs.locks import name_holder
from tl_toolkit.runs.processes import describe_process, is_gone
from tl_toolkit.sources.small_objects import (
    create_object,
    knows_conditions,
    read_object,
    remove_object,
    replace_object,
)

__all__ = ["StoreLeases"]

_FIELD = "features.location"
_BEAT_SECONDS = 30.0
_LOOK_SECONDS = 2.0  # between two looks at a lease that another process has: each is a request
_STALE_SECONDS = STALE_SECONDS
_PATIENCE_SECONDS = 10.0  # for a beat that is being written when the block ends

_logger = logging.getLogger("tl_toolkit")


@dataclass
class _Sight:
    """A lease of another process, as this one last saw it.

    Attributes:
        content: Its bytes.
        since: When these were first seen, in seconds of this process's monotonic clock.
        looked: When they were last seen.
    """

    content: bytes
    since: float
    looked: float


class StoreLeases:
    """Leases in an object store; offline, and where a store cannot have any, those of a folder.

    Args:
        address: The store's address and the key of an entry.
        local: Leases of this host alone.
    """

    def __init__(self, address: str, local: FolderLeases) -> None:
        self._address = address
        self._local = local
        self._seen: dict[str, _Sight] = {}

    @property
    def place(self) -> str:
        """The address."""
        return self._address

    @contextlib.contextmanager
    def take(self, name: str) -> Iterator[bool]:
        """Yields whether this process alone has the lease in the block.

        Args:
            name: Name of the lease.

        Raises:
            OSError: The folder of this host cannot be written.
            DataError: The store cannot be read or written.
        """
        if is_offline() or not knows_conditions(_FIELD, self._address):
            with self._local.take(name) as is_ours:
                yield is_ours
            return
        lease = self._acquire(name)
        if lease is None:
            yield False
            return
        heart = Heart(lease.renew, _BEAT_SECONDS)
        try:
            yield True
        finally:
            if heart.stop(_PATIENCE_SECONDS):  # else it might be written again
                lease.release()

    def is_awaited(self, name: str) -> bool:
        """Returns whether another process had a lease a moment ago, without asking again.

        Args:
            name: Name of the lease.
        """
        sight = self._seen.get(name)
        return sight is not None and time.monotonic() - sight.looked < _LOOK_SECONDS

    def watch(self, name: str) -> None:
        """Looks who has a lease, so that it is known how long its holder gives no sign of life.

        Args:
            name: Name of the lease.

        Raises:
            DataError: The store cannot be read.
        """
        if is_offline() or not knows_conditions(_FIELD, self._address) or self.is_awaited(name):
            return
        asked = time.monotonic()
        content = read_object(_FIELD, f"{self._address}/{name}")
        if content is not None:
            self._is_dead(name, content, asked)

    def describe(self, name: str) -> str:
        """Returns who had a lease when it was last asked for, as words; "" where nobody did.

        Args:
            name: Name of the lease.
        """
        sight = self._seen.get(name)
        return name_holder(parse_holder(sight.content)) if sight else self._local.describe(name)

    def _acquire(self, name: str) -> _Lease | None:
        """Creates the lease's object, or replaces that of a process that has ended."""
        if self.is_awaited(name):
            return None
        asked = time.monotonic()
        lease = _Lease(f"{self._address}/{name}")
        content = read_object(_FIELD, lease.address)
        if content is None:
            is_ours = create_object(_FIELD, lease.address, lease.encode())
        elif self._is_dead(name, content, asked):
            is_ours = replace_object(_FIELD, lease.address, content, lease.encode())
        else:
            return None
        self._seen.pop(name, None)  # if it is not ours, its next holder is asked for at once
        return lease if is_ours else None

    def _is_dead(self, name: str, content: bytes, asked: float) -> bool:
        """Returns whether the holder of a lease has ended, from what was seen before and now.

        Args:
            name: Name of the lease.
            content: Its bytes.
            asked: When they were asked for: they may have changed since.
        """
        now = time.monotonic()
        sight = self._seen.get(name)
        if sight is None or sight.content != content:
            sight = self._seen[name] = _Sight(content, now, now)
        sight.looked = now
        holder = parse_holder(content)
        return _is_known_gone(holder) or asked - sight.since > _STALE_SECONDS


class _Lease:
    """The lease of this process on an address.

    Args:
        address: Its object.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        facts = {"since": time.time(), "key": os.urandom(8).hex(), "beat": 0}
        self._facts: dict[str, Any] = {**_describe_here(), **facts}

    def encode(self) -> bytes:
        """Returns the content of the object."""
        return json.dumps(self._facts).encode()

    def renew(self) -> bool:
        """Gives a sign of life; returns whether the lease is still ours."""
        with contextlib.suppress(DataError):  # the next beat may succeed
            content = self._read()
            if content is None:
                _logger.warning("%s is no longer ours: another process took it", self.address)
                return False
            self._facts["beat"] += 1
            replace_object(_FIELD, self.address, content, self.encode())
        return True

    def release(self) -> None:
        """Frees the lease, if it is still ours and the store answers; else it is free when old."""
        with contextlib.suppress(DataError):
            content = self._read()
            if content is None:
                return
            try:
                remove_object(_FIELD, self.address)
            except DataError:  # deleting may be refused where writing is not
                self._facts["is_free"] = True
                replace_object(_FIELD, self.address, content, self.encode())

    def _read(self) -> bytes | None:
        """Returns the object as it is, None unless it is ours."""
        content = read_object(_FIELD, self.address)
        is_ours = content and parse_holder(content).get("key") == self._facts["key"]
        return content if is_ours else None


def _describe_here() -> dict[str, Any]:
    """Returns what identifies this process; process ids count in a namespace of a container."""
    try:
        namespace = os.readlink(Path("/proc/self/ns/pid"))
    except OSError:  # not Linux
        namespace = None
    return {**describe_process(), "pid_namespace": namespace}


def _is_known_gone(holder: Mapping[str, Any]) -> bool:
    """Returns whether a holder has given its lease back, or is a process of this host that ended.

    Another host may have the same name, so boots are compared, too.
    """
    if holder.get("is_free"):
        return True
    here = _describe_here()
    is_here = all(holder.get(fact) == here[fact] for fact in ("boot", "pid_namespace"))
    return is_here and here["boot"] is not None and is_gone(holder)
