"""The images that `predict` and `export` work on, and the best classes of each prediction."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, OutputError, Problem
from tl_toolkit.events import Handler, message, warning
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.recipe.tree import show
from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.sources.addresses import find_source
from tl_toolkit.sources.listing import name_some, suffixes_of
from tl_toolkit.sources.members import INSIDE, holds_images, list_members, split_member
from tl_toolkit.sources.objects import ObjectPath, as_path, is_address, name_object
from tl_toolkit.sources.survey import list_images
from tl_toolkit.sources.table_rows import name_image

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Pillow

    from tl_toolkit.tasks.predictions import Table

__all__ = ["Image", "Inputs", "list_inputs", "read_parity_images", "tabulate_top"]

PARITY_IMAGES = 16
"""The most validation images that an export is compared on, spread over the classes."""

_OF_PATHS = "OUT"
"""Kinds of arrays that hold objects or text, not pixels."""

Image = Union[str, "os.PathLike[str]", "np.ndarray", "Pillow"]
"""A file, a folder of images, a Parquet or TFRecord file with images or one of them by its row, an
array (uint8 (h, w, 3), (h, w), (h, w, 1) or (n, h, w, 3)), or an image of Pillow."""


@dataclass
class Inputs:
    """The images of a call of `predict`.

    Attributes:
        files: The paths of all in order; those of arrays are their names.
        arrays: Pixels of the arrays, (h, w, channels).
        missing: Problems of paths that hold no image.
    """

    files: list[Path] = field(default_factory=list)
    arrays: dict[Path, np.ndarray] = field(default_factory=dict)
    missing: dict[Path, Problem] = field(default_factory=dict)


def list_inputs(
    paths: Image | Iterable[Image], out: Path | None, report: Handler, channels: int = RGB
) -> Inputs:
    """Lists the images to predict, without those in `out`, which holds predictions.

    Images that `paths` names are listed even there.

    Args:
        paths: As in `Run.predict`.
        out: The folder that receives predictions.
        report: Receives a message on images that are left out.
        channels: Channels of the images.

    Raises:
        DataError: No path holds an image, or an array has another type or shape.
        OutputError: `out` holds all images.
    """
    inputs = Inputs()
    left_out = 0
    lost: list[str] = []
    items = _as_items(paths)
    if not items:
        expected = "Expected files, folders or arrays, one at least."
        raise DataError(Problem("paths", f"holds nothing to predict: {show(paths)}", expected))
    for place, item in enumerate(items):
        if not isinstance(item, str | os.PathLike):
            _add_arrays(item, inputs, f"paths[{place}]", channels)
            continue
        path = _check_path(item, f"paths[{place}]")
        try:
            images = _extract(path, inputs.missing) or list_images(
                path, left_out=lost, suffixes=suffixes_of(channels)
            )
        except DataError as error:
            inputs.missing[path] = error.problems[0]
            images = [path]
        if out is not None and path.is_dir():
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


def _extract(path: Path, missing: dict[Path, Problem]) -> list[Path]:
    """Returns the images of a Parquet or TFRecord file, written into the cache; [] for others.

    A row without one is named as `shop.parquet#12`, and is one of the missing.
    """
    if isinstance(path, ObjectPath):
        file, row = split_member(str(path))
        if file:
            path = Path(f"{find_source(file, 'paths')}#{row}")
        elif holds_images(path.name):
            path = find_source(path, "paths")
    members = list_members(path)
    if not members:
        return []
    from tl_toolkit.images.members import EXTRACTED, extract_members

    files = extract_members(members, default_cache_dir() / EXTRACTED)
    if all(file.startswith(INSIDE) for file in files):
        name = name_object(str(path))
        hint = "" if is_address(name) else "a row that has one, as FILE#1"
        raise DataError(Problem(name, "holds no image", "", hint))
    images = []
    for file in files:
        image = Path(file)
        if file.startswith(INSIDE):
            name = name_image(file)
            image = ObjectPath(name) if is_address(name) else Path(name)
            missing[image] = Problem(str(image), "holds no image")
        images.append(image)
    return images


def _as_items(paths: Any) -> list[Any]:
    """Returns the single images of an iterable of them; an array of pixels is one item."""
    if isinstance(paths, str | os.PathLike | bytes | Mapping) or _is_pillow(paths):
        return [paths]
    if hasattr(paths, "__array__"):  # numpy's, and a Series of pandas
        import numpy as np

        values = np.asarray(paths)
        if values.dtype.kind not in _OF_PATHS:
            return [paths]
        if values.ndim > 1:
            what = f"has shape {values.shape}: a table, or a list of lists"
            hint = 'one column of it, as run.predict(table["path"])'
            raise DataError(Problem("paths", what, "Expected one path for each image.", hint))
        return list(values.reshape(-1).tolist())
    return list(paths) if isinstance(paths, Iterable) else [paths]


def _check_path(item: str | os.PathLike[str], where: str) -> Path:
    """Returns a path; an empty one would stand for the whole working directory."""
    path = _as_input(item)
    is_empty = not item.strip() if isinstance(item, str) else path == Path()
    if is_empty:
        expected = "An empty path is no image."
        if not isinstance(item, str):
            expected = 'Path("") and Path(".") are the same, so that neither is taken.'
        hint = 'run.predict(".") for all images below the working directory'
        raise DataError(Problem(where, f"= {item!r}", expected, hint))
    return path


def _as_input(item: str | os.PathLike[str]) -> Path:
    """Returns a path; in the address of a row, `s3://photos/shop.parquet#12`, a # is no secret."""
    file, row = split_member(os.fspath(item))
    path = as_path(file) if file else None
    return ObjectPath(f"{path}#{row}") if isinstance(path, ObjectPath) else as_path(item)


