"""`validate`: what a recipe will do, without TensorFlow unless its base is the user's own."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from tl_toolkit.api.base import reading_recipe
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.plan import Plan
from tl_toolkit.recipe.load import RecipeSource
from tl_toolkit.recipe.overrides import Overrides

if TYPE_CHECKING:
    import keras


def validate(
    recipe: RecipeSource, overrides: Overrides = (), *, base: keras.Model | None = None
) -> Plan:
    """Checks a recipe, its data and its weights, and returns what it will do. Images stay closed.

    Args:
        recipe: Path of a recipe, its contents, a recipe, or what `tl.load_recipe` returns.
        overrides: Fields to replace, as for `tl.finetune`.
        base: As in `tl.finetune`.

    Returns:
        The plan: recipe, classes, images, units that train; `describe()` gives lines to read.

    Raises:
        ToolkitError: A child of it, with all problems: recipe, data, weights.
    """
    with contextlib.ExitStack() as stack:
        loaded = stack.enter_context(reading_recipe(recipe, overrides, base=base))
        plan = check_recipe(loaded)
        if base is not None:  # its file is a temporary one
            plan = replace(plan, architecture=replace(plan.architecture, file=""))
        weakref.finalize(plan, stack.pop_all().close)  # its search space comes from the base
        return plan
