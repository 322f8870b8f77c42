"""The verb `check_data`: what is wrong with a set of images, without changing it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.api.progress import handling
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.events import Handler, report_counts
from tl_toolkit.plan.sets import ImageSet, list_folder, list_recipe, list_table
from tl_toolkit.recipe.load import RecipeSource, read_recipe
from tl_toolkit.recipe.overrides import Overrides

if TYPE_CHECKING:
    from tl_toolkit.audit.report import DataReport

__all__ = ["check_data"]


def check_data(
    source: RecipeSource,
    overrides: Overrides = (),
    *,
    progress: Handler | bool = False,
) -> DataReport:
    """Checks the images of a folder, a table or a recipe. Nothing is moved, changed or deleted.

    Finds files that cannot be read, copies and near copies within and across splits and classes,
    dark, blurred and odd images, and classes that are missing or small. What is measured of a file
    is kept by its content, so that a second look is instant.

    Args:
        source: A folder of class folders, in folders of splits or not, or of images without
            classes; a table (CSV) with the column path; or a recipe, as for `tl.finetune`.
        overrides: Fields of the recipe to replace.
        progress: As for `tl.finetune`; receives the number of images inspected.

    Returns:
        The report: `findings`, `tabulate()`, `as_json()`, `write_exclusions(path)`,
        `write_sheet(path)`.

    Raises:
        DataError: There is no such folder or table, or it holds no images.
        RecipeError: The recipe is wrong.
    """
    images = _list(source, overrides)
    from tl_toolkit.audit.check import build_report
    from tl_toolkit.audit.inspect import inspect_files

    with handling(progress) as handle:
        files = inspect_files(
            images.listing.files,
            images.labels,
            progress=report_counts(handle, "images_inspected"),
        )
    notes = [f"the recipe cannot use them yet: {problem}" for problem in images.problems]
    if excluded := images.listing.excluded.describe():
        notes.append(excluded)
    return build_report(images.listing, files, source=images.source, root=images.root, notes=notes)


def _list(source: RecipeSource, overrides: Overrides) -> ImageSet:
    """Lists a folder, a table or the images of a recipe."""
    if isinstance(source, str | os.PathLike):
        place = Path(source)
        if place.is_dir() or place.suffix.lower() == ".csv":
            if overrides:
                what = f"{str(place)!r} is no recipe, whose fields could be replaced"
                raise DataError(Problem("", what))
            return list_folder(place) if place.is_dir() else list_table(place)
    loaded = read_recipe(source, overrides)
    name = str(source) if isinstance(source, str | os.PathLike) else loaded.recipe.name
    return list_recipe(loaded.recipe, name)
