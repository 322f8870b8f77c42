"""Images and their classes: listed from folders, a table or a built-in set, not opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.sources.builtin import BUILTIN, describe_builtin, list_labels
from tl_toolkit.sources.folder_checks import (
    check_classes,
    check_distinct,
    check_training,
    check_unused,
)
from tl_toolkit.sources.folders import describe_unreadable, list_below, read_folders
from tl_toolkit.sources.listing import (
    IMAGE_SUFFIXES,
    SPLITS,
    Depth,
    FieldProblem,
    Ignored,
    Links,
    Listing,
    SourceFile,
    find_fractions,
    is_lost,
    name_some,
)
from tl_toolkit.sources.objects import ObjectPath, as_path, list_object_images
from tl_toolkit.sources.table_checks import check_classes_of_table
from tl_toolkit.sources.tables import read_table

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "Listing",
    "SourceFile",
    "Splits",
    "check_builtin",
    "count_builtin",
    "list_builtin",
    "list_class_folders",
    "list_images",
    "list_class_table",
    "survey_folders",
]


@dataclass(frozen=True)
class Splits:
    """Where the images of each split come from.

    Attributes:
        train: Folder of training images; None where a table or a built-in set holds them.
        validation: A folder, or a fraction of the images without a split.
        test: A folder or a fraction; None for no test images.
        links: What to do about links in folders, as in `read_folders`.
        group: The column of a table that names the group of each image; "" for none.
        suffixes: Endings of the images' names in folders.
        class_folders: Which folders are classes, as in `read_folders`.
        names: Columns that a table calls otherwise, as in `read_header`.
    """

    train: Path | None = None
    validation: Path | float | None = None
    test: Path | float | None = None
    links: Links = "refuse"
    group: str = ""
    suffixes: Set[str] = IMAGE_SUFFIXES
    class_folders: Depth = "top"
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def folders(self) -> dict[str, Path]:
        """The splits that have folders of their own."""
        values = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: value for name, value in values.items() if isinstance(value, Path)}

    @property
    def fractions(self) -> dict[str, object]:
        """The fields of the splits that fractions may be sampled for."""
        return {"validation": self.validation, "test": self.test}


def survey_folders(
    splits: Splits, classes: Sequence[str] | None = None
) -> tuple[Listing, list[FieldProblem]]:
    """Lists a folder per class, and returns problems with the names of folders and files.

    Args:
        splits: The folders and fractions of the splits.
        classes: The classes to use, in the order of the outputs; all, by name, by default.

    Returns:
        The listing, and pairs of a field of the `data` section, as "train", and its problem.
    """
    problems = list(check_distinct(splits.folders))
    readable = {}
    for name, folder in splits.folders.items():
        contents, unreadable = read_folders(
            folder,
            name,
            f"data.{name}",
            links=splits.links,
            suffixes=splits.suffixes,
            class_folders=splits.class_folders,
        )
        problems += unreadable
        if not unreadable:
            readable[name] = contents
    if "train" not in readable:
        return Listing(tuple(classes or ()), ()), problems
    chosen = tuple(classes or sorted(readable["train"].classes))
    selected = classes is not None
    faults = [fault for name in readable for fault in check_unused(readable[name], classes)]
    faults = faults or check_training(readable["train"], chosen, selected=selected)
    for name in readable if not faults else ():
        if name != "train":
            faults += check_classes(readable[name], chosen, selected=selected)
    listed = [file for name in readable for file in readable[name].select(chosen, name)]
    files, fractions = find_fractions(listed, splits.fractions)
    ignored = tuple(entry for contents in readable.values() for entry in contents.ignored)
    return Listing(chosen, files, fractions, ignored), problems + faults


def list_class_table(
    path: Path, splits: Splits, classes: Sequence[str] | None = None
) -> tuple[Listing, list[FieldProblem]]:
    """Lists a table with the columns path and label, and returns its problems.

    Args:
        path: The table.
        splits: Fractions for rows without a split.
        classes: As in `survey_folders`.
    """
    listed, problems = read_table(path, group=splits.group, links=splits.links, names=splits.names)
    labels = tuple(sorted({file.targets[0] for file in listed if file.targets[0]}))
    chosen = tuple(classes or labels)
    used = set(chosen)
    files, fractions = find_fractions(
        [file for file in listed if file.targets[0] in used], splits.fractions
    )
    listing = Listing(chosen, files, fractions)
    if not problems:
        problems = list(check_classes_of_table(listing, path, labels))
    return listing, problems


def list_class_folders(
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    where: str = "--data",
    links: Links = "refuse",
    suffixes: Set[str] = IMAGE_SUFFIXES,
    class_folders: Depth = "top",
) -> Listing:
    """Lists a folder of class folders for evaluation, all in the split "test".

    Args:
        folder: Holds one folder per class, for some of the classes at least.
        classes: The classes there may be, in the order of the model's outputs.
        where: Name of the folder in messages.
        links: As in `read_folders`.
        suffixes: As in `read_folders`.
        class_folders: As in `read_folders`.

    Raises:
        DataError: The folder is missing, or it holds other classes.
    """
    contents, problems = read_folders(
        Path(folder), "test", where, links=links, suffixes=suffixes, class_folders=class_folders
    )
    problems = problems or check_unused(contents, None)
    problems = problems or check_classes(contents, classes, partial=True)
    if problems:
        raise DataError([problem for _, problem in problems])
    files = tuple(contents.select(classes, "test"))
    return Listing(tuple(classes), files, ignored=tuple(contents.ignored))


def check_builtin(name: str, classes: Sequence[str] | None) -> list[FieldProblem]:
    """Returns problems of the classes chosen of a built-in set, without loading it.

    Args:
        name: Name of the set.
        classes: The classes to use; None for all.
    """
    known = tuple(describe_builtin(name).counts)
    missing = [label for label in classes or () if label not in known]
    if not missing:
        return []
    what = f"{name} has no class {name_some(map(repr, missing))}"
    return [("classes", Problem("data.classes", what, f"Its classes: {name_some(known)}."))]


def count_builtin(name: str, classes: Sequence[str] | None) -> Mapping[str, int]:
    """Returns the images of each class of a built-in set, without loading it.

    Args:
        name: Name of the set.
        classes: The classes to use, all of the set; None for all.
    """
    counts = describe_builtin(name).counts
    return {label: counts[label] for label in classes or counts}


def list_builtin(name: str, splits: Splits, classes: Sequence[str] | None) -> Listing:
    """Lists the images of a built-in set, which loads it.

    Args:
        name: Name of the set.
        splits: Fractions of the splits.
        classes: As in `count_builtin`.
    """
    chosen = tuple(count_builtin(name, classes))
    used = set(chosen)
    listed = [
        SourceFile(f"{BUILTIN}{name}/{index}", None, (label,))
        for index, label in enumerate(list_labels(name))
        if label in used
    ]
    files, fractions = find_fractions(listed, splits.fractions)
    return Listing(chosen, files, fractions)


def list_images(
    path: str | os.PathLike[str],
    *,
    left_out: list[str] | None = None,
    suffixes: Set[str] = IMAGE_SUFFIXES,
) -> list[Path]:
    """Lists the images to predict: a file itself, or the images below a folder.

    Args:
        path: The file or folder.
        left_out: Receives the folders and links below it that are not followed or cannot be read.
        suffixes: Endings of the images' names.

    Raises:
        DataError: There is no such file or folder, or no image in it.
    """
    place = as_path(path)
    if isinstance(place, ObjectPath):
        return list_object_images(place, suffixes)
    if not place.is_dir():
        if not place.exists():
            expected = "An image or a folder of images is needed"
            raise DataError(describe_unreadable(place, "", expected, FileNotFoundError()))
        return [place]
    ignored: list[Ignored] = []
    images = [Path(file) for file in list_below(str(place), ignored=ignored, suffixes=suffixes)]
    paths = [f"{entry.path} ({entry.reason})" for entry in ignored if is_lost(entry)]
    if not images:
        links = f" but {name_some(paths)}" if paths else ""
        hint = "the folders or files that the links lead to" if paths else ""
        raise DataError(Problem(str(path), f"holds no images{links}", hint=hint))
    if left_out is not None:
        left_out += paths
    return images
