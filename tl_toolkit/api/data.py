"""The verb `check_data`: what is wrong with a set of images, without changing it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tl_toolkit.api.doubts import Doubts, doubt_images, write_recipe_of
from tl_toolkit.api.progress import handling
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import Handler, report_counts
from tl_toolkit.plan.sets import ImageSet, is_listed, list_folder, list_recipe, list_table
from tl_toolkit.recipe.load import RecipeSource, read_recipe
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.sources.addresses import find_source
from tl_toolkit.sources.listing import Links
from tl_toolkit.sources.tables import field_of_table

if TYPE_CHECKING:
    from tl_toolkit.audit.report import DataReport

__all__ = ["check_data"]

_NO_BASE = (
    "labels and outliers are not checked, which takes a base: --base mobilenet --weights imagenet"
)

_OF_BANDS = (
    "of arrays and bands sizes, copies of equal bytes, labels and classes are checked: near "
    "copies, light and blur are of photos alone"
)


def check_data(
    source: RecipeSource,
    overrides: Overrides = (),
    *,
    base: str | None = None,
    weights: str = "imagenet",
    features: bool = True,
    follow_links: bool = False,
    progress: Handler | bool = False,
) -> DataReport:
    """Checks the images of a folder, a table or a recipe. Nothing is moved, changed or deleted.

    Finds files that cannot be read, copies and near copies within and across splits and classes,
    dark, blurred and odd images, and classes that are missing or small. Arrays, and images of other
    channels than RGB, are looked at for their sizes, copies of equal bytes, labels and classes.
    What is measured of a file is kept by its content, so that a second look is instant. The base of
    a recipe, or `base`, also finds labels that are likely wrong and outliers, by features from the
    store.

    Args:
        source: A folder of class folders, in folders of splits or not, or of images without
            classes; a table with the column path, or an image folder of Hugging Face; or the
            address of one on an object store; or a recipe, as for `tl.finetune`.
        overrides: Fields of the recipe to replace; with `base` also for a folder or table, as
            `{"model.arguments": {"alpha": 0.25}}`.
        base: Name of an architecture that finds doubtful labels in a folder or table.
        weights: Its weights: "imagenet", which are fetched if they are not here, or a file.
        features: Use the base of a recipe, where its weights are on this machine.
        follow_links: In a folder, use linked folders, and linked files outside it; else they are
            named as not listed. A recipe has `data.links`.
        progress: As for `tl.finetune`; receives the number of images inspected.

    Returns:
        The report: `findings`, `tabulate()`, `as_json()`, `write_exclusions(path)`,
        `write_sheet(path)`.

    Raises:
        DataError: There is no such folder or table, or it holds no images.
        RecipeError: The recipe is wrong, or there is no such architecture.
    """
    links: Links = "follow" if follow_links else "refuse"
    images, recipe = _list(source, overrides, base, weights, links)
    from tl_toolkit.audit.check import build_report
    from tl_toolkit.audit.inspect import inspect_files
    from tl_toolkit.audit.near_leaks import pair_files, remember_pairs

    with handling(progress) as handle:
        files = inspect_files(
            images.listing.files,
            images.labels,
            channels=images.channels,
            progress=report_counts(handle, "images_inspected"),
        )
        doubts = Doubts(note=_NO_BASE if recipe is None else "")
        if recipe is not None and features:
            doubts = doubt_images(recipe, images, files, handle, may_fetch=base is not None)
    pairs = pair_files(files)
    remember_pairs(files, pairs)
    notes = [f"the recipe cannot use them yet: {problem}" for problem in images.problems]
    bands = _OF_BANDS if any(file.content.bands for file in files) else ""
    notes += filter(None, [images.note, bands, images.listing.excluded.describe(), doubts.note])
    return build_report(
        images.listing, files, source=images.source, root=images.root, pairs=pairs,
        more=doubts.findings, notes=notes,
    )  # fmt: skip


def _list(
    source: RecipeSource, overrides: Overrides, base: str | None, weights: str, links: Links
) -> tuple[ImageSet, Recipe | None]:
    """Lists a folder, a table or the images of a recipe, and the recipe that names the base."""
    if isinstance(source, str | os.PathLike):
        place = find_source(source, "SOURCE")
        is_other = field_of_table(place) == "table" and is_listed(place)
        if is_other or place.is_dir() or place.suffix.lower() == ".csv":
            if overrides and base is None:
                what = f"{str(place)!r} is no recipe, whose fields could be replaced"
                raise RecipeError(Problem("", what, "", "--base NAME, whose fields they replace"))
            list_place = list_folder if place.is_dir() and not is_other else list_table
            images = list_place(place, links=links)
            folder = place if place.is_dir() else place.parent
            own = None
            if base is not None:
                own = write_recipe_of(folder, base, weights, images.channels, overrides)
            return images, own
    if base is not None:
        what = "base goes with a folder or a table: a recipe has one"
        raise RecipeError(Problem("", what, "", f"model.base={base}"))
    recipe = read_recipe(source, overrides).recipe
    name = str(source) if isinstance(source, str | os.PathLike) else recipe.name
    images = list_recipe(recipe, name)
    return images, recipe
