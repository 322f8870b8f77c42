"""The images that `predict` and `export` work on, and the best classes of each prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from tl_toolkit.errors import DataError, OutputError, Problem
from tl_toolkit.events import Handler, message, warning
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.sources.listing import name_some
from tl_toolkit.sources.survey import list_images

if TYPE_CHECKING:
    import numpy as np

    from tl_toolkit.tasks.types import Table

__all__ = ["Image", "Inputs", "list_inputs", "read_parity_images", "tabulate_top"]

PARITY_IMAGES = 16
"""The most validation images that an export is compared on, spread over the classes."""

Image = Union[str, Path, "np.ndarray"]
"""A file, a folder of images, or an array: uint8 (h, w, 3), (h, w) or (n, h, w, 3)."""


@dataclass
class Inputs:
    """The images of a call of `predict`.

    Attributes:
        files: The paths of all in order; those of arrays are their names.
        arrays: Pixels of the arrays, uint8 (h, w, 3).
        missing: Problems of paths that hold no image.
    """

    files: list[Path] = field(default_factory=list)
    arrays: dict[Path, np.ndarray] = field(default_factory=dict)
    missing: dict[Path, Problem] = field(default_factory=dict)


def list_inputs(paths: Image | Sequence[Image], out: Path | None, report: Handler) -> Inputs:
    """Lists the images to predict, without those in `out`, which holds predictions.

    Images that `paths` names are listed even there.

    Args:
        paths: As in `Run.predict`.
        out: The folder that receives predictions.
        report: Receives a message on images that are left out.

    Raises:
        DataError: No path holds an image, or an array has another type or shape.
        OutputError: `out` holds all images.
    """
    # An array has no truth value and may be a batch; Sequence is no base class of arrays.
    several = paths if isinstance(paths, Sequence) and not isinstance(paths, str) else [paths]
    inputs = Inputs()
    left_out = 0
    lost: list[str] = []
    for item in several:
        if not isinstance(item, str | Path):
            _add_arrays(item, inputs)
            continue
        try:
            images = list_images(item, left_out=lost)
        except DataError as error:
            inputs.missing[Path(item)] = error.problems[0]
            images = [Path(item)]
        if out is not None and Path(item).is_dir():
            outside = [image for image in images if not _is_same(image.parent, out)]
            left_out += len(images) - len(outside)
            images = outside
        inputs.files += images
    if lost:
        report(warning(f"left out: {name_some(lost)}. Try: predict what they lead to, by its path"))
    if inputs.files and len(inputs.missing) == len(set(inputs.files)):
        raise DataError(list(inputs.missing.values()))
    if left_out and not inputs.files:
        what = f"receives the predictions, so that the {left_out} images in it are left out"
        raise OutputError(Problem(f"--out {out}", what, "", "--out DIR with another folder"))
    if left_out:
        report(message(f"left out: {left_out} images in {out}, which receives the predictions"))
    return inputs


def _add_arrays(array: Any, inputs: Inputs) -> None:
    """Adds the image of an array, or those of a batch."""
    import numpy as np

    pixels = np.asarray(array)
    if pixels.dtype == np.uint8 and pixels.ndim == 2:
        pixels = np.repeat(pixels[..., np.newaxis], 3, axis=-1)
    is_image = pixels.ndim in (3, 4) and pixels.shape[-1] == 3 and pixels.size > 0
    if pixels.dtype != np.uint8 or not is_image:
        raise DataError(
            Problem(
                f"array[{len(inputs.arrays)}]",
                f"has dtype {pixels.dtype} and shape {pixels.shape}",
                "expected uint8 (h, w, 3), RGB in 0..255, grey (h, w) or a batch (n, h, w, 3).",
            )
        )
    for image in pixels if pixels.ndim == 4 else [pixels]:
        name = Path(f"array[{len(inputs.arrays)}]")
        inputs.arrays[name] = image
        inputs.files.append(name)


def _is_same(folder: Path, out: Path) -> bool:
    return out.exists() and folder.samefile(out)


def read_parity_images(manifest: Manifest, report: Handler) -> dict[str, bytes]:
    """Returns validation images, spread over the classes: those that are still as they were.

    Args:
        manifest: The run's images.
        report: Receives a warning if some have moved or changed.
    """
    from tl_toolkit.images.pipeline import read_encoded

    examples = manifest.of("validation")
    count = min(PARITY_IMAGES, len(examples))
    files = {}
    reasons = []
    # The manifest is ordered by class, so that equal steps go through all of them.
    for example in (examples[index * len(examples) // count] for index in range(count)):
        try:
            files[example.path] = read_encoded(example)
        except DataError as error:
            reasons.append(f"{example.path} {error.problems[0].what}")
    if reasons:
        on = f"the other {len(files)}" if files else "probe images that the package renders"
        report(
            warning(
                f"{len(reasons)} of {count} validation images cannot be compared on "
                f"({reasons[0]}): the export is compared on {on}"
            )
        )
    return files


def tabulate_top(records: Sequence[Mapping[str, Any]], count: int, *, wide: bool) -> Table:
    """Returns the most probable classes of each prediction, the best first.

    Args:
        records: Predictions with `probabilities` by class.
        count: How many classes, at most all.
        wide: Whether it is for CSV.
    """
    from tl_toolkit.tasks.types import Table

    columns = ["path" if wide else "file"]
    for place in range(1, count + 1):
        columns += [f"label_{place}", f"probability_{place}"] if wide else [f"class {place}", ""]
    rows = []
    for record in records:
        best = sorted(record["probabilities"].items(), key=lambda item: -item[1])[:count]
        rows.append([record["path"], *(cell for pair in best for cell in pair)])
    return Table(columns, rows)
