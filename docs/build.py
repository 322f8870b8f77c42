"""Writes what is generated: docs/recipe.md, recipes/recipe.schema.json and docs/runs.md.

python docs/build.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.lookup import ARCHITECTURES
from tl_toolkit.recipe.load import json_schema
from tl_toolkit.recipe.optimizers import OPTIMIZERS
from tl_toolkit.recipe.schedules import SCHEDULES
from tl_toolkit.recipe.tasks import TASKS, find_task
from tl_toolkit.runs.folder import describe_artifacts

ROOT = Path(__file__).resolve().parents[1]
# Tasks with fields beside their kind.
TASK_SECTIONS = {
    find_task(kind).__name__: kind for kind in TASKS if len(find_task(kind).model_fields) > 1
}
SECTIONS = [
    "Recipe",
    *TASK_SECTIONS,
    "Data",
    "Masks",
    "Pixels",
    "Augment",
    "RandAugment",
    "Features",
    "Model",
    "OwnBase",
    "Head",
    "Hidden",
]
_KINDS = {
    section.__name__: f"phases.NAME.{field}, as {{kind: {kind}, ...}}"
    for field, table in (("optimizer", OPTIMIZERS), ("learning_rate", SCHEDULES))
    for kind, section in table.items()
}
SECTIONS += ["Phase", *_KINDS, "UnfreezeFrom", "EarlyStopping", "Export"]
SECTIONS += ["Search", "Objective", "Dimension"]
PLACES = {
    "Recipe": "The top level",
    **{name: f"task, as {{kind: {kind}}}" for name, kind in TASK_SECTIONS.items()},
    "Data": "data",
    "Masks": "data.masks",
    "Pixels": "pixels",
    "Augment": "augment",
    "RandAugment": "augment.rand_augment",
    "Features": "features",
    "Model": "model",
    "OwnBase": "model.base, if not a word",
    "Head": "model.head",
    "Hidden": "model.head.hidden, a list",
    "Phase": "phases, a list",
    "UnfreezeFrom": "phases.NAME.unfreeze, as {from: UNIT}",
    "EarlyStopping": "early_stopping",
    "Export": "export",
    "Search": "search",
    "Objective": "search.objective, if not a word",
    **_KINDS,
    "Dimension": "search.space, a dimension for each dotted field",
}
OPENING = """# Recipe reference

Written by `python docs/build.py` from the schema that validates recipes. A field without a default
must be there. Paths are relative to the recipe file; in overrides (`tltool finetune r.yaml a.b=v`)
to the working directory. `phases.head.epochs=3` names a phase, `phases.0.epochs=3` counts it, and
`~data.test` removes a field.
"""
RUNS = """# The run folder

Written by `python docs/build.py` from the list in `tl_toolkit/runs/folder.py`. A run or a search is
a folder, `runs/<recipe name>/<NNN>` or the one that `--out` names. `--overwrite` removes what is
listed here and nothing else. `.writing` is there while a process writes to the folder.

"""


def build_reference(schema: dict[str, Any]) -> str:
    """Returns the reference as Markdown: a table for each section."""
    parts = [OPENING]
    for name in SECTIONS:
        section = schema if name == "Recipe" else schema["$defs"][name]
        rows = [
            f"| `{field}` | {_default(field, value, section)} | {_cell(value['description'])} |"
            for field, value in section["properties"].items()
        ]
        parts.append(f"## {PLACES[name]}\n\n{section['description']}\n")
        parts.append(
            "| field | default | meaning |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def _default(field: str, value: dict[str, Any], section: dict[str, Any]) -> str:
    if field in section.get("required", ()):
        return "required"
    default = value.get("default")
    if default in (None, {}, []) or isinstance(default, dict):
        return ""
    return _cell(f"`{json.dumps(default)}`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Writes the three files."""
    schema = json_schema(ARCHITECTURES)
    (ROOT / "docs" / "recipe.md").write_text(build_reference(schema), encoding="utf-8")
    text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    (ROOT / "recipes" / "recipe.schema.json").write_text(text, encoding="utf-8")
    (ROOT / "docs" / "runs.md").write_text(RUNS + describe_artifacts(), encoding="utf-8")


if __name__ == "__main__":
    main()
