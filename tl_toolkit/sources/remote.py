"""Folders on object stores, mirrored into the cache through fsspec and then read as local ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.published import is_offline
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.remote import find_address, hide_credentials
from tl_toolkit.runs.files import write_json
from tl_toolkit.runs.locks import hold

__all__ = ["mirror_folders"]

_MOST_GB = 50.0
"""Bytes of one mirrored folder, in GB, unless TL_TOOLKIT_REMOTE_GB says otherwise."""
_INDEX = ".mirror.json"
_PART = ".mirror-part.json"  # of a call that failed
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "LastModified", "mtime", "created")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


def mirror_folders(folders: Mapping[str, Path | float | None]) -> None:
    """Brings the mirrors among some folders up to date.

    A file is fetched if it is new or has another size or tag than when it was fetched, beside its
    place, and renamed into it once it has its size; a file that is gone is removed. Credentials are
    those that fsspec finds in the environment. Offline a mirror is taken as it is.

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
            with hold(folder):
                _mirror(field, address, folder)


def _refuse_missing(field: str, address: str, folder: Path) -> None:
    """Refuses a mirror that was never complete, where no connection may be opened."""
    if not (folder / _INDEX).is_file():
        expected = "Offline (--offline, or TL_TOOLKIT_OFFLINE) nothing is fetched."
        raise DataError(Problem(f"{field}: {address}", "is not in the cache", expected, ""))


def _mirror(field: str, address: str, folder: Path) -> None:
    where = f"{field}: {address}"
    system, root = _open(where, address)
    try:
        files = dict(_list_files(system, root))
    except Exception as error:  # of any store's library
        raise _describe(where, error) from error
    if not files:
        raise DataError(Problem(where, "holds no file", "expected a folder of images.", ""))
    _refuse_large(where, sum(size for size, _ in files.values()))
    known = _read_index(folder)
    for name, (size, tag) in files.items():
        place = folder / name
        if known.get(name) == [size, tag] and place.is_file() and place.stat().st_size == size:
            continue
        known.pop(name, None)
        try:
            _fetch(system, f"{root}/{name}", place, size)
        except Exception as error:  # of any store's library
            write_json(folder / _PART, known)  # what is there is not fetched again
            raise _describe(f"{where}/{name}", error) from error
        known[name] = [size, tag]
    for name in set(known) - set(files):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / _INDEX, {name: known[name] for name in files})
    (folder / _PART).unlink(missing_ok=True)


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
        raise _describe(where, error) from error
    return system, str(root).rstrip("/")


def _list_files(system: Any, root: str) -> Iterator[tuple[str, tuple[int, str]]]:
    """Yields the path of each file below the root, with its size and tag; hidden ones are none."""
    for path, facts in sorted(system.find(root, detail=True).items()):
        parts = str(path)[len(root) :].strip("/").split("/")
        if any(part.startswith(".") or part == "" or "\0" in part for part in parts):
            continue
        tag = next((str(facts[name]) for name in _TAGS if facts.get(name)), "")
        yield "/".join(parts), (int(facts["size"]), tag)


def _fetch(system: Any, path: str, place: Path, size: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.draft")
    try:
        with system.open(path, "rb") as source, draft.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
        if (found := draft.stat().st_size) != size:
            raise OSError(f"has {found} bytes, {size} were listed")
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
    limit = float(os.environ.get("TL_TOOLKIT_REMOTE_GB") or _MOST_GB)
    if size > limit * 1e9:
        expected = f"expected at most {limit:g} GB, which are copied to the cache."
        hint = f"TL_TOOLKIT_REMOTE_GB={size / 1e9 + 1:.0f} in the environment"
        raise DataError(Problem(where, f"holds {size / 1e9:.3g} GB", expected, hint))


def _describe(where: str, error: Exception) -> DataError:
    """Returns an error in words, without what follows a question mark: it may be a signature."""
    text = hide_credentials(str(error).splitlines()[0] if str(error) else "")
    what = f"cannot be read: {type(error).__name__}: {text}"
    hint = "the credentials in the environment, and the name of bucket and folder"
    return DataError(Problem(where, what, "", hint))
