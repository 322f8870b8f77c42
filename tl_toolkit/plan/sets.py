"""Sets of images as they lie, of a recipe, a folder or a table; what is wrong stays listed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.plan.network import resolve_head
from tl_toolkit.plan.resizing import choose_channels
from tl_toolkit.plan.starter_lines import SPLIT_NAMES, find_splits
from tl_toolkit.plan.tasks import naming_addresses, plan_task
from tl_toolkit.recipe.remote import name_object
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.sources.builtin import BUILTIN
from tl_toolkit.sources.class_folders import prefers_folders
from tl_toolkit.sources.folders import list_below, read_folders
from tl_toolkit.sources.image_folders import find_metadata
from tl_toolkit.sources.listing import Ignored, Links, Listing, SourceFile, suffixes_of
from tl_toolkit.sources.objects import common_folder, name_listed
from tl_toolkit.sources.remote import list_remote
from tl_toolkit.sources.table_rows import name_image
from tl_toolkit.sources.tables import is_table, read_header, read_table

__all__ = ["ImageSet", "is_listed", "list_folder", "list_recipe", "list_table"]

_LABEL = "label"
_FOLLOW_FIELD = "data.links=follow"
_PAIRS = {"images", "masks"}


@dataclass(frozen=True)
class ImageSet:
    """A set of images as it lies.

    Attributes:
        source: The folder, table or recipe, as it was named.
        root: The folder that all images are below.
        listing: The images; its `stratify` is "" where they have no classes.
        problems: What keeps a recipe from using them, if it is one.
        channels: Channels that they are read with.
        note: Why they are read with others than 3, where no recipe says so.
    """

    source: str
    root: str
    listing: Listing
    problems: Sequence[Problem] = ()
    channels: int = RGB
    note: str = ""

    @property
    def labels(self) -> list[str]:
        """The class of each image, "" where there are none."""
        if not self.listing.stratify:
            return [""] * len(self.listing.files)
        place = self.listing.columns.index(self.listing.stratify)
        return [file.targets[place] for file in self.listing.files]


def list_recipe(recipe: Recipe, source: str) -> ImageSet:
    """Lists the images of a recipe, also where something keeps it from using them.

    Args:
        recipe: The recipe.
        source: Its name in the report.

    Raises:
        DataError: A store that holds some of them cannot be read.
    """
    list_remote(recipe.data.sources)
    survey = plan_task(resolve_head(recipe)).survey()
    listing = survey.list_files()
    root = _find_root([file.path for file in listing.files])
    problems = [problem for _, problem in survey.problems]
    return ImageSet(source, root, listing, problems, recipe.data.channels)


def is_listed(source: Path, label: str = _LABEL) -> bool:
    """Returns whether a table names the images and their classes, and not folders.

    A folder per class may hold a table of something else.

    Args:
        source: A folder or a file.
        label: The column that names the class of each image.
    """
    if not source.is_dir():
        return is_table(source)
    if not is_table(source) or prefers_folders(source, label):
        return False
    # Without a label a folder of images is one all the same; one of Parquet files has no images.
    return not find_metadata(source) or label in read_header(source, expected="")[0]


@naming_addresses()
def list_folder(folder: Path, *, links: Links = "refuse") -> ImageSet:
    """Lists a folder per class, folders of splits with these, or all images of a folder.

    Of a folder with the folders images and masks, the images are listed. Arrays are images where
    most of the files are arrays or TIFF files of bands.

    Args:
        folder: The folder.
        links: As in `read_folders`; what is behind links is named as not listed.

    Raises:
        DataError: It cannot be read.
    """
    try:
        splits = find_splits(folder)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise DataError(Problem(str(folder), what)) from error
    channels, note = _find_channels(folder)
    suffixes = suffixes_of(channels)
    files: list[SourceFile] = []
    ignored: list[Ignored] = []
    classes: set[str] = set()
    for name, place in splits.items():
        split = name if len(splits) > 1 or place != folder else None
        contents, problems = read_folders(place, name, str(place), links=links, suffixes=suffixes)
        if problems:
            raise DataError([problem for _, problem in problems])
        if contents.classes and not contents.classes.keys() >= _PAIRS:
            classes |= contents.classes.keys()
            files += [
                SourceFile(path, split, (label,))
                for label, paths in sorted(contents.classes.items())
                for path in paths
            ]
            ignored += contents.ignored
            continue
        images = place / "images" if contents.classes else place
        below = os.path.abspath(images)
        paths = list_below(below, links=links, ignored=ignored, suffixes=suffixes)
        files += [SourceFile(path, split, ("",)) for path in paths]
    if not files and not ignored:
        names = ", ".join(name for names in SPLIT_NAMES.values() for name in names[:1])
        expected = f"A folder per class is expected, in folders {names} or not."
        raise DataError(Problem(str(folder), "holds no images", expected))
    listing = Listing(
        tuple(sorted(classes)), tuple(files), ignored=tuple(ignored),
        stratify=_LABEL if classes else "",
    )  # fmt: skip
    root = name_object(os.path.abspath(folder))
    source = name_object(str(folder))
    return ImageSet(source, root, name_listed(listing), channels=channels, note=note)


@naming_addresses()
def list_table(
    table: Path, *, group: str = "", label: str = _LABEL, links: Links = "refuse"
) -> ImageSet:
    """Lists the images of a table, with their classes if it has a column for them.

    Args:
        table: The table, with a column path.
        group: The column that names the group of each image; "" for none.
        label: The column that names the class of each.
        links: Whether its images may lie outside its folder: with "follow" alone.

    Raises:
        DataError: It cannot be read, or some of its rows are wrong.
    """
    header, problems = read_header(table, expected="A table with the column path is expected")
    columns = (label,) if label in header else ()
    files: Sequence[SourceFile] = ()
    if not problems:
        files, faults = read_table(table, columns, group=group, links=links)
        problems = [
            replace(problem, hint=problem.hint.replace(_FOLLOW_FIELD, "--follow-links"))
            for _, problem in faults
        ]
    if problems:
        raise DataError(problems)
    classes = tuple(sorted({file.targets[0] for file in files})) if columns else ()
    listing = Listing(
        classes, tuple(files), columns=columns, stratify=columns[0] if columns else ""
    )
    channels, note = _find_channels(table)
    root = _find_root([file.path for file in files])
    return ImageSet(name_object(str(table)), root, listing, channels=channels, note=note)


def _find_channels(source: Path) -> tuple[int, str]:
    """Returns the channels of a folder's or a table's images, and a sentence if they are no RGB."""
    found = choose_channels(source)
    return (RGB, "") if found is None else (found[0], f"data.channels={found[0]}, as {found[1]}")


def _find_root(paths: Sequence[str]) -> str:
    """Returns the folder that all files are below."""
    files = (name_image(path) for path in paths if not path.startswith(BUILTIN))
    return common_folder(files)
