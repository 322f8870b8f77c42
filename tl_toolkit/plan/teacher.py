"""The run that a recipe learns from: whether its outputs are of the recipe's classes."""

from __future__ import annotations

from collections.abc import Sequence

from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.plan.findings import Finding
from tl_toolkit.plan.used_runs import open_run
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.recipe.phase_schema import Teaching
from tl_toolkit.recipe.remote import name_object
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.tasks import TASKS, find_task
from tl_toolkit.sources.listing import name_some

__all__ = ["check_teacher", "find_teaching"]

_FIELD = ("teacher", "run")


def find_teaching(recipe: Recipe, classes: Sequence[str]) -> Teaching | None:
    """Returns what a recipe learns of its teacher; None without a teacher.

    Args:
        recipe: A recipe that `check_teacher` has found nothing wrong with.
        classes: Its classes, in the order of the outputs.

    Raises:
        DataError: There is no such run.
    """
    if recipe.teacher is None:
        return None
    folder = open_run(".".join(_FIELD), recipe.teacher.run)
    before = folder.read_json(folder.classes)
    data = load_recipe(folder.recipe).recipe.data
    return Teaching(
        folder.model,
        tuple(before.index(name) for name in classes),
        data.image_size,
        data.resize,
        recipe.teacher.temperature,
        recipe.teacher.weight,
        data.pad_color,
    )


def check_teacher(recipe: Recipe, classes: Sequence[str]) -> list[Finding]:
    """Returns what keeps a recipe from learning from its teacher.

    Args:
        recipe: The recipe.
        classes: Its classes; none if they are not known.
    """
    if recipe.teacher is None:
        return []
    if not recipe.task.takes_teacher:
        kinds = ", ".join(kind for kind in TASKS if find_task(kind).takes_teacher)
        what, expected = "teacher", f"expected none but for {kinds}, got task {recipe.task.kind}."
        return [Finding(("teacher",), Problem("", what, expected, "~teacher"))]
    try:
        folder = open_run(".".join(_FIELD), recipe.teacher.run)
        before = load_recipe(folder.recipe).recipe
        known = folder.read_json(folder.classes)
    except (DataError, RecipeError) as error:
        return [Finding(_FIELD, problem, type(error)) for problem in error.problems]
    name = f"teacher.run: {name_object(str(folder.path))!r}"
    if not folder.model.is_file():
        problem = Problem("", f"{name} holds no model.keras", "expected a finished run.")
        return [Finding(_FIELD, problem, DataError)]
    if before.task.kind != recipe.task.kind:
        expected = f"expected a run of {recipe.task.kind}."
        return [Finding(_FIELD, Problem("", f"{name} is a run of {before.task.kind}", expected))]
    if before.data.channels != recipe.data.channels:
        what = f"{name} is a run on images of {before.data.channels} channels"
        expected = f"expected the recipe's, {recipe.data.channels}."
        return [Finding(_FIELD, Problem("", what, expected, "~teacher"))]
    if classes and sorted(known) != sorted(classes):
        expected = f"expected the recipe's, {name_some(classes)}, in any order."
        hint = f"data.classes=[{', '.join(known)}]"
        problem = Problem("", f"{name} knows the classes {name_some(known)}", expected, hint)
        return [Finding(_FIELD, problem)]
    return []
