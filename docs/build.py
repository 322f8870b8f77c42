"""Writes what is generated: recipe.md, api.md, runs.md and recipes/recipe.schema.json.

python docs/build.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from api_reference import build_api

from tl_toolkit.catalog.lookup import ARCHITECTURES
from tl_toolkit.recipe.load import json_schema
from tl_toolkit.recipe.optimizers import OPTIMIZERS
from tl_toolkit.recipe.schedules import SCHEDULES
from tl_toolkit.recipe.tasks import TASKS, find_task
from tl_toolkit.runs.folder import describe_artifacts

_MOST_WORDS = 24  # of a cell

ROOT = Path(__file__).resolve().parents[1]
# Tasks with fields beside their kind.
TASK_SECTIONS = {
    find_task(kind).__name__: kind for kind in TASKS if len(find_task(kind).model_fields) > 1
}
SECTIONS = [
    "Recipe",
    *TASK_SECTIONS,
    "Data",
    "Columns",
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
SECTIONS += [
    "Phase",
    *_KINDS,
    "L2SP",
    "UnfreezeFrom",
    "UnfreezeOnly",
    "UnfreezeGradual",
    "EarlyStopping",
    "Interpolation",
    "Teacher",
    "Export",
]
SECTIONS += ["Search", "Resources", "Objective", "Soup", "Dimension"]
PLACES = {
    "Recipe": "The top level",
    **{name: f"task, as {{kind: {kind}}}" for name, kind in TASK_SECTIONS.items()},
    "Data": "data",
    "Columns": "data.columns",
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
    "UnfreezeOnly": "phases.NAME.unfreeze, as {only: BLOCK}",
    "UnfreezeGradual": "phases.NAME.unfreeze, as {gradual: N}",
    "EarlyStopping": "early_stopping",
    "Interpolation": "interpolate",
    "Teacher": "teacher",
    "L2SP": "phases.NAME.l2_sp",
    "Export": "export",
    "Search": "search",
    "Objective": "search.objective, if not a word",
    "Resources": "search.resources",
    "Soup": "search.soup",
    **_KINDS,
    "Dimension": "search.space, a dimension for each dotted field",
}
OPENING = """# Recipe reference

Written by `python docs/build.py` from the schema that validates recipes. Required fields
are marked. Paths are relative to the recipe file; in overrides (`tltool finetune r.yaml a.b=v`)
to the working directory. `phases.head.epochs=3` names a phase, `phases.0.epochs=3` counts it, and
`~data.test` removes a field.
"""
RUNS = """# The run folder

Written by `python docs/build.py` from the list in `tl_toolkit/runs/folder.py`. A run or a search is
a folder, `runs/<recipe name>/<NNN>` or the one that `--out` names. `--overwrite` removes what is
listed here and nothing else. `.writing` is there while a process writes to the folder.
`runs/<recipe name>/latest` names the newest finished run; in commands a run is its folder,
`<name>/<NNN>`, `<name>/latest`, `<name>` for the same, or `latest`. `<name>-search/latest` names
the newest finished search likewise, and so of a sweep, a curve and `auto`.

"""
STATES = """
## States

`status.json` holds the state, the process and its host, and while it trains the phase and epoch.

| state | what became of the run |
| --- | --- |
| `running` | Its process lives. Its model is written when training ends. |
| `done` | It was trained and evaluated; its exports, if the recipe names any, are published. |
| `interrupted` | Ctrl-C, `kill` or a closed terminal ended it. After its first evaluation it writes its best model all the same. |
| `failed` | An error ended it; `status.json` has its type and sentence, `command.log` the traceback of an unexpected one. The model of the best epoch is kept, if there was one. |
| killed | `status.json` says `running`, but the process is gone (`kill -9`, a crash): no model is left. |
| damaged | It was done, and a file that it held is gone; or `status.json` cannot be read (`tltool runs list`). |

`latest` means finished runs; `tltool evaluate latest --any` takes an interrupted one that holds a
model. A command that finds no model in a run says which of these became of it, and what to type.
[Resuming](resume.md) says how an interrupted run or search goes on.

## One writer

A process that writes to a folder holds `.writing` in it, of all hosts that share the disk: a second one says which process of which
host holds the folder, since when, and leaves. The lock of a process that has ended is taken over, of several processes by one:

- on the same machine as soon as it has ended, however it ended: the kernel drops its `flock`; where a disk has none, its process id and
  start time tell;
- on another host when it has given no sign of life for five minutes: a thread of the process sets the time of `.writing` every 15
  seconds. Until then a run of another host counts as running, and is neither replaced nor removed.

A process that was suspended for longer, and finds its folder taken over when it wakes, ends with exit code 7 before it writes its status.

## Exit codes

