"""Object stores through fsspec: connections, listings and whole objects; errors without secrets."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.remote import hide_credentials
from tl_toolkit.sources.waiting import saying_that_it_waits

__all__ = [
    "Facts",
    "copy_object",
    "fetch_object",
    "find_object",
    "giving_up_on_silent",
    "list_objects",
    "open_store",
    "put_object",
    "reach_folder",
    "try_request",
]

_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "LastModified", "mtime", "created")
_SECRET = re.compile(r"(?i)((?:key|secret|token|password|sig|signature)=)[^\s;&,'\"]+")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_SETTINGS = (FileNotFoundError, PermissionError, ValueError)
"""Errors of a name, of access and of an endpoint, which were wrong before anything was read."""

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError)
_WITHOUT_BUCKETS = ("file://", "memory://")
_TRIES = 3  # each of a library that has its own
_PATIENCE_SECONDS = 60.0  # after which no try begins: one may take minutes where nothing answers
_PAUSE_SECONDS = 0.5  # before the second try, and twice as long before each later one

_Result = TypeVar("_Result")


class _SilentError(DataError):
    """A store did not answer, however often it was asked."""


class Facts(NamedTuple):
    """What a store says of an object.

    Attributes:
        size: Its bytes.
        tag: Changes with its content: an ETag, a digest or a time; "" where the store has none.
    """

    size: int
    tag: str


def list_objects(where: str, address: str, *, deep: bool = True) -> dict[str, Facts]:
    """Returns the objects below an address by their path there, in their order.

    A name is what somebody has given an object: what is hidden, or leads out of the folder, is no
    file. Links and pipes of `file://` are left out.

    Args:
        where: Name of the address in messages.
        address: A folder, or a single object, which has the path "".
        deep: Also those in folders below it.

    Raises:
        DataError: It cannot be read, or what reads it is not installed.
    """
    system, root = open_store(where, address)

    def list_all() -> Mapping[str, Any]:
        system.invalidate_cache()  # an earlier call in this process may have listed it
        found: Mapping[str, Any] = system.find(root, maxdepth=None if deep else 1, detail=True)
        return found

    return dict(_choose(root, try_request(where, list_all)))


def reach_folder(where: str, address: str) -> None:
    """Lists a folder that need not be there yet, so that a store that cannot be used is named.

    Args:
        where: Name of the address in messages, with the address.
        address: The folder.

    Raises:
        DataError: It cannot be read, there is no such bucket, or what reads it is not installed.
    """
    if list_objects(where, address, deep=False) or address.startswith(_WITHOUT_BUCKETS):
        return
    system, bucket = open_store(where, _name_store(address))
    try:  # a listing of a bucket that is not there is empty, too
        try_request(where, lambda: system.info(bucket), raising=_SETTINGS)
    except FileNotFoundError:
        expected = "The bucket of a feature store must be there; its folders are made."
        what = f"no such bucket: {_name_store(address)}"
        raise DataError(Problem(where, what, expected, _name_settings(where))) from None
    except _SETTINGS:  # who may use a folder alone may not ask for its bucket
        return


def find_object(address: str) -> Facts:
    """Returns what a store says of one object.

    Args:
        address: The object.

    Raises:
        FileNotFoundError: There is none.
        DataError: It cannot be read, or what reads it is not installed.
    """
    system, path = open_store(address, address)

    def find() -> dict[str, Any]:
        system.invalidate_cache()
        facts: dict[str, Any] = system.info(path)
        return facts

    try:
        facts = _ask(address, find)
    except FileNotFoundError:
        raise _missing(address) from None
    if facts.get("type", "file") != "file":
        raise _missing(address)
    return _read_facts(facts)


def fetch_object(address: str, size: int) -> bytes:
    """Returns the bytes of an object, in one request that ends where they should.

    Args:
        address: The object.
        size: Its bytes, as they were listed.

    Raises:
        FileNotFoundError: There is none.
        DataError: It has another size by now, or cannot be read.
    """
    if size == 0:  # a range of nothing is an error
        return b""
    system, path = open_store(address, address)
    try:
        encoded: bytes = _ask(address, lambda: system.cat_file(path, start=0, end=size + 1))
    except FileNotFoundError:
        raise _missing(address) from None
    if len(encoded) != size:
        more = "more than " if len(encoded) > size else ""
        what = f"has {more}{min(len(encoded), size)} bytes, {size} were listed"
        hint = "the same command again, which lists it anew"
        raise DataError(Problem(address, what, "Images must not change while they are read.", hint))
    return encoded


def copy_object(address: str, place: Path) -> None:
    """Copies an object to a file, which may be larger than memory.

    Args:
        address: The object.
        place: The file; what a failure leaves of it is the caller's.

    Raises:
        DataError: It cannot be read.
    """
    system, path = open_store(address, address)
    try_request(address, lambda: system.get_file(path, str(place)), is_transfer=True)


def put_object(where: str, address: str, place: Path) -> None:
    """Sends a file to a store, whole or not at all.

    Args:
        where: Name of the address in messages.
        address: The object.
        place: The file.

    Raises:
        DataError: It cannot be written.
    """
    where = f"{where}: {address}"
    system, path = open_store(where, address)
    try_request(where, lambda: system.put_file(str(place), path), verb="written", is_transfer=True)


def _choose(root: str, found: Mapping[str, Any]) -> Iterator[tuple[str, Facts]]:
    for path, facts in sorted(found.items()):
        if facts.get("type", "file") != "file":
            continue
        if str(path) == root:
            yield "", _read_facts(facts)
            continue
        parts = str(path).removeprefix(f"{root}/").split("/")
        if not str(path).startswith(f"{root}/"):
            continue
        if any(part.startswith(".") or part == "" or "\0" in part for part in parts):
            continue
        yield "/".join(parts), _read_facts(facts)


def _read_facts(facts: Mapping[str, Any]) -> Facts:
    tag = next((facts[name] for name in _TAGS if facts.get(name)), "")
    if isinstance(tag, datetime.datetime):  # listings of some stores have seconds
        tag = tag.timestamp()
    return Facts(int(facts["size"]), str(tag).strip('"'))


_systems: dict[tuple[int, str], tuple[Any, str]] = {}
_lock = threading.Lock()


_silences: list[dict[str, DataError]] = []  # of the open blocks of `giving_up_on_silent`


@contextlib.contextmanager
def giving_up_on_silent() -> Iterator[Mapping[str, DataError]]:
    """Asks a store for no object more in the block once it has not answered for one.

    Each of them would be waited for as long as the first one was. All threads of the process give
    up: several may read for the block.

    Yields:
        The error of each store that did not answer, by its name, as `s3://photos`.
    """
    silent: dict[str, DataError] = {}
    with _lock:
        _silences.append(silent)
    try:
        yield silent
    finally:
        with _lock:
            _silences[:] = [each for each in _silences if each is not silent]


def _ask(address: str, call: Callable[[], _Result]) -> _Result:
    """Returns what a request for one object returns, as `try_request`; FileNotFoundError passes."""
    store = _name_store(address)
    with _lock:
        is_silent = any(store in silent for silent in _silences)
    if is_silent:
        raise DataError(Problem(address, f"is not asked for: {store} did not answer before"))
    try:
        return try_request(address, call, raising=FileNotFoundError)
    except _SilentError as error:
        with _lock:
            for silent in _silences:
                silent.setdefault(store, error)
        raise


def _name_store(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def open_store(where: str, address: str) -> tuple[Any, str]:
    """Returns the store of an address and its path there; one connection for all threads.

    fsspec itself has one for each thread, whose first request begins anew.

    Args:
        where: Name of the address in messages.
        address: A folder or an object.

    Raises:
        DataError: What reads it is not installed, or it takes no such address.
    """
    _, slash, name = address.partition("://")[2].partition("/")
    key = (os.getpid(), _name_store(address))
    with _lock:
        if key not in _systems:
            _systems[key] = _connect(where, key[1] or address)
        system, root = _systems[key]
    return system, f"{root}/{name}".rstrip("/") if slash else root


def _connect(where: str, address: str) -> tuple[Any, str]:
    scheme, _, bucket = address.partition("://")
    package = _PACKAGES.get(scheme, "its package")
    hint = 'pip install "tl-toolkit[s3]"' if scheme == "s3" else f"pip install {package}"
    try:
        import fsspec
    except ModuleNotFoundError as error:
        hint = hint if scheme in _PACKAGES else "pip install fsspec"
        raise DataError(Problem(where, "needs fsspec, which is not installed", "", hint)) from error
    try:
        system, root = fsspec.core.url_to_fs(address if bucket else f"{scheme}:///")
    except ImportError as error:
        problem = Problem(where, f"needs {package}, which is not installed", "", hint)
        raise DataError(problem) from error
    except Exception as error:  # of any store's library
        raise _describe(where, error) from None
    return system, str(root).rstrip("/")


def try_request(
    where: str,
    call: Callable[[], _Result],
    *,
    raising: type[Exception] | tuple[type[Exception], ...] = (),
    verb: str = "read",
    is_transfer: bool = False,
) -> _Result:
    """Returns what a call returns, which is tried again after errors that may pass.

    A warning says so where it takes longer than people wait without a word.

    Args:
        where: Name of the address in messages, with the address.
        call: A request to a store.
        raising: Errors that the caller takes.
        verb: What the request does, as messages say it of the object.
        is_transfer: Whether it may move gigabytes: then it takes its time.

    Raises:
        DataError: It has failed.
    """
    deadline = time.time() + _PATIENCE_SECONDS
    last = time.strftime("%H:%M:%S", time.localtime(deadline))
    until = f"it is asked {_TRIES} times at most, and not again after {last} (one try may be long)"
    store = re.search(r"\w+://[^/]*", where)
    waiting = saying_that_it_waits(where, store[0] if store else where, until)
    with contextlib.nullcontext() if is_transfer else waiting:
        return _try(where, call, raising, verb, float("inf") if is_transfer else deadline)


def _try(
    where: str,
    call: Callable[[], _Result],
    raising: type[Exception] | tuple[type[Exception], ...],
    verb: str,
    deadline: float,
) -> _Result:
    for attempt in range(_TRIES):
        try:
            return call()
        except raising:
            raise
        except _FINAL as error:
            raise _describe(where, error, verb) from None
        except Exception as error:  # of any store's library
            if attempt == _TRIES - 1 or time.time() > deadline:
                raise _SilentError(_describe(where, error, verb).problems) from None
            time.sleep(_PAUSE_SECONDS * 2**attempt)
    raise AssertionError  # the loop returns or raises


def _missing(address: str) -> FileNotFoundError:
    return FileNotFoundError(2, "no such object", address)


def _describe(where: str, error: Exception, verb: str = "read") -> DataError:
    """Returns an error in words, without what may be a secret.

    It is raised without its cause, whose text a traceback would show.
    """
    text = hide_credentials(str(error).splitlines()[0] if str(error) else "")
    text = _SECRET.sub(r"\1...", text)
    what = f"cannot be {verb}: {type(error).__name__}: {text}"
    if _is_of_settings(error):
        expected = "Name, credentials and endpoint must be those of the store."
        return DataError(Problem(where, what, expected, _name_settings(where)))
    expected = "What was read before is known: the same command goes on, a run with --resume."
    hint = "the connection, the credentials in the environment, and the name of bucket and folder"
    return DataError(Problem(where, what, expected, hint))


def _is_of_settings(error: Exception) -> bool:
    # Those of botocore without credentials are of its own classes.
    return isinstance(error, _SETTINGS) or type(error).__name__.endswith("CredentialsError")


def _name_settings(where: str) -> str:
    """Returns what to look at, and to set for stores that speak S3."""
    if "s3://" not in where:
        return "the name of bucket and folder, and the credentials in the environment"
    return (
        "the name of bucket and folder; in the environment AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL, with http:// or https://, of a store that is "
        "not Amazon's (docs/scaling.md)"
    )
