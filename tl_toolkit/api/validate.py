"""`validate`: what a recipe will do, without TensorFlow."""

from __future__ import annotations

from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.plan import Plan
from tl_toolkit.recipe.load import RecipeSource, read_recipe
from tl_toolkit.recipe.overrides import Overrides


def validate(recipe: RecipeSource, overrides: Overrides = ()) -> Plan:
    """Checks a recipe, its data and its weights, and returns what it will do. Images stay closed.

    Args:
        recipe: Path of a recipe, its contents, a recipe, or what `tl.load_recipe` returns.
        overrides: Fields to replace, as for `tl.finetune`.

    Returns:
        The plan: recipe, classes, images, units that train; `describe()` gives lines to read.

    Raises:
        ToolkitError: A child of it, with all problems: recipe, data, weights.
    """
    return check_recipe(read_recipe(recipe, overrides))
