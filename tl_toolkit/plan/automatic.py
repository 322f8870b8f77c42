"""The recipes that `auto` makes of a folder: the first one, and one that is searched."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.starter import write_starter
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import LoadedRecipe, build_recipe, list_values, load_recipe
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.schema import Recipe

__all__ = ["TUNED", "read_first", "search_recipe", "with_base"]

TUNED = "tune"
"""The phase that a search adds."""

_HEAD = {"name": "head", "epochs": 10, "learning_rate": 3e-3}
"""The phase that trains a head which cannot be solved, as `init` has it."""

_DEPTHS = (0.85, 0.7, 0.5, 0.25)
"""Where tuning begins, as parts of the base: the last units alone cost a fraction of the rest."""

_MOST_TRIALS = 1000  # a budget ends a search before


def read_first(
    data: Path, *, task: str, base: str, seed: int, overrides: Overrides
) -> tuple[LoadedRecipe, tuple[str, ...]]:
    """Returns the recipe of the first run: what `init` finds, with a head alone.

    Where a head can be solved it is; for other tasks the first phase of `init` trains it.

    Args:
        data: As in `write_starter`.
        task: The task; "" for the one that is recognized.
        base: As in `write_starter`.
        seed: Seed of the recipe.
        overrides: Fields to replace.

    Returns:
        The recipe, and sentences on what was chosen.

    Raises:
        DataError: No task recognizes the data.
        RecipeError: The data leave open what a user must add, or as in `load_recipe`.
    """
    with tempfile.TemporaryDirectory(prefix="tltool-") as folder:
        place = Path(folder)
        starter = write_starter(data, base=base, place=place, task=task)
        file = place / "auto.yaml"
        file.write_text(starter.text, encoding="utf-8")
        try:
            found = load_recipe(file).recipe
        except RecipeError as error:
            if not starter.next_step:
                raise
            raise _describe_open(data, starter.next_step) from error
    choices = starter.choices
    if starter.next_step:
        choices += (f"left open: {starter.next_step}, as by the override data.classes=[...]",)
    values = list_values(found) | {"seed": seed, "export": False}
    if found.task.is_dense:
        is_random = build_recipe(values, overrides).recipe.model.is_random
        values["phases"] = values["phases"][:1] if is_random else [_HEAD]
    else:
        values.pop("phases", None)
        values["model"].pop("head", None)
        values["preset"] = "fast"
    return build_recipe(values, overrides), choices


def _describe_open(data: Path, step: str) -> RecipeError:
    hint = f"tltool init {shlex.quote(str(data))}, then tltool search with its recipe"
    what, expected = "leaves something open", f"A recipe for it needs you: {step}."
    return RecipeError(Problem(str(data), what, expected, hint))


def with_base(recipe: Recipe, model: Mapping[str, Any]) -> LoadedRecipe:
    """Returns a recipe with another base.

    Args:
        recipe: The recipe.
        model: Fields of its `model` section that are replaced.
    """
    values = list_values(recipe)
    return build_recipe(values | {"model": {**values["model"], **model}})


def search_recipe(plan: Plan, *, epochs: int, seed: int) -> LoadedRecipe | None:
    """Returns a recipe whose search tries depths and rates of tuning, and heads.

    Args:
        plan: Plan of the run that the search starts from.
        epochs: Epochs of the phase that tunes; a recipe of random weights keeps its own.
        seed: Seed of the choices.

    Returns:
        The recipe; None where nothing is left to try.
    """
    values = list_values(plan.recipe)
    space: dict[str, Any] = {}
    head = values["model"].get("head", {})
    if plan.weights_file is not None:
        tuned = {"name": TUNED, "epochs": epochs, "unfreeze": _find_depths(plan)[0]}
        cosine = {"kind": "cosine", "initial": 3e-4}
        values["phases"] = [*values["phases"], {**tuned, "learning_rate": cosine}]
        space[f"phases.{TUNED}.unfreeze"] = _find_depths(plan)
        space[f"phases.{TUNED}.learning_rate.initial"] = _spread(3e-4)
    elif values["phases"]:
        phase = values["phases"][-1]
        rate = phase.get("learning_rate")
        if isinstance(rate, Mapping) and isinstance(rate.get("initial"), float):
            space[f"phases.{phase['name']}.learning_rate.initial"] = _spread(rate["initial"])
    space["model.head.dropout"] = [0.0, 0.3, 0.5]
    if head.get("solver") and plan.recipe.task.has_classes:
        space["model.head.solver"] = list(dict.fromkeys([head["solver"], "ridge"]))
    search = {"trials": _MOST_TRIALS, "seed": seed, "space": space}
    return build_recipe(values | {"search": search}) if values["phases"] else None


def _spread(rate: float) -> dict[str, Any]:
    """Returns the range of rates around one."""
    return {"min": rate / 3, "max": rate * 5, "sampling": "log"}


def _find_depths(plan: Plan) -> list[dict[str, str]]:
    """Returns the units that tuning may begin at, the cheapest first."""
    readable = plan_task(plan.recipe).readable_units(plan.architecture)
    units: Sequence[str] = readable or [unit.name for unit in plan.architecture.units]
    places = dict.fromkeys(min(int(part * len(units)), len(units) - 1) for part in _DEPTHS)
    return [{"from": units[place]} for place in places]
