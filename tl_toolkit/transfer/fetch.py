"""Finds published weight files, and downloads those that are not in the cache yet."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tl_toolkit.catalog.lookup import Architecture, describe_unpublished, find_weight_file
from tl_toolkit.catalog.pins import Digest, find_digest, pin_file
from tl_toolkit.catalog.published import describe_absent, is_offline
from tl_toolkit.catalog.records import Value, WeightFile
from tl_toolkit.catalog.weight_files import cache_path, inspect_weights
from tl_toolkit.errors import OutputError, Problem, WeightsError
from tl_toolkit.sources.addresses import find_weights_file
from tl_toolkit.transfer.download import DownloadError, Progress, discard_part, download

__all__ = ["fetch_weight_file", "find_weights", "locked"]


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
        weights: "random", "imagenet", or the path or the address of a file.
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
        return find_weights_file(weights)
    file = find_weight_file(architecture, arguments, image_size)
    if file is None:
        raise WeightsError(describe_unpublished(architecture, arguments))
    return fetch_weight_file(file, progress=progress)


def fetch_weight_file(
    file: WeightFile, *, folder: Path | None = None, progress: Progress | None = None
) -> Path:
    """Returns a published file from the cache; a missing file is downloaded first.

    A file is written beside its place, under a lock, and renamed when it is complete and checked:
    other processes never see a part of it, and a part that was interrupted is resumed. Where no
    file can be locked, each process that needs the file at the same time downloads it. A folder
    that cannot be written is an error, never a reason to write elsewhere. A file without a
    published digest is pinned: it must have the digest of its first use from then on.

    Args:
        file: The record of the file.
        folder: Where it lies, by default the cache.
        progress: Called after each piece that is downloaded.

    Raises:
        WeightsError: The file cannot be downloaded or is not the published one; or it is not here,
            and nothing may be downloaded.
        OutputError: It cannot be written.
    """
    path = cache_path(file) if folder is None else folder / file.name
    if path.exists():
        _check_present(file, path)
        return path
    if is_offline():
        raise WeightsError(describe_absent(file, path))
    with locked(path, file) as part:
        if not path.exists():  # another process may have fetched it in the meantime
            _download(file, path, part, progress)
    return path


def _check_present(file: WeightFile, path: Path) -> None:
    digest = find_digest(file, path)
    if digest is None:
        with contextlib.suppress(WeightsError):  # loading says what is wrong
            inspect_weights(path)
            pin_file(path)
    elif not digest.fits(path):
        raise WeightsError(describe_difference(file, path, digest))


def describe_difference(file: WeightFile, path: Path, digest: Digest) -> Problem:
    """Describes that a file in the cache has another digest than it must have.

    Args:
        file: Its record.
        path: The file.
        digest: What it must have.
    """
    if digest.pin is None:
        what, hint = f"is not the published file, {file.url}", f"rm '{path}' and run again"
    else:
        what = "is not the file that it was on its first use"
        hint = f"rm '{path}' and run again; if the new file is right, rm '{digest.pin}'"
    return Problem(str(path), what, str(digest), hint)


@contextlib.contextmanager
def locked(path: Path, file: WeightFile) -> Iterator[Path]:
    """Gives the path to write to: of one process at a time, or of this one where none can lock.

    Args:
        path: Where the file will lie.
        file: Its record.

    Raises:
        WeightsError: The folder cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(f"{path.name}.lock"), "wb")
    except OSError as error:
        reason = f"its folder cannot be written ({error.strerror or error})"
        raise WeightsError(describe_absent(file, path, reason)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            is_locked = True
        except OSError:  # NFS without its lock daemon, and some of FUSE
            part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
            is_locked = False
        try:
            yield part
        finally:
            if not is_locked:  # nobody else would resume it
                discard_part(part)


def _download(file: WeightFile, path: Path, part: Path, progress: Progress | None) -> None:
    digest = find_digest(file, path)
    for is_last in (not part.exists(), True):
        _fill(file, path, part, digest, progress)
        try:
            _check_part(file, part, digest)
            break
        except WeightsError:
            discard_part(part)
            if is_last:  # a part of an earlier attempt may have been the fault
                raise
    os.replace(part, path)
    discard_part(part)
    if digest is None:
        pin_file(path)


def _fill(
    file: WeightFile, path: Path, part: Path, digest: Digest | None, progress: Progress | None
) -> None:
    is_verified = digest is not None
    try:
        download(file.url, part, size=file.bytes, is_verified=is_verified, progress=progress)
    except DownloadError as error:
        reason = f"it could not be fetched ({error})"
        raise WeightsError(describe_absent(file, path, reason)) from error
    except OSError as error:
        discard_part(part)  # it would fill the disk
        what = f"cannot be written: {error.strerror or error}"
        hint = "make room, or KERAS_HOME=DIR on another disk"
        raise OutputError(Problem(str(path), what, "", hint)) from error


def _check_part(file: WeightFile, part: Path, digest: Digest | None) -> None:
    """Refuses a download that is not the published file, by its digest, if known, and header."""
    if digest is not None and not digest.fits(part):
        hint = "run again"
        if digest.pin is not None:
            hint += f"; if the file was published anew, rm '{digest.pin}'"
        raise WeightsError(Problem(file.url, "gave another file", str(digest), hint))
    try:
        inspect_weights(part)
    except WeightsError as error:
        what = f"what was fetched {error.problems[0].what}"
        raise WeightsError(replace(error.problems[0], where=file.url, what=what)) from error
