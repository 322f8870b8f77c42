"""The run that a fine-tune starts from, as a field of its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.plan import Plan
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.runs.folder import InFolder
from tl_toolkit.runs.places import find_run

__all__ = ["add_start", "refuse_replaced_start"]

_FIELD = "model.start"


def add_start(overrides: Overrides, start: str | Path | InFolder, *, root: Path) -> Overrides:
    """Returns overrides with the folder of a run as `model.start`.

    Args:
        overrides: As in `finetune`.
        start: As in `finetune`.
        root: Folder of all runs.

    Raises:
        DataError: There is no such run.
    """
    path = str(start.path if isinstance(start, InFolder) else find_run(start, root=root).path)
    if isinstance(overrides, Mapping):
        return {**overrides, _FIELD: path}
    before = [overrides] if isinstance(overrides, str) else list(overrides)
    return [*before, f"{_FIELD}={json.dumps(path)}"]  # JSON is YAML, whatever the path holds


def refuse_replaced_start(plan: Plan, out: str | Path | None) -> None:
    """Refuses a run that would take the place of the one that it starts from.

    Args:
        plan: Plan of the recipe.
        out: As in `finetune`.

    Raises:
        RecipeError: It would.
    """
    start = plan.start
    if start is None or out is None or Path(out).resolve() != start.run.resolve():
        return
    raise RecipeError(
        Problem(
            where=f"--out {out}",
            what="is the run that training starts from",
            expected="It is read again where the new one is repeated.",
            hint="another --out, or none: runs are numbered",
        )
    )
