"""What a search may try, worked out without TensorFlow or KerasTuner."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, TypeAlias

from tl_toolkit.architectures.catalog import find_architecture
from tl_toolkit.recipe.load import replace_fields
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.search_schema import Dimension, Search

__all__ = ["Space", "count_trials", "probe_space", "resolve_space", "trial_recipe"]

Space: TypeAlias = Mapping[str, Dimension]

_DROPOUT = "model.head.dropout"
_MOST_BLOCKS = 3


def resolve_space(recipe: Recipe) -> Space:
    """Returns the fields and values that are tried.

    Without a `search.space` they are the head's dropout from 0 to 0.6, and 0 to 3 blocks (or as
    many as the base has) that the last phase unfreezes.
    """
    search = recipe.search or Search()
    if search.space is not None:
        return search.space
    blocks = min(_MOST_BLOCKS, len(find_architecture(recipe.model.base).blocks))
    return {
        _DROPOUT: Dimension(min=0.0, max=0.6, step=0.1),
        f"phases.{recipe.phases[-1].name}.unfreeze": Dimension(min=0, max=blocks),
    }


def count_trials(recipe: Recipe) -> int | None:
    """Returns the number of trials at most; None if a range without steps leaves it open."""
    search = recipe.search or Search()
    values = [dimension.values for dimension in resolve_space(recipe).values()]
    points = None if None in values else prod(len(one) for one in values if one is not None)
    if points is None or search.count is None:
        return search.count if points is None else points
    return min(points, search.count)


def trial_recipe(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of a trial: fields replaced, and no search.

    Raises:
        RecipeError: The values do not make a valid recipe.
    """
    return replace_fields(recipe, {**({"~search": None} if recipe.search else {}), **values})


def probe_space(space: Space) -> Iterator[tuple[str, Any]]:
    """Yields (field, value) for every choice and for both ends of every range."""
    for field, dimension in space.items():
        ends = (dimension.min, dimension.max)
        for value in ends if dimension.choices is None else dimension.choices:
            yield field, value
