"""Transfer learning for Keras 3: a recipe and a folder of images become a fine-tuned, served model.

    import tl_toolkit as tl

    run = tl.finetune("recipe.yaml", overrides={"phases.head.epochs": 3}, progress=True)
    run.predict(["photo.jpg"])
    run.export()

`tl.recipe` and `tl.tasks` hold the sections of a recipe, to build one in Python, and `tl.errors`
what the verbs raise. Importing this package costs no TensorFlow; the first verb that needs it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_toolkit import errors, recipe, tasks
    from tl_toolkit.api.auto import AutoRun, auto
    from tl_toolkit.api.benchmark import Benchmark, benchmark
    from tl_toolkit.api.card import card
    from tl_toolkit.api.comparing import compare
    from tl_toolkit.api.curve import CurveRun, curve
    from tl_toolkit.api.data import check_data
    from tl_toolkit.api.embedding import embed
    from tl_toolkit.api.environment import describe_environment
    from tl_toolkit.api.explain import explain
    from tl_toolkit.api.filling import fill_features
    from tl_toolkit.api.finetune import finetune
    from tl_toolkit.api.insides import render_activations, render_edge_filters, render_filters
    from tl_toolkit.api.inspect import (
        describe_architecture,
        list_architectures,
        probe_architecture,
        render_architecture,
    )
    from tl_toolkit.api.label_next import label_next
    from tl_toolkit.api.listing import describe_run, list_runs
    from tl_toolkit.api.model import build_model, load_model
    from tl_toolkit.api.predict_list import ListPredictions, predict_list
    from tl_toolkit.api.push import Pushed, push
    from tl_toolkit.api.rank_bases import rank_bases
    from tl_toolkit.api.removal import prune_runs, remove_runs
    from tl_toolkit.api.report import report
    from tl_toolkit.api.reproducing import reproduce
    from tl_toolkit.api.run import Run, load_run
    from tl_toolkit.api.search import SearchRun, hypermodel, search
    from tl_toolkit.api.serve import serve
    from tl_toolkit.api.similar import similar
    from tl_toolkit.api.split import split_data
    from tl_toolkit.api.subjects import Base
    from tl_toolkit.api.sweep import sweep
    from tl_toolkit.api.validate import validate
    from tl_toolkit.api.weights import (
        import_weights,
        list_weights,
        pull_weights,
        verify_weights,
    )
    from tl_toolkit.errors import ToolkitError
    from tl_toolkit.events import Event
    from tl_toolkit.features.store import FeatureCache
    from tl_toolkit.recipe.load import LoadedRecipe, load_recipe
    from tl_toolkit.recipe.schema import Recipe

__version__ = "0.3.0"

__all__ = [
    "AutoRun",
    "Base",
    "Benchmark",
    "CurveRun",
    "Event",
    "FeatureCache",
    "ListPredictions",
    "LoadedRecipe",
    "Pushed",
    "Recipe",
    "Run",
    "SearchRun",
    "ToolkitError",
    "auto",
    "benchmark",
    "build_model",
    "card",
    "check_data",
    "compare",
    "curve",
    "describe_architecture",
    "describe_environment",
    "describe_run",
    "embed",
    "errors",
    "explain",
    "fill_features",
    "finetune",
    "hypermodel",
    "import_weights",
    "label_next",
    "list_architectures",
    "list_runs",
    "list_weights",
    "load_model",
    "load_recipe",
    "load_run",
    "predict_list",
    "probe_architecture",
    "prune_runs",
    "pull_weights",
    "push",
    "rank_bases",
    "recipe",
    "remove_runs",
    "render_activations",
    "render_architecture",
    "render_edge_filters",
    "render_filters",
    "report",
    "reproduce",
    "search",
    "serve",
    "similar",
    "split_data",
    "sweep",
    "tasks",
    "validate",
    "verify_weights",
]

# Each name is imported when it is asked for, from here: a folder or module, and what it gives.
_NAMES_IN = {
    "api.auto": ("AutoRun", "auto"),
    "api.benchmark": ("Benchmark", "benchmark"),
    "api.card": ("card",),
    "api.comparing": ("compare",),
    "api.curve": ("CurveRun", "curve"),
    "api.embedding": ("embed",),
    "api.environment": ("describe_environment",),
    "api.data": ("check_data",),
    "api.explain": ("explain",),
    "api.filling": ("fill_features",),
    "api.finetune": ("finetune",),
    "api.insides": ("render_activations", "render_edge_filters", "render_filters"),
    "api.inspect": (
        "describe_architecture",
        "list_architectures",
        "probe_architecture",
        "render_architecture",
    ),
    "api.label_next": ("label_next",),
    "api.listing": ("describe_run", "list_runs"),
    "api.model": ("build_model", "load_model"),
    "api.predict_list": ("ListPredictions", "predict_list"),
    "api.rank_bases": ("rank_bases",),
    "api.push": ("Pushed", "push"),
    "api.removal": ("prune_runs", "remove_runs"),
    "api.report": ("report",),
    "api.reproducing": ("reproduce",),
    "api.run": ("Run", "load_run"),
    "api.search": ("SearchRun", "hypermodel", "search"),
    "api.serve": ("serve",),
    "api.similar": ("similar",),
    "api.split": ("split_data",),
    "api.subjects": ("Base",),
    "api.sweep": ("sweep",),
    "api.validate": ("validate",),
    "api.weights": ("import_weights", "list_weights", "pull_weights", "verify_weights"),
    "errors": ("ToolkitError",),
    "events": ("Event",),
    "features.store": ("FeatureCache",),
    "recipe.load": ("LoadedRecipe", "load_recipe"),
    "recipe.schema": ("Recipe",),
}
_HOMES = {name: module for module, names in _NAMES_IN.items() for name in names}
_MODULES = ("errors", "recipe", "tasks")


if not TYPE_CHECKING:  # a checker would take any name for granted

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
