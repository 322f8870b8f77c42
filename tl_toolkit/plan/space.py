"""The search space of a recipe, resolved without TensorFlow or KerasTuner."""

from collections.abc import Iterator, Mapping
from math import ceil, log, prod
from typing import Any, TypeAlias

from tl_toolkit.catalog.lookup import Architecture, resolve_unfreeze
from tl_toolkit.plan.bases import find_base
from tl_toolkit.plan.network import resolve_head
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import replace_fields
from tl_toolkit.recipe.schema import Phase, Recipe
from tl_toolkit.recipe.search_schema import Dimension, Search

__all__ = [
    "Space",
    "count_points",
    "count_trials",
    "find_depths",
    "find_unfrozen",
    "plan_brackets",
    "probe_space",
    "resolve_space",
    "trial_recipe",
]

Space: TypeAlias = Mapping[str, Dimension]

_DROPOUT = "model.head.dropout"
_MOST_BLOCKS = 3


def resolve_space(recipe: Recipe) -> Space:
    """Returns the fields and values that are tried.

    Without a `search.space` they are the head's dropout from 0 to 0.6, and the first four of
    `find_depths` for the last phase: 0 to 3 blocks, where the head reads each of them.

    Args:
        recipe: A recipe, with or without a search.
    """
    search = recipe.search or Search()
    if search.space is not None:
        return search.space
    depths = tuple(find_depths(recipe)[: _MOST_BLOCKS + 1])
    unfreeze = Dimension(min=0, max=depths[-1])
    if len(depths) <= depths[-1]:
        unfreeze = Dimension(choices=depths)
    return {
        _DROPOUT: Dimension(min=0.0, max=0.6, step=0.1),
        f"phases.{recipe.phases[-1].name}.unfreeze": unfreeze,
    }


def find_depths(recipe: Recipe) -> list[int]:
    """Returns the numbers of blocks, counted from the output, that a phase can unfreeze.

    Blocks behind the last map that pixels are sampled from are left out.

    Args:
        recipe: The recipe.
    """
    architecture = find_base(recipe)
    read = plan_task(recipe).readable_units(architecture)
    depths = [0]
    is_read = False
    for depth, block in enumerate(reversed(architecture.blocks), start=1):
        is_read = is_read or read is None or any(unit.name in read for unit in block.units)
        depths += [depth] if is_read else []
    return depths


def find_unfrozen(space: Space, architecture: Architecture) -> list[tuple[str, ...]]:
    """Returns the units of every unfreezing that a space names.

    Args:
        space: Fields and their values.
        architecture: The record of the base.

    Raises:
        RecipeError: It has no such block or unit.
    """
    units = []
    for field, dimension in space.items():
        if field.startswith("phases.") and field.endswith(".unfreeze"):
            for value in dimension.values or ():
                phase = Phase.model_validate({"name": "any", "epochs": 0, "unfreeze": value})
                stages = [stage.unfreeze for stage in phase.stages]
                units += [resolve_unfreeze(architecture, unfreeze) for unfreeze in stages]
    return units


def count_trials(recipe: Recipe) -> int | None:
    """Returns the number of trials at most; None if a range without steps leaves it open.

    Args:
        recipe: A recipe, with or without a search.
    """
    search = recipe.search or Search()
    points = count_points(resolve_space(recipe))
    if search.algorithm == "hyperband":  # trials that resume count again, whatever the points
        brackets = plan_brackets(recipe.phases[-1].epochs, search.factor)
        return search.trials or sum(trials for rungs in brackets for trials, _ in rungs)
    if points is None or search.count is None:
        return search.count if points is None else points
    return min(points, search.count)


def count_points(space: Space) -> int | None:
    """Returns the number of combinations; None if a range has no steps.

    Args:
        space: Fields and their values.
    """
    choices = [dimension.values for dimension in space.values()]
    return (
        None if None in choices else prod(len(values) for values in choices if values is not None)
    )


def plan_brackets(epochs: int, factor: int) -> list[list[tuple[int, int]]]:
    """Returns the brackets of a round of hyperband (Li et al., 2018), as KerasTuner plans them.

    Args:
        epochs: Epochs of a trial that is never stopped, 1 or more.
        factor: Of this many trials, the best one resumes.

    Returns:
        For each bracket its rungs: (trials, epochs after which they pause). The first bracket
        halves most often; the trials of the last one are never paused.
    """
    steepest = 0
    while epochs / factor ** (steepest + 1) >= 1:
        steepest += 1
    last = ceil(1 + log(epochs, factor))
    return [
        [
            (ceil(last / (bracket + 1) * factor**halvings), ceil(epochs / factor**halvings))
            for halvings in range(bracket, -1, -1)
        ]
        for bracket in range(steepest, -1, -1)
    ]


def trial_recipe(recipe: Recipe, values: Mapping[str, Any], *, seed: int | None = None) -> Recipe:
    """Returns the recipe of a trial: fields replaced, and no search.

    Args:
        recipe: The recipe that is searched.
        values: Fields and their values.
        seed: The trial's own, if it has one.

    Raises:
        RecipeError: The values do not make a valid recipe.
    """
    without = {"~search": None} if recipe.search else {}
    own = {} if seed is None else {"seed": seed}
    return resolve_head(replace_fields(recipe, {**without, **own, **values}))


def probe_space(space: Space) -> Iterator[tuple[str, Any]]:
    """Yields (field, value) for every choice, for both ends of every range and the second value.

    Unfreezing one block may be invalid where none, and many, are valid.

    Args:
        space: Fields and their values.
    """
    for field, dimension in space.items():
        for value in dimension.probes:
            yield field, value