def _is_pillow(item: object) -> bool:
    module = sys.modules.get("PIL.Image")  # without it there is no such object
    return module is not None and isinstance(item, module.Image)


def _add_arrays(item: Any, inputs: Inputs, where: str, channels: int) -> None:
    """Adds the image of an array or of Pillow, or those of a batch."""
    import numpy as np

    if _is_pillow(item):
        from tl_toolkit.images.convert import read_pillow

        try:
            pixels = read_pillow(item, channels)
        except ValueError as error:
            hint = 'image.convert("RGB"), or the path of its file' if channels == RGB else ""
            what = f"an image of mode {item.mode!r} cannot be read: {error}"
            raise DataError(Problem(where, what, hint=hint)) from error
    else:
        try:
            pixels = np.asarray(item)
        except Exception:  # whatever the class of a tensor or a list raises
            pixels = np.empty(0, object)
        if channels == RGB:
            pixels = _as_rgb(pixels, item, where)
        else:
            pixels = _as_bands(pixels, item, where, channels)
    for image in pixels if pixels.ndim == 4 else [pixels]:
        name = Path(f"array[{len(inputs.arrays)}]")
        inputs.arrays[name] = image
        inputs.files.append(name)


def _as_rgb(pixels: np.ndarray, item: object, where: str) -> np.ndarray:
    """Returns pixels as uint8 (h, w, 3) or (n, h, w, 3); those of one channel are grey."""
    import numpy as np

    if pixels.ndim < 2 or pixels.dtype.kind not in "biuf":
        what = f"= {show(item)}, of type {type(item).__name__}"
        raise DataError(
            Problem(where, what, "Expected a path, an array of pixels or an image of Pillow.")
        )
    grey = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    if grey.dtype == np.uint8 and grey.ndim in (3, 4) and grey.size and grey.shape[-1] in (1, 3):
        return np.repeat(grey, 3, axis=-1) if grey.shape[-1] == 1 else grey
    raise DataError(
        Problem(
            where,
            f"has dtype {pixels.dtype} and shape {pixels.shape}",
            "Expected uint8 (h, w, 3), RGB in 0..255, grey (h, w) or (h, w, 1), or a batch "
            "(n, h, w, 3).",
            _describe_change(grey),
        )
    )


def _as_bands(pixels: np.ndarray, item: object, where: str, channels: int) -> np.ndarray:
    """Returns pixels as float32 (h, w, channels) or (n, h, w, channels)."""
    import numpy as np

    bands = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    is_numeric = pixels.dtype.kind in "biuf" and bands.ndim in (3, 4) and bands.size > 0
    if is_numeric and bands.shape[-1] == channels and np.isfinite(bands).all():
        return bands.astype(np.float32)
    what = f"= {show(item)}, of type {type(item).__name__}"
    if is_numeric:
        what = f"has dtype {pixels.dtype} and shape {pixels.shape}"
    expected = (
        f"Expected (h, w, {channels}) or a batch (n, h, w, {channels}) of finite numbers, those of "
        "the files."
    )
    raise DataError(Problem(where, what, expected))


def _describe_change(pixels: np.ndarray) -> str:
    """Returns the expression that makes an image of an array, or ""."""
    import numpy as np

    words = "array"
    if not pixels.size or pixels.ndim not in (3, 4):
        return ""
    if pixels.shape[-1] not in (1, 3, 4):
        if pixels.shape[-3] in (1, 3, 4):
            last = (1, 2, 0) if pixels.ndim == 3 else (0, 2, 3, 1)
            words = f"array.transpose{last}"
        elif pixels.ndim == 3:
            words = "array[..., None]"
        else:
            return ""
    elif pixels.shape[-1] == 4:
        words = "array[..., :3]"
    low, high = np.nanmin(pixels), np.nanmax(pixels)
    if pixels.dtype == np.uint8:
        return words
    if pixels.dtype.kind == "b" or (pixels.dtype.kind == "f" and 0 <= low and high <= 1):
        return f"({words} * 255).astype('uint8')"
    if pixels.dtype == np.uint16 and high > 255:
        return f"({words} >> 8).astype('uint8')"
    return f"{words}.astype('uint8')" if 0 <= low and high <= 255 else ""


def _is_same(folder: Path, out: Path) -> bool:
    return out.exists() and folder.samefile(out)


def read_parity_images(
    manifest: Manifest, report: Handler, channels: int = RGB
) -> dict[str, bytes]:
    """Returns validation images, spread over the classes: those that are still as they were.

    Where folds took turns at validation, all training images were validation images once.

    Args:
        manifest: The run's images.
        report: Receives a warning if some have moved or changed.
        channels: Channels of the images.
    """
    from tl_toolkit.images.pipeline import read_encoded

    examples = manifest.of("validation") or manifest.of("train")
    count = min(PARITY_IMAGES, len(examples))
    files = {}
    reasons = []
    # The manifest is ordered by class, so that equal steps go through all of them.
    for example in (examples[index * len(examples) // count] for index in range(count)):
        try:
            files[example.path] = read_encoded(example, channels)
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
    from tl_toolkit.tasks.predictions import Table

    columns = ["path" if wide else "file"]
    for place in range(1, count + 1):
        names = ("label_", "probability_") if wide else ("class ", "probability ")
        columns += [f"{name}{place}" for name in names]
    rows = []
    for record in records:
        best = sorted(record["probabilities"].items(), key=lambda item: -item[1])[:count]
        cells = [record["path"], *(cell for pair in best for cell in pair)]
        rows.append([*cells, *[None] * (len(columns) - len(cells))])  # blank where it was refused
    return Table(columns, rows)
