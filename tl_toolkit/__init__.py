"""Transfer learning for Keras 3: a recipe and a folder of images become a fine-tuned, served model.

    import tl_toolkit as tl

    run = tl.finetune("recipe.yaml", overrides={"phases.head.epochs": 3})
    run.predict(["photo.jpg"])
    run.export()

Importing this package costs no TensorFlow; the first verb that needs it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_toolkit.api import Run, finetune, load_run
    from tl_toolkit.errors import ToolkitError
    from tl_toolkit.explore import (
        describe_architecture,
        draw_architecture,
        probe_architecture,
    )
    from tl_toolkit.feature_cache import FeatureCache
    from tl_toolkit.progress import Progress
    from tl_toolkit.recipe.load import load_recipe
    from tl_toolkit.recipe.schema import Recipe
    from tl_toolkit.searching.verbs import SearchRun, hypermodel, search, sweep

__version__ = "0.1.0"

_HOMES = {
    "FeatureCache": "tl_toolkit.feature_cache",
    "Progress": "tl_toolkit.progress",
    "Recipe": "tl_toolkit.recipe.schema",
    "Run": "tl_toolkit.api",
    "ToolkitError": "tl_toolkit.errors",
    "describe_architecture": "tl_toolkit.explore",
    "draw_architecture": "tl_toolkit.explore",
    "finetune": "tl_toolkit.api",
    "load_recipe": "tl_toolkit.recipe.load",
    "load_run": "tl_toolkit.api",
    "SearchRun": "tl_toolkit.searching.verbs",
    "hypermodel": "tl_toolkit.searching.verbs",
    "probe_architecture": "tl_toolkit.explore",
    "search": "tl_toolkit.searching.verbs",
    "sweep": "tl_toolkit.searching.verbs",
}

__all__ = [
    "FeatureCache",
    "Progress",
    "Recipe",
    "Run",
    "SearchRun",
    "ToolkitError",
    "describe_architecture",
    "draw_architecture",
    "finetune",
    "hypermodel",
    "load_recipe",
    "load_run",
    "probe_architecture",
    "search",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
