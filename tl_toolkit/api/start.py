"""Arguments of a fine-tune that become fields of its recipe, as the run that it starts from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.plan import Plan
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.remote import is_address
from tl_toolkit.runs.folder import InFolder
from tl_toolkit.runs.places import find_run

__all__ = ["add_override", "add_start", "refuse_replaced_runs"]


def add_start(overrides: Overrides, start: str | Path | InFolder, *, root: Path) -> Overrides:
    """Returns overrides with the folder of a run as `model.start`.

    Args:
        overrides: As in `finetune`.
        start: As in `finetune`.
        root: Folder of all runs.

    Raises:
        DataError: There is no such run.
    """
    if isinstance(start, str) and is_address(start):
        return add_override(overrides, "model.start", start)
    path = start.path if isinstance(start, InFolder) else find_run(start, root=root).path
    return add_override(overrides, "model.start", str(path))


def add_override(overrides: Overrides, field: str, value: str) -> Overrides:
    """Returns overrides with one more, which counts before the others.

    Args:
        overrides: As in `finetune`.
        field: A dotted field.
        value: Its value.
    """
    if isinstance(overrides, Mapping):
        return {**overrides, field: value}
    before = [overrides] if isinstance(overrides, str) else list(overrides)
    return [*before, f"{field}={json.dumps(value)}"]  # JSON is YAML, whatever the value holds


def refuse_replaced_runs(plan: Plan, out: str | Path | None) -> None:
    """Refuses a run that would take the place of one that it starts from or learns from.

    Args:
        plan: Plan of the recipe.
        out: As in `finetune`.

    Raises:
        RecipeError: It would.
    """
    start, teacher = plan.start, plan.recipe.teacher
    used = {
        "is the run that training starts from": None if start is None else start.run,
        "is the run of the teacher": None if teacher is None else teacher.run,
    }
    for what, run in used.items():
        if isinstance(run, Path) and out is not None and Path(out).resolve() == run.resolve():
            expected = "It is read again where the new one is repeated."
            hint = "another --out, or none: runs are numbered"
            raise RecipeError(Problem(f"--out {out}", what, expected, hint))
