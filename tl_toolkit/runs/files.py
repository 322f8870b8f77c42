"""Files that are never torn: written beside their place, and renamed into it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tl_toolkit.errors import OutputError, Problem


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it into place when the block succeeds.

    Args:
        path: File or folder to publish. Readers see the old one or the new one, never a part.

    Yields:
        A path that does not exist yet, in the same folder.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    path = Path(path)
    # The suffix stays last: Keras picks the format from it.
    draft = path.with_name(f".{path.stem}.{os.getpid()}.{os.urandom(4).hex()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _sync(draft)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(draft, path)
    except OSError as error:
        raise describe_unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def _sync(path: Path) -> None:
    """Forces a file's bytes to the disk, so that the rename cannot outrun them."""
    if path.is_file():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def describe_unwritable(path: Path, error: OSError) -> OutputError:
    """Returns the error for a path that cannot be written."""
    return OutputError(
        Problem(
            where=str(path),
            what=f"cannot be written: {error.strerror or error}",
            expected="The run's folder must be on a writable disk with space left.",
            hint="--out DIR with a folder you may write to",
        )
    )


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes one file beside its place and renames it into it.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    # File names that are not UTF-8 come as surrogates, and go back as the bytes they were.
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with drafted(path) as draft:
        draft.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; a non-finite number becomes null."""
    write_atomically(path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value


def default_cache_dir() -> Path:
    """Returns TL_TOOLKIT_CACHE, or the folder tl_toolkit in the user's cache folder."""
    chosen = os.environ.get("TL_TOOLKIT_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tl_toolkit"


def check_folder(folder: Path) -> None:
    """Refuses a folder that can neither be written nor made.

    Args:
        folder: The folder.

    Raises:
        OutputError: It, or what it should lie in, is a file or write-protected.
    """
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if there.is_dir() and os.access(there, os.W_OK):
        return
    raise OutputError(
        Problem(
            where=f"--out {folder}",
            what=f"{there} {'cannot be written' if there.is_dir() else 'is a file'}",
            expected="A folder is needed that receives an image for each file.",
            hint="--out DIR with another folder",
        )
    )
