"""Where the images of a recipe are: listed from folders, a table or a built-in set, not opened.

Nothing here imports NumPy or TensorFlow: `tltool validate` lists a recipe's files in milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.sources.builtin import BUILTIN, describe_builtin, list_labels
from tl_toolkit.sources.folders import (
    check_classes,
    check_distinct,
    check_training,
    describe_unreadable,
    list_below,
    read_folders,
)
from tl_toolkit.sources.listing import (
    IMAGE_SUFFIXES,
    SPLITS,
    Found,
    Listing,
    SourceFile,
    find_fractions,
    name_some,
)
from tl_toolkit.sources.pairs import list_pairs
from tl_toolkit.sources.tables import check_table, read_table

if TYPE_CHECKING:
    from tl_toolkit.recipe.pixel_schema import Masks
    from tl_toolkit.recipe.schema import Data

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "Listing",
    "SourceFile",
    "check_sources",
    "count_sources",
    "list_folder",
    "list_folder_with_masks",
    "list_images",
    "list_sources",
]


def list_sources(data: Data) -> Listing:
    """Lists the images of a recipe's `data` section.

    Raises:
        DataError: With everything that `check_sources` finds.
    """
    listing, found = _survey(data)
    if found:
        raise DataError([problem for _, problem in found])
    return listing


def check_sources(data: Data) -> list[Found]:
    """Returns what is wrong by the names of folders and files, or by the table.

    Returns:
        Pairs of a field of the `data` section, as "train", and the problem; none if all is well.
    """
    return _check_builtin(data) if data.builtin is not None else _survey(data)[1]


def count_sources(data: Data) -> dict[str | None, dict[str, int]]:
    """Returns images per class in each split, as `Listing.count`; loads no built-in set.

    Raises:
        DataError: As `list_sources`.
    """
    if data.builtin is None:
        return list_sources(data).count()
    found = _check_builtin(data)
    if found:
        raise DataError([problem for _, problem in found])
    counts = describe_builtin(data.builtin).counts
    return {None: {name: counts[name] for name in data.classes or counts}}


def list_folder(
    folder: str | os.PathLike[str], *, classes: Sequence[str], where: str = "--data"
) -> Listing:
    """Lists a folder of class folders for evaluation, all in the split "test".

    Args:
        folder: Holds one folder per class, for some of the classes at least.
        classes: The classes there may be, in the order of the model's outputs.
        where: What messages call the folder.

    Raises:
        DataError: The folder is missing, or its classes are other ones.
    """
    found, problems = read_folders(Path(folder), "test", where)
    problems = problems or check_classes(found, classes, partial=True)
    if problems:
        raise DataError([problem for _, problem in problems])
    files = tuple(found.select(classes, "test"))
    return Listing(tuple(classes), files, ignored=tuple(found.ignored))


def list_folder_with_masks(folder: Path, masks: Masks, *, where: str = "--data") -> Listing:
    """Lists a folder of images and masks for evaluation, all in the split "test".

    Raises:
        DataError: Folders, images or masks are missing.
    """
    files, problems = list_pairs(folder, "test", masks, where=where)
    if problems:
        raise DataError([problem for _, problem in problems])
    return Listing((), tuple(files))


def _survey(data: Data) -> tuple[Listing, list[Found]]:
    if data.builtin is not None:
        return _survey_builtin(data)
    if data.csv is not None:
        return _survey_table(data, data.csv)
    if data.masks is not None:
        return _survey_pairs(data, data.masks)
    return _survey_folders(data)


def _fractions_of(data: Data) -> dict[str, object]:
    return {"validation": data.validation, "test": data.test}


def _survey_pairs(data: Data, masks: Masks) -> tuple[Listing, list[Found]]:
    values = {"train": data.train, "validation": data.validation, "test": data.test}
    folders = {field: value for field, value in values.items() if isinstance(value, Path)}
    problems = list(check_distinct(folders))
    listed: list[SourceFile] = []
    for field, folder in folders.items():
        found, wrong = list_pairs(folder, field, masks, where=f"data.{field}")
        listed += found
        problems += wrong
    files, fractions = find_fractions(listed, _fractions_of(data))
    return Listing(data.classes or (), files, fractions), problems


def _survey_folders(data: Data) -> tuple[Listing, list[Found]]:
    values = {"train": data.train, "validation": data.validation, "test": data.test}
    folders = {field: value for field, value in values.items() if isinstance(value, Path)}
    problems = list(check_distinct(folders))
    readable = {}
    for field, folder in folders.items():
        found, unreadable = read_folders(folder, field, f"data.{field}")
        problems += unreadable
        if not unreadable:
            readable[field] = found
    if "train" not in readable:
        return Listing(data.classes or (), ()), problems
    selected = data.classes is not None
    classes = data.classes or tuple(sorted(readable["train"].classes))
    wrong = check_training(readable["train"], classes, selected=selected)
    for field in readable if not wrong else ():
        if field != "train":
            wrong += check_classes(readable[field], classes, selected=selected)
    listed = [file for field in readable for file in readable[field].select(classes, field)]
    files, fractions = find_fractions(listed, _fractions_of(data))
    ignored = tuple(entry for found in readable.values() for entry in found.ignored)
    return Listing(classes, files, fractions, ignored), problems + wrong


def _survey_table(data: Data, path: Path) -> tuple[Listing, list[Found]]:
    listed, problems = read_table(path)
    labels = tuple(sorted({file.label for file in listed if file.label}))
    classes = data.classes or labels
    chosen = [file for file in listed if file.label in set(classes)]
    files, fractions = find_fractions(chosen, _fractions_of(data))
    listing = Listing(classes, files, fractions)
    if not problems:
        problems = list(check_table(listing, path, labels))
    return listing, problems


def _check_builtin(data: Data) -> list[Found]:
    known = tuple(describe_builtin(data.builtin).counts)
    missing = [name for name in data.classes or () if name not in known]
    if not missing:
        return []
    what = f"{data.builtin} has no class {name_some(map(repr, missing))}"
    return [("classes", Problem("data.classes", what, f"Its classes: {name_some(known)}."))]


def _survey_builtin(data: Data) -> tuple[Listing, list[Found]]:
    classes = data.classes or tuple(describe_builtin(data.builtin).counts)
    problems = _check_builtin(data)
    if problems:
        return Listing(classes, ()), problems
    wanted = set(classes)
    listed = [
        SourceFile(f"{BUILTIN}{data.builtin}/{index}", label, None)
        for index, label in enumerate(list_labels(data.builtin))
        if label in wanted
    ]
    files, fractions = find_fractions(listed, _fractions_of(data))
    return Listing(classes, files, fractions), problems


def list_images(path: str | os.PathLike[str]) -> list[Path]:
    """Lists what a person names for prediction: a file itself, or the images below a folder.

    Raises:
        DataError: There is no such file or folder, or no image in it.
    """
    place = Path(path)
    if not place.is_dir():
        if not place.exists():
            expected = "An image or a folder of images is needed"
            raise DataError(describe_unreadable(place, "", expected, FileNotFoundError()))
        return [place]
    found = [Path(file) for file in list_below(str(place))]
    if not found:
        raise DataError(Problem(str(path), "holds no images"))
    return found
