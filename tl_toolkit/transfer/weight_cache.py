"""Checks weight files that are here, and copies those of the user to where Keras keeps them."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tl_toolkit.catalog.keras_archive import is_keras_archive
from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.pins import find_digest, pin_file, remove_pin
from tl_toolkit.catalog.records import WeightFile
from tl_toolkit.catalog.weight_files import WeightsInfo, cache_path, inspect_weights
from tl_toolkit.catalog.weight_matching import describe_misfit, suggest_base
from tl_toolkit.errors import Problem, WeightsError
from tl_toolkit.runs.files import drafted, hash_file
from tl_toolkit.transfer.fetch import describe_difference, locked

__all__ = ["Verdict", "import_file", "verify_file"]


@dataclass(frozen=True)
class Verdict:
    """What became of a weight file since it was published, or first used.

    Attributes:
        path: The file.
        state: "published": it has the published digest. "pinned": it has that of its first use,
            which may be now. "readable": no digest of it is known.
            "changed": it has another digest. "damaged": no weights can be read from it.
        problem: What is wrong and what to do, for the last two.
    """

    path: Path
    state: Literal["published", "pinned", "readable", "changed", "damaged"]
    problem: Problem | None = None


def verify_file(path: Path, file: WeightFile | None, *, pins: bool = False) -> Verdict:
    """Reads all of a weight file and compares its digest.

    Args:
        path: The file, which exists.
        file: The record of a published file; None for one of the user's own.
        pins: Whether it is pinned if no digest is known.
    """
    digest = find_digest(file, path)
    if digest is not None and not digest.fits(path):
        if file is not None:
            return Verdict(path, "changed", describe_difference(file, path, digest))
        what, hint = "is not the file that its pin is of", f"if it is right, rm '{digest.pin}'"
        return Verdict(path, "changed", Problem(str(path), what, str(digest), hint))
    try:
        inspect_weights(path)
    except WeightsError as error:
        return Verdict(path, "damaged", error.problems[0])
    if digest is None and pins:
        digest = pin_file(path)
    if digest is None:
        return Verdict(path, "readable")
    return Verdict(path, "published" if digest.pin is None else "pinned")


def import_file(
    source: Path, architecture: Architecture, file: WeightFile, *, overwrite: bool = False
) -> Path:
    """Copies a file to the place of a published one, so that `weights: imagenet` takes it.

    Args:
        source: The file: plain weights, in the layout of the published ones.
        architecture: The base's record.
        file: The record of the published file that it is.
        overwrite: Replaces another file in that place, and its pin.

    Returns:
        Its place. The copy is written beside it, compared and renamed, under a lock.

    Raises:
        WeightsError: The file holds a whole model, is of another layout, does not fit the
            architecture, or is not the published one; or another file is in the place.
        OutputError: The copy cannot be written.
    """
    target = cache_path(file)
    info = inspect_weights(source)
    _check_layout(source, info)
    _check_fit(source, info, architecture, file)
    digest = find_digest(file, target)
    if digest is not None and not digest.fits(source) and not (overwrite and digest.pin):
        problem = describe_difference(file, source, digest)
        hint = f"model.weights={source}"
        if digest.pin is not None:
            hint = f"--overwrite, if this is the right file; or {hint}"
        raise WeightsError(replace(problem, hint=hint))
    with locked(target, file):
        digits = hash_file(source)
        if target.exists() and hash_file(target) != digits and not overwrite:
            what, hint = "is there, and is another file", f"--overwrite, or rm '{target}'"
            raise WeightsError(Problem(str(target), what, "", hint))
        with drafted(target) as draft:
            shutil.copyfile(source, draft)
            if hash_file(draft) != digits:
                raise WeightsError(Problem(str(source), "changed while it was copied"))
        if file.digest is None:
            remove_pin(target)
            pin_file(target)
    return target


def _check_layout(source: Path, info: WeightsInfo) -> None:
    if info.kind == "layers":
        return
    what = "holds weights in the layout of save_weights"
    if info.kind == "model" or is_keras_archive(source):
        what = "holds a whole model: its graph, which a reader would rebuild, and its weights"
    expected = (
        "Expected weights alone, in the layout of keras.applications, which reads that place too."
    )
    hint = f"model.weights={source}, which takes its weights from where it lies"
    raise WeightsError(Problem(str(source), what, expected, hint))


def _check_fit(
    source: Path, info: WeightsInfo, architecture: Architecture, file: WeightFile
) -> None:
    size = (file.image_size, file.image_size)
    misfit = describe_misfit(architecture, file.when, info, image_size=size)
    if misfit:
        hint = suggest_base(architecture, file.when, info)
        hint = hint.replace("model.base=", "--as ").replace("model.arguments.", "")
        raise WeightsError(Problem(str(source), misfit, "", hint))
