"""The few fields by which a run is listed, read from its recipe without the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.tasks import DEFAULT_TASK, TASKS
from tl_toolkit.recipe.yaml_reader import read_yaml

__all__ = ["RecipeSummary", "read_summary"]

# Blocks of a file that `dump_recipe` has written. Parsing them alone takes a fifth of the time.
_TOP = re.compile(r"^(?:name|task):.*\n(?:[ \-].*\n)*", re.M)
_BASE = re.compile(r"^model:\n(?:  .*\n)*?(?P<base>  base:.*\n(?:   .*\n)*)", re.M)


class RecipeSummary(NamedTuple):
    """What a recipe is called, and what it trains.

    Attributes:
        name: Its name, or "".
        task: The kind of its task, "" for one that is not known.
        base: The base's name, the file of a model of the user's own, or "".
    """

    name: str = ""
    task: str = ""
    base: str = ""


def read_summary(path: Path) -> RecipeSummary:
    """Returns name, task and base of a run's recipe, also of one that this version refuses.

    Args:
        path: The recipe, as `dump_recipe` has written it; what cannot be read is left empty.
    """
    try:
        text = path.read_text(encoding="utf-8") + "\n"
        base = _BASE.search(text)
        block = f"model:\n{base['base']}" if base else ""
        values = read_yaml("".join(_TOP.findall(text)) + block, lambda line, column: "").plain()
    except (OSError, UnicodeDecodeError, RecipeError):
        return RecipeSummary()
    if not isinstance(values, dict):
        return RecipeSummary()
    task, model = values.get("task", DEFAULT_TASK), values.get("model")
    kind = task.get("kind") if isinstance(task, dict) else task
    named = model.get("base") if isinstance(model, dict) else None
    file = named.get("model") if isinstance(named, dict) else None
    return RecipeSummary(
        name=str(values.get("name", "")),
        task=kind if kind in TASKS else "",
        base=Path(str(file)).name if file else str(named or ""),
    )
