"""A base of the user's own on its way into a run, which keeps a copy of it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.errors import OutputError, Problem, RecipeError
from tl_toolkit.plan.bases import find_base, open_own_bases
from tl_toolkit.plan.plan import Plan
from tl_toolkit.recipe.load import LoadedRecipe, RecipeSource, read_recipe
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.runs.files import drafted
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import start_tensorflow

if TYPE_CHECKING:
    import keras

__all__ = ["keep_base", "reading_recipe"]


@contextlib.contextmanager
def reading_recipe(
    recipe: RecipeSource,
    overrides: Overrides = (),
    *,
    base: keras.Model | None = None,
    replaced: str | Path | None = None,
    threads: int | None = None,
) -> Iterator[LoadedRecipe]:
    """Reads a recipe; while the block lasts, the file of its base stays where it is.

    Args:
        recipe: As of `read_recipe`.
        overrides: As of `read_recipe`.
        base: Takes the place of the recipe's base, with its weights and arguments.
        replaced: Folder that is going to be emptied; a base in it is copied first.
        threads: As of `start_tensorflow`, which a base of the user's own needs early.

    Raises:
        RecipeError: As of `read_recipe`, or `base` cannot be one.
    """
    with tempfile.TemporaryDirectory(prefix="tltool-") as folder:
        place = Path(folder) / RunFolder.base.relative
        if base is not None:
            start_tensorflow(threads=threads)
            open_own_bases().check_own_model(base, "the model")
            base.save(place)
            loaded = read_recipe(recipe, overrides, base=place)
        else:
            loaded = read_recipe(recipe, overrides)
        if (own := loaded.recipe.model.own_file) is not None:
            start_tensorflow(threads=threads)
            if replaced is not None and _lies_in(own, Path(replaced)):
                shutil.copyfile(own, place)
                loaded = replace(loaded, recipe=loaded.recipe.with_base(place))
        yield loaded


def _lies_in(path: Path, folder: Path) -> bool:
    return path.is_file() and folder.resolve() in path.resolve().parents


def keep_base(plan: Plan, folder: RunFolder) -> Plan:
    """Copies a base of the user's own into a run; the recipe of the plan returned names the copy.

    A resumed search keeps the copy that it began with.

    Args:
        plan: Of the recipe; one whose base is of the catalog is returned as it is.
        folder: The run or search.

    Raises:
        RecipeError: The search was begun with another model.
        OutputError: The file cannot be written.
    """
    path = plan.recipe.model.own_file
    if path is None:
        return plan
    if folder.base.is_file():
        _compare(path, folder)
    else:
        try:
            with drafted(folder.base) as draft:
                shutil.copyfile(path, draft)
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}"
            raise OutputError(Problem(str(folder.base), what)) from error
    recipe = plan.recipe.with_base(folder.base)
    return replace(plan, recipe=recipe, architecture=find_base(recipe))


def _compare(path: Path, folder: RunFolder) -> None:
    if path.samefile(folder.base):
        return
    digest = open_own_bases().digest_own_model
    if digest(path) != digest(folder.base):
        raise RecipeError(
            Problem(
                where=f"--resume {folder.path}",
                what="the search was begun with another base",
                expected="Scores of a search can be compared only if all else stays the same.",
                hint="without --resume for a new search",
            )
        )
