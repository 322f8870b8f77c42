"""Folders on object stores, mirrored into the cache through fsspec and then read as local ones."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.published import is_offline
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.recipe.remote import find_address, hide_credentials
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.locks import hold

__all__ = ["mirror_folders"]

_MOST_GB = 50.0
"""Bytes of one mirrored folder, in GB, unless TL_TOOLKIT_REMOTE_GB says otherwise."""
_INDEX = ".mirror.json"
_PART = ".mirror-part.json"  # of a call that failed
_DRAFT = ".mirror-draft"
_WAIT_SECONDS = 3600.0  # for another process that copies the same folder
_POLL_SECONDS = 0.2
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "LastModified", "mtime", "created")
_SECRET = re.compile(r"(?i)((?:key|secret|token|password|sig|signature)=)[^\s;&,'\"]+")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_logger = logging.getLogger("tl_toolkit")


def mirror_folders(folders: Mapping[str, Path | float | None]) -> None:
    """Brings the mirrors among some folders up to date.

    A file is fetched if it is new or has another size or tag than when it was fetched, and renamed
    into its place once it has its size; what the store does not hold is removed. Hidden files,
    names that lead out of the folder, links and pipes are left out. Credentials are those that
    fsspec finds in the environment. Offline a mirror is taken as it is.

    Args:
        folders: By field; what is no mirror is left alone.

    Raises:
        DataError: A folder is missing, larger than the limit or cannot be read; or what reads it is
            not installed.
    """
    for field, folder in folders.items():
        if isinstance(folder, Path) and (address := find_address(folder)):
            if is_offline():
                _refuse_missing(field, address, folder)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            with _holding(f"{field}: {address}", folder):
                _mirror(field, address, folder)


def _refuse_missing(field: str, address: str, folder: Path) -> None:
    """Refuses a mirror that was never complete, where no connection may be opened."""
    if not (folder / _INDEX).is_file():
        expected = "Offline (--offline, or TL_TOOLKIT_OFFLINE) nothing is fetched."
        raise DataError(Problem(f"{field}: {address}", "is not in the cache", expected, ""))


@contextlib.contextmanager
def _holding(where: str, folder: Path) -> Iterator[None]:
    """Holds a mirror; waits for another process that does, as several trials of a search may."""
    deadline = time.monotonic() + _WAIT_SECONDS
    is_told = False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(folder))
                break
            except RecipeError as error:
                if time.monotonic() > deadline:
                    raise
                if not is_told:
                    _logger.warning("%s: waiting, its copy %s", where, error.problems[0].what)
                is_told = True
            time.sleep(_POLL_SECONDS)
        yield


def _mirror(field: str, address: str, folder: Path) -> None:
    where = f"{field}: {address}"
    system, root = _open(where, address)
    try:
        system.invalidate_cache()  # an earlier call in this process may have listed it
        files = dict(_list_files(system, root))
    except Exception as error:  # of any store's library
        raise _describe(where, error) from None
    if not files:
        raise DataError(Problem(where, "holds no file", "expected a folder of images.", ""))
    _refuse_large(where, sum(size for size, _ in files.values()))
    known = _read_index(folder)
    _remove_others(folder, files)
    try:
        for name, (size, tag) in files.items():
            place = folder / name
            if known.get(name) == [size, tag] and place.is_file() and place.stat().st_size == size:
                continue
            known.pop(name, None)
            try:
                _fetch(system, f"{root}/{name}", place, folder / _DRAFT, size=size)
            except Exception as error:  # of any store's library
                raise _describe(f"{where}/{name}", error) from None
            known[name] = [size, tag]
    except BaseException:  # what is there is not fetched again
        write_json(folder / _PART, known)
        raise
    write_json(folder / _INDEX, {name: known[name] for name in files})
    (folder / _PART).unlink(missing_ok=True)


def _remove_others(folder: Path, names: Collection[str]) -> None:
    """Removes what the store does not hold, and folders that are empty then."""
    for parent, _, found in os.walk(folder, topdown=False):
        for name in found:
            place = Path(parent, name)
            is_own = place.parent == folder and name.startswith(".")  # indices, and the lock
            if not is_own and place.relative_to(folder).as_posix() not in names:
                place.unlink(missing_ok=True)
        if parent != str(folder):
            with contextlib.suppress(OSError):  # it holds files
                os.rmdir(parent)


def _open(where: str, address: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError as error:
        hint = 'pip install "tl-toolkit[distributed]"'
        raise DataError(Problem(where, "needs fsspec, which is not installed", "", hint)) from error
    try:
        system, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = _PACKAGES.get(address.partition(":")[0], "its package")
        problem = Problem(
            where, f"needs {package}, which is not installed", "", f"pip install {package}"
        )
        raise DataError(problem) from error
    except Exception as error:  # of any store's library
        raise _describe(where, error) from None
    return system, str(root).rstrip("/")


def _list_files(system: Any, root: str) -> Iterator[tuple[str, tuple[int, str]]]:
    """Yields the path of each file below the root, with its size and tag.

    A name is what somebody has given an object: what is hidden, or leads out of the root, is none.
    """
    for path, facts in sorted(system.find(root, detail=True).items()):
        parts = str(path).removeprefix(f"{root}/").split("/")
        if not str(path).startswith(f"{root}/") or facts.get("type", "file") != "file":
            continue
        if any(part.startswith(".") or part == "" or "\0" in part for part in parts):
            continue
        tag = next((str(facts[name]) for name in _TAGS if facts.get(name)), "")
        yield "/".join(parts), (int(facts["size"]), tag)


def _fetch(system: Any, path: str, place: Path, draft: Path, *, size: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with system.open(path, "rb") as source, draft.open("wb") as target:
            while (copied := target.tell()) <= size and (part := source.read(2**20)):
                target.write(part)
        if copied != size:
            more = "more than " if copied > size else ""
            raise OSError(f"has {more}{min(copied, size)} bytes, {size} were listed")
        os.replace(draft, place)
    finally:
        draft.unlink(missing_ok=True)


def _read_index(folder: Path) -> dict[str, Any]:
    """Returns size and tag of each file that was fetched, by the last call or a whole one."""
    for name in (_PART, _INDEX):
        try:
            index = json.loads((folder / name).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(index, dict):
            return index
    return {}


def _refuse_large(where: str, size: int) -> None:
    typed = os.environ.get("TL_TOOLKIT_REMOTE_GB") or _MOST_GB
    try:
        limit = float(typed)
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise DataError(Problem("TL_TOOLKIT_REMOTE_GB", repr(typed), "expected a number of GB."))
    if size > limit * 1e9:
        expected = f"expected at most {limit:g} GB, which are copied to the cache."
        hint = f"TL_TOOLKIT_REMOTE_GB={size / 1e9 + 1:.0f} in the environment"
        raise DataError(Problem(where, f"holds {size / 1e9:.3g} GB", expected, hint))


def _describe(where: str, error: Exception) -> DataError:
    """Returns an error in words, without what may be a secret.

    It is raised without its cause, whose text a traceback would show.
    """
    text = hide_credentials(str(error).splitlines()[0] if str(error) else "")
    text = _SECRET.sub(r"\1...", text)
    what = f"cannot be read: {type(error).__name__}: {text}"
    hint = "the credentials in the environment, and the name of bucket and folder"
    return DataError(Problem(where, what, "", hint))
