"""Leases: who computes a part of the images now, of all processes and hosts that share a store.

The lease of a process that has ended is free again: on this host at once, on another one after five
minutes without a sign of life. On a folder it is a lock on a folder of its own; in an object store
it is an object (`store_leases.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tl_toolkit.errors import RecipeError
from tl_toolkit.runs.locks import describe_holder, hold

__all__ = ["LEASE_PREFIX", "FolderLeases", "Leases", "describe_lessee", "leased"]

LEASE_PREFIX = ".lease-"
"""Prefix of the names of leases."""


class Leases(Protocol):
    """The leases of one entry of the store."""

    @property
    def place(self) -> str:
        """Where they lie; equal for the same entry."""

    def take(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Yields whether this process alone has the lease in the block.

        Args:
            name: Name of the lease.

        Raises:
            OSError: The store cannot be written.
            DataError: The object store cannot be read or written.
        """

    def is_awaited(self, name: str) -> bool:
        """Returns whether another process had a lease a moment ago, without asking again.

        Args:
            name: Name of the lease.
        """

    def watch(self, name: str) -> None:
        """Looks who has a lease, so that it is known how long its holder gives no sign of life.

        Args:
            name: Name of the lease.

        Raises:
            DataError: The object store cannot be read.
        """

    def describe(self, name: str) -> str:
        """Returns who had a lease when it was last asked for, as words; "" where nobody did.

        Args:
            name: Name of the lease.
        """


@contextlib.contextmanager
def leased(entries: Sequence[Leases], images: Sequence[bytes]) -> Iterator[bool]:
    """Yields whether this process alone computes these images for these entries in the block.

    Args:
        entries: Leases of the entries.
        images: SHA-256 of each image's content.

    Raises:
        OSError: The store cannot be written.
        DataError: The object store cannot be read or written.
    """
    name, ordered = _name(images), _order(entries)
    with contextlib.ExitStack() as stack:
        # Else a wait for the second would take and give back the first at every turn.
        is_awaited = any(entry.is_awaited(name) for entry in ordered)
        is_ours = not is_awaited and all(stack.enter_context(entry.take(name)) for entry in ordered)
        if not is_ours:
            stack.close()
        if not is_ours and not is_awaited:
            for entry in ordered:  # else a dead holder of several is waited for once for each
                entry.watch(name)
        yield is_ours


def describe_lessee(entries: Sequence[Leases], images: Sequence[bytes]) -> str:
    """Returns who computes these images, as words; "another process" where none does by now.

    Args:
        entries: As in `leased`.
        images: As in `leased`.
    """
    name = _name(images)
    lessees = (entry.describe(name) for entry in _order(entries))
    return next(filter(None, lessees), "another process")


class FolderLeases:
    """Leases on a folder that all who share it mount.

    Args:
        folder: The folder of an entry; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    @contextlib.contextmanager
    def take(self, name: str) -> Iterator[bool]:
        """Yields whether this process alone has the lease in the block.

        Args:
            name: Name of the lease.

        Raises:
            OSError: The folder cannot be written.
        """
        with contextlib.ExitStack() as stack:
            is_ours = True
            try:
                stack.enter_context(_locked(self._folder / name))
            except RecipeError:  # held
                is_ours = False
            yield is_ours

    def is_awaited(self, name: str) -> bool:
        """Returns False: a folder may be asked at every turn.

        Args:
            name: Name of the lease.
        """
        return False

    def watch(self, name: str) -> None:
        """Does nothing: the folder's files say when its holder gave the last sign of life.

        Args:
            name: Name of the lease.
        """

    def describe(self, name: str) -> str:
        """Returns who has a lease, as words; "" where nobody has.

        Args:
            name: Name of the lease.
        """
        folder = self._folder / name
        return describe_holder(folder) if folder.is_dir() else ""


def _name(images: Sequence[bytes]) -> str:
    return LEASE_PREFIX + hashlib.sha256(b"".join(images)).hexdigest()[:16]


def _order(entries: Sequence[Leases]) -> list[Leases]:
    """Returns each entry once, in one order for all, so that two never wait for each other."""
    places = {entry.place: entry for entry in entries}
    return [places[place] for place in sorted(places)]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a folder, which exists for the block alone."""
    with contextlib.ExitStack() as stack:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(hold(folder))
                break
            except FileNotFoundError:  # removed by the one that held it until now
                continue
        try:
            yield
        finally:
            stack.close()
            with contextlib.suppress(OSError):  # held by the next one already
                folder.rmdir()
