"""Finds published weight files, and downloads those that are not in the cache yet."""

import fcntl
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from tl_toolkit.catalog.lookup import Architecture, describe_unpublished, find_weight_file
from tl_toolkit.catalog.records import Value, WeightFile
from tl_toolkit.catalog.weight_files import cache_path, inspect_weights
from tl_toolkit.errors import Problem, WeightsError
from tl_toolkit.runs.files import hash_file

__all__ = ["fetch_weight_file", "find_weights"]

Progress = Callable[[int, int | None], None]
"""Receives, after each piece, the bytes so far and the total (None if it is not known)."""

_PIECE = 1 << 20
_TIMEOUT_SECONDS = 30.0


def find_weights(
    architecture: Architecture,
    arguments: Mapping[str, Value],
    image_size: tuple[int, int],
    weights: str,
    *,
    progress: Progress | None = None,
) -> Path | None:
    """Returns the weight file of a recipe; downloads a published file that is not in the cache yet.

    Args:
        architecture: The base's record.
        arguments: Arguments of its builder.
        image_size: (height, width); Keras publishes files for several sizes.
        weights: "random", "imagenet" or the path of a file.
        progress: Called while a file is downloaded.

    Returns:
        A path; None for "random". A file of the user's own is not opened here.

    Raises:
        WeightsError: No file was ever published for these arguments, or it is not in the cache and
            cannot be downloaded; the text names file, address and place.
    """
    if weights == "random":
        return None
    if weights != "imagenet":
        return Path(weights)
    file = find_weight_file(architecture, arguments, image_size)
    if file is None:
        raise WeightsError(describe_unpublished(architecture, arguments))
    return fetch_weight_file(file, progress=progress)


def fetch_weight_file(file: WeightFile, *, progress: Progress | None = None) -> Path:
    """Returns a published file from the cache; a missing file is downloaded first.

    A file is written beside its place, under a lock, and renamed when it is complete and checked:
    other processes never see a part of it. Where no file can be locked, each process that needs
    the file at the same time downloads it. A folder that cannot be written is an error, never a
    reason to write elsewhere.

    Args:
        file: The record of the file.
        progress: Called after each piece that is downloaded.

    Raises:
        WeightsError: The file cannot be downloaded or stored, or is not the published one.
    """
    path = cache_path(file)
    if not path.exists():
        with _locked(path, file) as part:
            if not path.exists():  # another process may have fetched it in the meantime
                _download(file, path, part, progress)
    elif expected := _describe_difference(file, path):
        what = f"is not the published file, {file.url}"
        raise WeightsError(Problem(str(path), what, expected, f"rm '{path}' and run again"))
    return path


@contextmanager
def _locked(path: Path, file: WeightFile) -> Iterator[Path]:
    """Gives the path to write to: of one process at a time, or of this one where none can lock."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(f"{path.name}.lock"), "wb")
    except OSError as error:
        raise _absent_error(path, file, f"its folder cannot be written ({_why(error)})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # NFS without its lock daemon, and some of FUSE
            part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
        yield part


def _absent_error(path: Path, file: WeightFile, reason: str) -> WeightsError:
    return WeightsError(
        Problem(
            str(path),
            f"is not there, and {reason}",
            f"The file is published at {file.url}",
            "fetch it elsewhere and put it at the path above (KERAS_HOME moves that folder), "
            "or model.weights=PATH",
        )
    )


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(reason)


def _download(file: WeightFile, path: Path, part: Path, progress: Progress | None) -> None:
    try:
        _write_part(file, path, part, progress)
        _check_part(file, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_part(file: WeightFile, path: Path, part: Path, progress: Progress | None) -> None:
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length else file.bytes
            with open(part, "wb") as sink:
                size = _copy(response, sink, lambda done: progress and progress(done, total))
                os.fsync(sink.fileno())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _absent_error(path, file, f"it could not be fetched ({_why(error)})") from error
    if total is not None and size != total:
        reason = f"the connection broke off after {size:,} of {total:,} bytes"
        raise _absent_error(path, file, reason)


def _copy(source: Any, sink: BinaryIO, report: Callable[[int], object]) -> int:
    size = 0
    while piece := source.read(_PIECE):
        sink.write(piece)
        size += len(piece)
        report(size)
    return size


def _describe_difference(file: WeightFile, path: Path) -> str:
    """Names the expected digest if a file has another one; "" if it has it, or none is known."""
    if file.digest is None:
        return ""
    algorithm, digits = file.digest
    names = {"sha256": "SHA-256", "md5": "MD5"}
    same = hash_file(path, algorithm) == digits
    return "" if same else f"Expected a file with {names[algorithm]} {digits}."


def _check_part(file: WeightFile, part: Path) -> None:
    """Refuses a download that is not the published file, by its digest, if known, and header."""
    if expected := _describe_difference(file, part):
        raise WeightsError(Problem(file.url, "gave another file", expected, "run again"))
    try:
        inspect_weights(part)
    except WeightsError as error:
        what = f"what was fetched {error.problems[0].what}"
        raise WeightsError(replace(error.problems[0], where=file.url, what=what)) from error