| code | meaning | class in `tl.errors` |
| --- | --- | --- |
| 0 | done | |
| 1 | an unexpected failure; the traceback is in command.log | |
| 2 | usage or recipe | `RecipeError` |
| 3 | data or weights | `DataError`, `WeightsError` |
| 4 | a requested check failed | `ThresholdError`, `ParityError`, `ReceiptError`, `ReproductionError` |
| 5 | a search without one completed trial | `SearchError` |
| 6 | the loss or a weight is not finite | `NonFiniteError` |
| 7 | the output cannot be written | `OutputError` |
| 8 | a host of several is gone, or trains something else; `--resume` goes on | `HostError` |
| 130 | interrupted; the best weights so far are kept, and `--resume` goes on | |
| 128 + N | signal N ended the process that trains: out of memory, or a crash in TensorFlow; `--resume` goes on | |
| 141 | the reader of stdout ended first, as `head` does: no failure, and no message | |
"""  # noqa: E501  rows of a table are lines


def build_reference(schema: dict[str, Any]) -> str:
    """Returns the reference as Markdown: a table for each section."""
    parts = [OPENING]
    for name in SECTIONS:
        section = schema if name == "Recipe" else schema["$defs"][name]
        rows = [
            f"| `{field}` | {_cell(describe_values(value))} | {_default(field, value, section)} "
            f"| {_cell(f'`{field}: {find_example(value, schema)}`')} "
            f"| {_cell(value['description'])} |"
            for field, value in section["properties"].items()
        ]
        page = f" [Its page]({TASK_SECTIONS[name]}.md)." if name in TASK_SECTIONS else ""
        parts.append(f"## {PLACES[name]}\n\n{section['description']}{page}\n")
        parts.append(
            "| field | values | default | example | meaning |\n"
            "| --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def describe_values(value: dict[str, Any]) -> str:
    """Returns the type of a field, the words that it may be, and its range."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"a section ({PLACES[name].split(',')[0]})" if name in PLACES else "a section"
    if "anyOf" in value:
        kinds = [describe_values(kind) for kind in value["anyOf"] if kind.get("type") != "null"]
        sections = [kind for kind in kinds if kind.startswith("a section")]
        if len(sections) > 1:  # of several kinds
            kinds = [*(kind for kind in kinds if kind not in sections), "a section with a kind"]
        if "integer" in kinds and "number" in kinds:
            kinds.remove("integer")
        return "; or ".join(dict.fromkeys(kinds))
    if "const" in value:
        return f"`{json.dumps(value['const']).strip(chr(34))}`"
    if "enum" in value:
        if len(value["enum"]) > _MOST_WORDS:
            return "a name of `tltool models list`"
        return ", ".join(f"`{_write(word)}`" for word in value["enum"])
    kind = value.get("type")
    if kind == "array":
        return f"a list{_count_items(value)} of {_describe_items(value)}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return "a mapping" + (f" to {describe_values(inner)}" if isinstance(inner, dict) else "")
    if kind == "boolean":
        return "`true`, `false`"
    name = {"integer": "integer", "number": "number", "string": "text"}.get(str(kind), "any value")
    return name + _describe_range(value)


def _describe_items(value: dict[str, Any]) -> str:
    items = value.get("items") or next(iter(value.get("prefixItems", [])), {})
    return re.sub("^a (section|list)", r"\1s", describe_values(items))


def _count_items(value: dict[str, Any]) -> str:
    low, high = value.get("minItems"), value.get("maxItems")
    return f" of {low}" if low is not None and low == high else ""


def _describe_range(value: dict[str, Any]) -> str:
    """Returns the limits of a number in words; "" if there are none."""
    low, high = value.get("minimum"), value.get("maximum")
    above, below = value.get("exclusiveMinimum"), value.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    parts = [
        text
        for text in (
            "" if low is None else f"{low:,} or more",
            "" if above is None else f"above {above:,}",
            "" if high is None else f"{high:,} or less",
            "" if below is None else f"below {below:,}",
        )
        if text
    ]
    return f", {' and '.join(parts)}" if parts else ""


def find_example(value: dict[str, Any], schema: dict[str, Any]) -> str:
    """Returns an example of a field as YAML: its own, or else one that follows from its values.

    Raises:
        LookupError: Nothing follows; the field needs `examples`.
    """
    for name in ("examples", "enum"):
        if value.get(name):
            return _write(value[name][0])
    default = value.get("default")
    if value.get("type") == "boolean":
        return _write(not default)
    if "const" in value:
        return _write(value["const"])
    if default not in (None, {}, [], "") and not isinstance(default, dict):
        return _write(default)
    for kind in value.get("anyOf", ()):
        if "enum" in kind:
            return _write(kind["enum"][0])
    for kind in (value, *value.get("anyOf", ())):
        if "$ref" in kind:
            section = schema["$defs"][kind["$ref"].rpartition("/")[2]]
            fields = section.get("required") or list(section["properties"])[:1]
            parts = {name: find_example(section["properties"][name], schema) for name in fields}
            return "{" + ", ".join(f"{name}: {text}" for name, text in parts.items()) + "}"
    raise LookupError(f"{value.get('title')}: {value['description']}")


def _write(value: Any) -> str:
    """Returns a value as YAML on one line, without quotes around words."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_write(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_write, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_./][\w ./-]*", value):
        return value
    return json.dumps(value)


def _default(field: str, value: dict[str, Any], section: dict[str, Any]) -> str:
    if field in section.get("required", ()):
        return "required"
    default = value.get("default")
    if default in (None, {}, []) or isinstance(default, dict):
        return ""
    return _cell(f"`{_write(default)}`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Writes the four files."""
    schema = json_schema(ARCHITECTURES)
    (ROOT / "docs" / "recipe.md").write_text(build_reference(schema), encoding="utf-8")
    text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    (ROOT / "recipes" / "recipe.schema.json").write_text(text, encoding="utf-8")
    (ROOT / "docs" / "api.md").write_text(build_api(PLACES), encoding="utf-8")
    (ROOT / "docs" / "runs.md").write_text(
        RUNS + describe_artifacts().rstrip() + "\n" + STATES, encoding="utf-8"
    )


if __name__ == "__main__":
    main()
