"""The tasks that models learn: each has a folder for everything that is particular to it.

The sections of recipes are classes here, to build a recipe in Python:

    tl.Recipe(..., task=tl.tasks.RegressionSection(columns=("age",), loss="huber"))
"""

from __future__ import annotations

from typing import Any

from tl_toolkit.recipe.tasks import TASKS, find_task


def __getattr__(name: str) -> Any:
    if name.endswith("Section"):
        for kind in TASKS:
            if find_task(kind).__name__ == name:
                return find_task(kind)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(find_task(kind).__name__ for kind in TASKS)])
