"""Published weight files: which there are, fetching them ahead, checking and importing them.

    import tl_toolkit as tl

    tl.pull_weights("mobilenet", {"alpha": 0.25})

None of it starts TensorFlow. With TL_TOOLKIT_OFFLINE=1 nothing opens a connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.progress import handling
from tl_toolkit.catalog.lookup import (
    Architecture,
    describe_unpublished,
    find_architecture,
    find_weight_file,
)
from tl_toolkit.catalog.published import PublishedFile, find_owner, list_published
from tl_toolkit.catalog.records import WeightFile
from tl_toolkit.catalog.weight_files import inspect_weights
from tl_toolkit.errors import WeightsError
from tl_toolkit.events import Handler, report_counts

if TYPE_CHECKING:
    from tl_toolkit.transfer.weight_cache import Verdict

__all__ = ["import_weights", "list_weights", "pull_weights", "verify_weights"]


def list_weights(*bases: str) -> list[PublishedFile]:
    """Returns the published weight files, and which of them are here.

    Args:
        bases: Names of architectures; without any, all that have files.

    Raises:
        RecipeError: There is no such architecture.
    """
    return list_published([find_architecture(base) for base in bases])


def pull_weights(
    base: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    image_size: int | None = None,
    out: str | Path | None = None,
    progress: Handler | bool = False,
) -> Path:
    """Fetches the file that `weights: imagenet` takes, if it is not here, and checks it.

    Args:
        base: Name of an architecture.
        arguments: Arguments of its builder that differ from their defaults.
        image_size: Side of the images, for bases with a file for each of several sizes; its default
            size if None.
        out: Folder for the file, by default where Keras keeps it.
        progress: As in `tl.finetune`.

    Returns:
        The file's path.

    Raises:
        RecipeError: There is no such architecture or argument.
        WeightsError: No file was published, it cannot be fetched, or is not the published one.
        OutputError: It cannot be written.
    """
    _, file = _find_file(base, arguments, image_size)
    from tl_toolkit.transfer.fetch import fetch_weight_file

    folder = None if out is None else Path(out)
    with handling(progress) as handle:
        report = report_counts(handle, "weights_fetched")
        return fetch_weight_file(file, folder=folder, progress=report)


def verify_weights(*names: str | Path) -> list[Verdict]:
    """Reads weight files in full and compares their digests.

    Args:
        names: Architectures, whose published files are checked as far as they are here, and pinned
            if no digest of them is known; and paths of files, of any network, beside which nothing
            is written. Without any, all published files that are here.

    Returns:
        A verdict for each file.

    Raises:
        RecipeError: A name is neither an architecture nor an existing file.
        WeightsError: A path does not exist.
    """
    from tl_toolkit.transfer.weight_cache import verify_file

    verdicts: list[Verdict] = []
    for name in names or (None,):
        if name is not None and _is_path(name):
            owner = find_owner(Path(name).name)
            verdicts.append(verify_file(_check_path(name), None if owner is None else owner[1]))
            continue
        bases = [] if name is None else [find_architecture(str(name))]
        entries = [entry for entry in list_published(bases) if entry.state == "here"]
        paths = {entry.path: entry.file for entry in entries}  # two bases may share a file
        verdicts += [verify_file(path, file, pins=True) for path, file in paths.items()]
    return verdicts


def _is_path(name: str | Path) -> bool:
    return isinstance(name, Path) or "/" in name or "." in name or Path(name).is_file()


def _check_path(name: str | Path) -> Path:
    """Returns the path of a file that exists."""
    if not Path(name).is_file():
        inspect_weights(name)  # raises the error that says what it is
    return Path(name)


def import_weights(
    path: str | Path,
    base: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    image_size: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Copies a weight file to where `weights: imagenet` looks for it, after it is checked.

    Args:
        path: The file, fetched on another machine.
        base: Name of an architecture.
        arguments: As in `tl.pull_weights`.
        image_size: As in `tl.pull_weights`.
        overwrite: Replaces another file there, and its pin.

    Returns:
        Where it lies now.

    Raises:
        RecipeError: There is no such architecture or argument.
        WeightsError: It holds a whole model, does not fit, or is not the published file.
        OutputError: It cannot be written.
    """
    architecture, file = _find_file(base, arguments, image_size)
    from tl_toolkit.transfer.weight_cache import import_file

    return import_file(Path(path), architecture, file, overwrite=overwrite)


def _find_file(
    base: str, arguments: Mapping[str, Any] | None, image_size: int | None
) -> tuple[Architecture, WeightFile]:
    architecture = find_architecture(base)
    side = image_size or architecture.default_size
    file = find_weight_file(architecture, arguments or {}, (side, side))
    if file is None:
        raise WeightsError(describe_unpublished(architecture, arguments or {}))
    return architecture, file
