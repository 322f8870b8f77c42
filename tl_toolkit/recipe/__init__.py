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

A class refuses what does not fit with a RecipeError, in the words for a file.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_toolkit.recipe.optimizers import *  # noqa: F403
    from tl_toolkit.recipe.schedules import *  # noqa: F403
    from tl_toolkit.recipe.schema import *  # noqa: F403

_HOMES = ("schema", "optimizers", "schedules")
"""Modules whose classes are here, as their `__all__` names them."""


def _find_classes() -> dict[str, type]:
    modules = [import_module(f"{__name__}.{home}") for home in _HOMES]
    values = {name: getattr(module, name) for module in modules for name in module.__all__}
    return {name: value for name, value in values.items() if isinstance(value, type)}


if not TYPE_CHECKING:  # a checker would take any name for granted

    def __getattr__(name: str) -> Any:
        # A module of this folder is imported as usual: no class has its name.
        if name[:1].isupper() and name in (classes := _find_classes()):
            return classes[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_find_classes()])


class _Documented(ModuleType):
    """This module, whose docstring lists the sections and their fields when it is read.

    The sections are not imported before: the modules of this folder import this one.
    """

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return f"{_OPENING}\n{_list_fields()}"


def _list_fields() -> str:
    import textwrap

    from tl_toolkit.recipe.fields import Section
    from tl_toolkit.recipe.tasks import TASKS, find_task

    sections = [item for item in _find_classes().values() if issubclass(item, Section)]
    tables: dict[str, list[type[Section]]] = {
        "Sections": sections,
        "Tasks, in `tl.tasks`": [find_task(kind) for kind in TASKS],
    }
    lines = []
    for title, classes in tables.items():
        lines += [f"{title}, and their fields, which `help` of each describes:", ""]
        for item in classes:
            text = f"{item.__name__}: {', '.join(item.model_fields)}"
            lines.append(textwrap.fill(text, 96, initial_indent="    ", subsequent_indent=" " * 8))
        lines.append("")
    return "\n".join(lines)


_OPENING = __doc__
sys.modules[__name__].__class__ = _Documented
