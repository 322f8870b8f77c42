"""Recipes: their schema, and how they are read, changed and written.

The sections are classes here, to build a recipe in Python:

    import tl_toolkit as tl

    tl.Recipe(
        version=1,
        name="flowers",
        data=tl.recipe.Data(train=Path("data/flowers"), validation=0.2, image_size=(224, 224)),
        model=tl.recipe.Model(base="mobilenet", weights="imagenet"),
        phases=(tl.recipe.Phase(name="head", epochs=3),),
    )

A class refuses what does not fit with pydantic's ValidationError; `tl.validate` and the verbs raise
the errors of `tl_toolkit.errors`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_toolkit.recipe.schema import *  # noqa: F403  (all of its __all__)


if not TYPE_CHECKING:  # a checker would take any name for granted

    def __getattr__(name: str) -> Any:
        # Classes only: a module of this folder is imported as ever.
        if name[:1].isupper():
            schema = import_module("tl_toolkit.recipe.schema")
            if name in schema.__all__:
                return getattr(schema, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *import_module("tl_toolkit.recipe.schema").__all__])
