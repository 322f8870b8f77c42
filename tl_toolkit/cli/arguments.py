"""Arguments that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def _find_recipe(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    from tl_toolkit.recipe.shipped import find_recipe  # `--help` must not pay for it

    return find_recipe(path)


takes_recipe: Callable[[Any], Any] = click.argument(
    "recipe", type=click.Path(path_type=Path), callback=_find_recipe
)
"""Adds RECIPE: a file, or the name of a shipped recipe."""
