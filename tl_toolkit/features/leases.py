"""Leases: who computes a part of the images now, of all processes and hosts that share a store.

A lease is a lock on a folder of its own. That of a process that has ended is free again: on this
host at once, on another one after five minutes without a sign of life.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tl_toolkit.errors import RecipeError
from tl_toolkit.runs.locks import describe_holder, hold

__all__ = ["LEASE_PREFIX", "describe_lessee", "leased"]

LEASE_PREFIX = ".lease-"
"""Prefix of the names of the folders that are locked."""


@contextlib.contextmanager
def leased(entries: Sequence[Path], images: Sequence[bytes]) -> Iterator[bool]:
    """Yields whether this process alone computes these images for these entries in the block.

    Args:
        entries: Folders of entries of the store.
        images: SHA-256 of each image's content.

    Raises:
        OSError: The store cannot be written.
    """
    name = _name(images)
    with contextlib.ExitStack() as stack:
        is_ours = True
        for folder in sorted(set(entries)):  # in one order, so that two never wait for each other
            try:
                stack.enter_context(_locked(folder / name))
            except RecipeError:  # held
                is_ours = False
                break
        if not is_ours:
            stack.close()
        yield is_ours


def describe_lessee(entries: Sequence[Path], images: Sequence[bytes]) -> str:
    """Returns who computes these images, as words; "another process" where none does by now.

    Args:
        entries: As in `leased`.
        images: As in `leased`.
    """
    name = _name(images)
    held = [folder / name for folder in sorted(set(entries)) if (folder / name).is_dir()]
    return describe_holder(held[0]) if held else "another process"


def _name(images: Sequence[bytes]) -> str:
    return LEASE_PREFIX + hashlib.sha256(b"".join(images)).hexdigest()[:16]


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
