"""Small objects that hosts write against each other: created and replaced on conditions."""

from __future__ import annotations

import contextlib
import logging
import os
import threading

from tl_toolkit.errors import DataError
from tl_toolkit.sources.stores import find_object, open_store, try_request

__all__ = ["create_object", "knows_conditions", "read_object", "remove_object", "replace_object"]

_MOST_BYTES = 2**16
_REFUSED = "(PreconditionFailed)"  # botocore's word for a condition that did not hold
_WARNING = (
    "%s: %s cannot write an object on a condition (%s), so hosts that write there at the same time "
    "do not know of each other"
)

_logger = logging.getLogger("tl_toolkit")

_known: dict[tuple[int, str], bool] = {}
_trying = threading.Lock()


def read_object(where: str, address: str) -> bytes | None:
    """Returns the bytes of a small object as it is now, 64 kB at most; None where there is none.

    Args:
        where: Name of the address in messages.
        address: The object.

    Raises:
        DataError: It cannot be read.
    """
    where = f"{where}: {address}"
    system, path = open_store(where, address)

    def read() -> bytes:
        system.invalidate_cache()  # it may have had another size
        encoded: bytes = system.cat_file(path, start=0, end=_MOST_BYTES)  # S3 asks no size then
        return encoded

    with contextlib.suppress(FileNotFoundError):
        return try_request(where, read, raising=FileNotFoundError)
    return None


def create_object(where: str, address: str, content: bytes) -> bool:
    """Writes a small object where there is none; returns whether it did.

    Of several hosts that do so at once one succeeds, if `knows_conditions` holds. Stores whose
    library looks for the object first, as `memory://` and `file://`, may let two hosts succeed.

    Args:
        where: Name of the address in messages.
        address: The object.
        content: Its bytes, which nobody else writes.

    Raises:
        DataError: It cannot be written.
    """
    return _write_if(where, address, content, mode="create")


def replace_object(where: str, address: str, old: bytes, new: bytes) -> bool:
    """Writes a small object where it still is as it was; returns whether it did.

    S3 compares and writes in one step. On other stores two hosts that do so in the same moment may
    both succeed, and the later one's bytes stay.

    Args:
        where: Name of the address in messages.
        address: The object.
        old: Its bytes, as they were read.
        new: Those that it gets, which nobody else writes.

    Raises:
        DataError: It cannot be read or written.
    """
    try:
        # Asked for first: if what is read below is of another tag, the write fails.
        tag = find_object(address).tag
    except FileNotFoundError:
        return False
    if read_object(where, address) != old:
        return False
    condition = {"IfMatch": tag} if tag and address.startswith(("s3://", "s3a://")) else {}
    return _write_if(where, address, new, **condition)


def remove_object(where: str, address: str) -> None:
    """Deletes an object, if there is one.

    Args:
        where: Name of the address in messages.
        address: The object.

    Raises:
        DataError: It cannot be deleted.
    """
    where = f"{where}: {address}"
    system, path = open_store(where, address)
    with contextlib.suppress(FileNotFoundError):
        try_request(where, lambda: system.rm_file(path), raising=FileNotFoundError, verb="deleted")


def knows_conditions(where: str, folder: str) -> bool:
    """Returns whether a store creates objects only where there is none, and replaces them.

    It is tried once for each store, with an object that is deleted again. A warning names a store
    that does not.

    Args:
        where: Name of the address in messages.
        folder: An address in the store that may be written to.
    """
    store = (os.getpid(), "/".join(folder.split("/", 3)[:3]))
    with _trying:
        if store not in _known:
            fault = _find_fault(where, folder)
            _known[store] = not fault
            if fault:
                _logger.warning(_WARNING, where, store[1], fault)
        return _known[store]


def _find_fault(where: str, folder: str) -> str:
    """Returns why a store does not know conditions, "" if it does."""
    address = f"{folder}/.try-{os.urandom(8).hex()}"
    try:
        if not create_object(where, address, b"first"):
            return "it created none"
        if create_object(where, address, b"second"):
            return "it created one that was there"
        is_replaced = replace_object(where, address, b"first", b"third")
        return "" if is_replaced else "it replaced none"
    except DataError as error:
        return error.problems[0].what
    finally:
        with contextlib.suppress(DataError):  # deleting may be refused where writing is not
            remove_object(where, address)


def _write_if(where: str, address: str, content: bytes, **condition: str) -> bool:
    """Writes an object on a condition that the store's library knows; returns whether it held."""
    place = f"{where}: {address}"
    system, path = open_store(place, address)

    def write() -> bool:
        system.invalidate_cache()
        try:
            system.pipe_file(path, content, **condition)
        except (FileExistsError, FileNotFoundError):
            return False
        except OSError as error:
            if _REFUSED in str(error.__cause__):
                return False
            raise
        return True

    if try_request(place, write, verb="written"):
        return True
    # Or an earlier try has written it, and the answer was lost.
    return read_object(where, address) == content
