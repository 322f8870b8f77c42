"""Takes a base of the user's own into a run, which keeps a copy of it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.errors import Problem, RecipeError, ToolkitError, WeightsError
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
    """Reads a recipe, and keeps the file of its base in place during the block.

    Args:
        recipe: As in `read_recipe`.
        overrides: As in `read_recipe`.
        base: Replaces the recipe's base, with its weights and arguments.
        replaced: Folder that will be emptied; a base in it is copied first.
        threads: As in `start_tensorflow`, which a base of the user's own needs early.

    Raises:
        RecipeError: As in `read_recipe`, or `base` cannot be one, or Keras cannot save it.
    """
    if base is None and replaced is None:
        loaded = read_recipe(recipe, overrides)
        _start_early(loaded, threads)
        yield loaded
        return
    with tempfile.TemporaryDirectory(prefix="tltool-") as folder:
        place = Path(folder) / RunFolder.base.relative
        if base is not None:
            start_tensorflow(threads=threads)
            open_own_bases().check_own_model(base, "the model")
            _save(base, place)
        with _naming_the_model(place):
            loaded = read_recipe(recipe, overrides, base=place if base is not None else None)
            _start_early(loaded, threads)
            if replaced is not None:
                loaded = _save_from(Path(replaced), loaded, place)
            yield loaded


def _save(base: keras.Model, place: Path) -> None:
    """Saves a model of the user's own; of its layers, each must be one that Keras can save."""
    try:
        base.save(place)
        open_own_bases().remember_model(place)
    except (NotImplementedError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RecipeError(
            Problem(
                where="",
                what=f"model.base: the model cannot be saved: "
                f"{lines[0] if lines else type(error).__name__}",
                expected="A run keeps a copy of its base: expected layers of Keras, or such that "
                "have a get_config of plain values.",
                hint="base.save('base.keras'), to see it alone",
            )
        ) from error


def _copy(source: Path, target: Path) -> None:
    """Copies the file of a base, atomically.

    Raises:
        WeightsError: It cannot be opened.
        OutputError: The copy cannot be written.
    """
    try:
        file = open(source, "rb")
    except OSError as error:
        what = f"model.base.model: {str(source)!r} cannot be read: {error.strerror or error}"
        expected = "A run keeps a copy of its base."
        raise WeightsError(Problem("", what, expected, "a file that you may read")) from error
    with file, drafted(target) as draft, open(draft, "wb") as copy:
        shutil.copyfileobj(file, copy)


def _start_early(loaded: LoadedRecipe, threads: int | None) -> None:
    """Starts TensorFlow with its threads where the check of the recipe will need it."""
    if loaded.recipe.model.own_file is not None:
        start_tensorflow(threads=threads)


def _save_from(folder: Path, loaded: LoadedRecipe, place: Path) -> LoadedRecipe:
    """Copies a base that lies in a folder, and returns the recipe that names the copy."""
    own = loaded.recipe.model.own_file
    if own is None or not own.is_file() or folder.resolve() not in own.resolve().parents:
        return loaded
    _copy(own, place)
    return replace(loaded, recipe=loaded.recipe.with_base(place))


@contextlib.contextmanager
def _naming_the_model(place: Path) -> Iterator[None]:
    """Removes the file's name from errors, as the file is gone when somebody reads them."""
    try:
        yield
    except ToolkitError as error:
        if str(place) not in str(error):
            raise
        raise type(error)(
            [_name_the_model(problem, place) for problem in error.problems]
        ) from error


def _name_the_model(problem: Problem, place: Path) -> Problem:
    hint = "" if str(place) in problem.hint else problem.hint
    return replace(problem, what=problem.what.replace(str(place), "the model"), hint=hint)


def keep_base(plan: Plan, folder: RunFolder) -> Plan:
    """Copies a base of the user's own into a run; the recipe of the plan returned names the copy.

    A resumed search keeps the copy that it began with.

    Args:
        plan: Plan of the recipe. A plan whose base is of the catalog is returned as it is.
        folder: The run or search.

    Raises:
        RecipeError: The search was begun with another model.
        WeightsError: The file cannot be read.
        OutputError: The copy cannot be written.
    """
    path = plan.recipe.model.own_file
    if path is None:
        return plan
    if folder.base.is_file() or folder.search.is_file():
        _compare(path, folder)
    else:
        _copy(path, folder.base)
    recipe = plan.recipe.with_base(folder.base)
    return replace(plan, recipe=recipe, architecture=find_base(recipe))


def _compare(path: Path, folder: RunFolder) -> None:
    digest = open_own_bases().digest_own_model
    if not folder.base.is_file() or (
        not path.samefile(folder.base) and digest(path) != digest(folder.base)
    ):
        raise RecipeError(
            Problem(
                where=f"--resume {folder.path}",
                what=f"the {folder.kind} was begun with another base",
                expected=f"A {folder.kind} resumes with the base that it began with.",
                hint=f"without --resume for a new {folder.kind}",
            )
        )
