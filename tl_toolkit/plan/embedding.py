"""Plans of models whose features are read: a run's own, or the base of a recipe at one block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tl_toolkit.catalog.bands import BandStatistics
from tl_toolkit.catalog.lookup import Architecture, check_arguments, check_image_size
from tl_toolkit.catalog.taps import check_taps
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.bases import find_base, find_record
from tl_toolkit.plan.check import plan_base
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.tasks import Survey
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.schema import Head, Recipe
from tl_toolkit.recipe.tasks import DEFAULT_TASK, find_task
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.sources.listing import Listing

__all__ = ["plan_features_of_base", "plan_features_of_run", "write_base_recipe"]

_NO_CLASSES = ("this", "other")  # features depend on none


def plan_features_of_run(
    folder: RunFolder,
    recipe: Recipe,
    classes: Sequence[str],
    *,
    block: str | None = None,
    pooling: str | None = None,
) -> Plan:
    """Returns the plan of a run's kept model, or of its base up to a block.

    Args:
        folder: The run.
        recipe: Its recipe.
        classes: Its classes.
        block: A block, unit or layer of the base; None for what the run's own head reads.
        pooling: How its map is pooled; average by default.

    Raises:
        RecipeError: There is no such block.
    """
    if block is None and pooling is None:
        model = recipe.model.model_copy(update={"start": folder.path})
        own = recipe.model_copy(update={"model": model, "teacher": None})
        return plan_base(own, _survey(classes))
    update = {"weights": str(folder.model), "start": None}
    plan = _plan_block(recipe, update, block, pooling)
    if not plan.needs_bands:
        return plan
    return replace(plan, bands=BandStatistics.from_values(folder.read_json(folder.bands)))


def plan_features_of_base(recipe: Recipe, block: str | None, pooling: str | None) -> Plan:
    """Returns the plan of a base up to a block.

    Args:
        recipe: Names the base, its weights and the size of images.
        block: As in `plan_features_of_run`; None for the base's output.
        pooling: As there.

    Raises:
        RecipeError: There is no such block, or the base does not take what it is given.
        WeightsError: No weights were ever published for the base.
    """
    architecture = find_base(recipe)
    problems = [*check_arguments(architecture, recipe.model.arguments).values()]
    if problem := check_image_size(architecture, recipe.data.image_size):
        height, width = recipe.data.image_size
        hint = problem.hint.replace("data.image_size=", "--image-size ")
        problems.append(replace(problem, what=f"images of {height} x {width} pixels", hint=hint))
    if problems:
        raise RecipeError(problems)
    return _plan_block(recipe, {}, block, pooling)


def write_base_recipe(
    base: str,
    *,
    weights: str,
    image_size: int | tuple[int, int] | None,
    arguments: Mapping[str, Any],
) -> Recipe:
    """Returns a recipe for the features of a base.

    Args:
        base: Name of an architecture, or a Keras model by its file.
        weights: As in `model.weights`; not used for a Keras model, which has its own.
        image_size: Side or (height, width); by default the base's own.
        arguments: As in `model.arguments`.

    Raises:
        RecipeError: There is no such architecture, or a value is wrong.
    """
    size = image_size or find_record(base).default_size
    is_own = base.endswith(".keras")
    named = {"base": {"model": base}} if is_own else {"base": base, "weights": weights}
    values = {
        "version": 1,
        "name": "features",
        "data": {"train": ".", "image_size": size},
        "model": {**named, "arguments": dict(arguments)},
        "phases": [{"name": "head", "epochs": 0}],
    }
    return build_recipe(values).recipe


def _plan_block(
    recipe: Recipe, model_values: Mapping[str, Any], block: str | None, pooling: str | None
) -> Plan:
    """Returns the plan of a classifier, whatever the task of the recipe is.

    With a block it reads the map of the block first and the last map after it, if that is another:
    a weight file fits the whole base alone.
    """
    architecture = find_base(recipe)
    taps = None if block is None else _find_taps(architecture, block)
    pools = taps is not None or architecture.output != "vector"
    head = Head.model_validate({"taps": taps, "pooling": pooling if pools else None})
    model = recipe.model.model_copy(update={**model_values, "head": head})
    update = {"model": model, "task": find_task(DEFAULT_TASK)(), "pixels": None, "teacher": None}
    return plan_base(recipe.model_copy(update=update), _survey(_NO_CLASSES))


def _find_taps(architecture: Architecture, name: str) -> tuple[str, ...]:
    """Returns the unit at whose end a block ends, or a unit or layer as it is, and the last one."""
    ends = {block.name: block.units[-1].name for block in architecture.blocks}
    if problems := [problem for _, problem in check_taps(architecture, (name,), "block")]:
        if name not in ends:
            raise RecipeError([replace(problems[0], what=f"block = {name!r}")])
    last = architecture.blocks[-1].units[-1].name
    return tuple(dict.fromkeys((ends.get(name, name), last)))


def _survey(classes: Sequence[str]) -> Survey:
    listing = Listing(tuple(classes), ())
    return Survey(tuple(classes), {}, (), lambda: listing)
