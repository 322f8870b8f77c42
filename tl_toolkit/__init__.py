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
    from tl_toolkit.api.finetune import finetune
    from tl_toolkit.api.inspect import (
        describe_architecture,
        probe_architecture,
        render_architecture,
    )
    from tl_toolkit.api.run import Run, load_run
    from tl_toolkit.api.search import SearchRun, hypermodel, search, sweep
    from tl_toolkit.errors import ToolkitError
    from tl_toolkit.events import Event
    from tl_toolkit.features.store import FeatureCache
    from tl_toolkit.recipe.load import load_recipe
    from tl_toolkit.recipe.schema import Recipe

__version__ = "0.1.0"

_HOMES = {
    "Event": "tl_toolkit.events",
    "FeatureCache": "tl_toolkit.features.store",
    "Recipe": "tl_toolkit.recipe.schema",
    "Run": "tl_toolkit.api.run",
    "ToolkitError": "tl_toolkit.errors",
    "describe_architecture": "tl_toolkit.api.inspect",
    "render_architecture": "tl_toolkit.api.inspect",
    "finetune": "tl_toolkit.api.finetune",
    "load_recipe": "tl_toolkit.recipe.load",
    "load_run": "tl_toolkit.api.run",
    "SearchRun": "tl_toolkit.api.search",
    "hypermodel": "tl_toolkit.api.search",
    "probe_architecture": "tl_toolkit.api.inspect",
    "search": "tl_toolkit.api.search",
    "sweep": "tl_toolkit.api.search",
}

__all__ = [
    "Event",
    "FeatureCache",
    "Recipe",
    "Run",
    "SearchRun",
    "ToolkitError",
    "describe_architecture",
    "render_architecture",
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
