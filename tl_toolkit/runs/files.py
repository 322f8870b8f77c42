"""Files that are never torn: written beside their place, and swapped into it."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from tl_toolkit.errors import OutputError, Problem

_DRAFT = re.compile(r"^\..+\.\d+\.[0-9a-f]{8}(\.\w+)?$")
_AT_FDCWD = -100  # from <fcntl.h>: paths are relative to the working directory
_RENAME_EXCHANGE = 2  # from <linux/fs.h>
# Errors of kernels and file systems that cannot exchange two names.
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and swaps it into place if the block succeeds.

    The new file or folder is forced to the disk first. A folder replaces another one in one step
    where the kernel and the file system can do so (Linux, local disks); elsewhere the path is
    missing between two renames, and the old folder is restored after an error.

    Args:
        path: File or folder to publish. Readers see the old one or the new one, never a part.

    Yields:
        A path that does not exist yet, in the same folder.

    Raises:
        OutputError: The folder cannot be written, the disk is full, or a file would take the place
            of a folder or a folder that of a file: neither is replaced.
    """
    path = follow_link(Path(path))
    draft = name_draft(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _sync(draft)
        _put(draft, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise describe_unwritable(path, error) from error
    finally:
        # Either an unfinished draft, or the old folder after the swap.
        with contextlib.suppress(OSError):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def is_draft(name: str) -> bool:
    """Returns whether `drafted` made a name, for files that an interrupted writer left.

    Args:
        name: A file's or folder's name.
    """
    return _DRAFT.match(name) is not None


def name_draft(path: Path, folder: Path | None = None) -> Path:
    """Returns a path that nobody uses, for what will become another one.

    Args:
        path: What it will become. The suffix stays last: Keras picks the format from it.
        folder: Where to write it; by default beside its place.
    """
    # Short, as the name itself may take all 255 bytes.
    suffix = path.suffix if len(path.suffix) <= 16 else ""
    name = f".{path.stem[:32]}.{os.getpid()}.{os.urandom(4).hex()}{suffix}"
    return (folder or path.parent) / name


def remove_drafts(folder: Path, *, but: Path | None = None) -> None:
    """Removes what killed writers left in a folder, and in those below; its lock must be held.

    Args:
        folder: The folder.
        but: A folder below that has a lock of its own.
    """
    for path in sorted(folder.rglob(".*")):
        if is_draft(path.name) and but not in path.parents:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put(draft: Path, path: Path) -> None:
    """Renames the draft to the path; an old folder is removed, or gets the draft's name."""
    is_folder = draft.is_dir()
    if path.exists() and path.is_dir() != is_folder:
        raise _refuse_other_kind(path)
    if not is_folder or not path.is_dir() or path.is_symlink():
        os.replace(draft, path)  # of a file it never takes a folder's place
    elif not _exchange(draft, path):
        _put_in_two_steps(draft, path)


def follow_link(path: Path) -> Path:
    """Returns the file that a link stands for, which need not exist; a folder's link stays itself.

    Args:
        path: A link, or any other path, which is returned.
    """
    return path if not path.is_symlink() or path.is_dir() else Path(os.path.realpath(path))


def is_stream(path: Path) -> bool:
    """Returns whether a path is neither file nor folder: a pipe, a device or a socket, or its link.

    Args:
        path: The path; it need not exist.
    """
    return path.exists() and not path.is_file() and not path.is_dir()


def _refuse_other_kind(path: Path) -> OutputError:
    if path.is_dir():
        what, expected = "is a folder", "A file is written; it never takes the place of a folder."
        hint = f"the path of a file, as {path / 'NAME'}, or another path"
    else:
        what, expected = "is a file", "A folder is written; it never takes the place of a file."
        hint = "another path, or move the file away"
    return OutputError(Problem(str(path), what, expected, hint))


def _exchange(draft: Path, path: Path) -> bool:
    """Swaps two names in one step; returns False where that cannot be done."""
    rename = _find_renameat2()
    if rename is None:
        return False
    names = os.fsencode(draft), os.fsencode(path)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(path))


def _find_renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or a C library of before 2018
        return None
    rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    rename.restype = ctypes.c_int
    return rename


def _put_in_two_steps(draft: Path, path: Path) -> None:
    aside = draft.with_name(f".{path.name[:32]}.{os.getpid()}.{os.urandom(4).hex()}")
    os.rename(path, aside)
    try:
        os.rename(draft, path)
    except BaseException:
        os.rename(aside, path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Forces a draft and its contents to the disk, so that the rename cannot come first."""
    if path.is_file():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    for folder, _, names in os.walk(path):
        for name in names:
            if not os.path.islink(file_path := os.path.join(folder, name)):
                with open(file_path, "rb") as file:
                    os.fsync(file.fileno())
        _sync_folder(Path(folder))


def _sync_folder(path: Path) -> None:
    """Forces a folder's names to the disk, on file systems that can do so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def reporting_unwritable(path: Path) -> Iterator[None]:
    """Turns what the system says while the block writes into the error that names the path.

    Args:
        path: What cannot be written then.

    Raises:
        OutputError: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise describe_unwritable(path, error) from error


def describe_unwritable(path: Path, error: OSError) -> OutputError:
    """Returns the error for a path that cannot be written.

    Args:
        path: The path.
        error: The error of the system.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(describe_full(error, path))
    return OutputError(
        Problem(
            where=str(path),
            what=f"cannot be written: {error.strerror or error}",
            expected="The run's folder must be on a writable disk with space left.",
            hint="--out DIR with a folder you may write to",
        )
    )


def describe_full(error: BaseException, path: Path) -> Problem:
    """Returns the problem of a disk that is full or read-only, at the place that it is.

    That may be the folder for temporary files or the cache, and not where the output goes.

    Args:
        error: What the system said; it need not name a file.
        path: What was to be written, for errors that name none.
    """
    temporary, cache = Path(os.environ.get("TMPDIR") or "/tmp"), default_cache_dir()  # noqa: S108
    named = getattr(error, "filename", None)
    places = [Path(os.fsdecode(named))] if isinstance(named, str | bytes) else []
    places += [path, temporary, cache]
    place = places[0] if named else next(filter(_is_full, places), path)
    reason = getattr(error, "strerror", None) or "the disk is full or read-only"
    if place.is_relative_to(path.parent):
        expected = "The run's folder must be on a writable disk with space left."
        hint = "make room, or --out DIR with a folder you may write to"
    elif place.is_relative_to(cache):
        expected = "The cache must be on a writable disk with space left."
        hint = "tltool cache clear, or TL_TOOLKIT_CACHE=DIR on another disk"
    elif place.is_relative_to(temporary):
        expected = "The folder for temporary files must be on a writable disk with space left."
        hint = "make room, or TMPDIR=DIR on another disk"
    else:
        expected, hint = "A writable disk with space left is needed.", "make room"
    return Problem(str(place), f"cannot be written: {reason}", expected, hint)


def _is_full(place: Path) -> bool:
    """Returns whether the disk of a place has less than a mebibyte left."""
    there = next((folder for folder in (place, *place.parents) if folder.exists()), Path("/"))
    try:
        return shutil.disk_usage(there).free < 1 << 20
    except OSError:
        return False


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes one file beside its place and renames it into it.

    A link keeps its place, and its target is written. A pipe or a device is opened and written to:
    a rename would put a file in its place.

    Args:
        path: The file.
        content: Its bytes, or its text, which becomes UTF-8.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    # File names that are not UTF-8 come as surrogates, and are written as their original bytes.
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    if is_stream(path):
        with reporting_unwritable(path), open(path, "wb") as stream:
            stream.write(data)
        return
    with drafted(path) as draft:
        draft.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; a non-finite number becomes null.

    Args:
        path: The file.
        value: A value that JSON can hold.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    write_atomically(path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value


def hash_file(path: str | Path, algorithm: str = "sha256") -> str:
    """Returns the digest of a file's bytes, hexadecimal.

    Args:
        path: The file.
        algorithm: A name of hashlib's.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_rows(file: TextIO, rows: Iterable[Iterable[Any]]) -> None:
    """Writes rows of a table (CSV), each as a line that ends in a newline.

    Args:
        file: The open file.
        rows: Texts, numbers, or None for nothing.
    """
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        values = list(row)
        # Readers end a row at a carriage return too, which Python quotes only from version 3.13 on.
        is_plain = not any(isinstance(value, str) and "\r" in value for value in values)
        (plain if is_plain else quoted).writerow(values)


def default_cache_dir() -> Path:
    """Returns TL_TOOLKIT_CACHE, or the folder tl_toolkit in the user's cache folder."""
    chosen = os.environ.get("TL_TOOLKIT_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tl_toolkit"


def check_place(path: Path) -> None:
    """Refuses a file that cannot be written, before the work whose result it receives.

    Args:
        path: The file.

    Raises:
        OutputError: It is a folder, or its folder is missing or write-protected.
    """
    folder = follow_link(path).absolute().parent
    if path.is_dir():
        raise _refuse_other_kind(path)
    if is_stream(path):
        return
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "cannot be written" if folder.is_dir() else "does not exist"
        raise OutputError(Problem(f"-o {path}", f"{folder} {what}", "", "-o FILE elsewhere"))


def check_folder(folder: Path) -> None:
    """Refuses a folder that can neither be written nor created.

    Args:
        folder: The folder.

    Raises:
        OutputError: It, or its nearest parent that exists, is a file or write-protected.
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
