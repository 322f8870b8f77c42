"""Builds docs/api.md from the docstrings of the public names.

`docs/build.py` writes it; this module only returns the text.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import tl_toolkit as tl
from tl_toolkit.recipe.fields import Section
from tl_toolkit.recipe.tasks import TASKS, find_task

OPENING = """# Python API

Written by `python docs/build.py` from the docstrings, which `help(tl.finetune)` shows too:
`import tl_toolkit as tl`. Importing it costs no TensorFlow; the first function that needs it
starts it.
"""
GROUPS: dict[str, tuple[str, ...]] = {
    "Training": ("finetune", "search", "sweep", "curve", "rank_bases", "hypermodel", "auto"),
    "Runs": ("load_run", "Run", "SearchRun", "CurveRun", "AutoRun", "card", "push", "Pushed"),
    "Speed": ("benchmark", "Benchmark"),
    "Serving": ("serve",),
    "Long lists of images": ("predict_list", "ListPredictions"),
    "What lies under runs/": (
        "list_runs",
        "describe_run",
        "compare",
        "report",
        "reproduce",
        "remove_runs",
        "prune_runs",
    ),
    "Features": ("embed", "similar", "label_next"),
    "Recipes": ("validate", "load_recipe", "LoadedRecipe"),
    "Data": ("check_data", "split_data"),
    "Keras models": ("build_model", "load_model"),
    "Architectures": (
        "list_architectures",
        "describe_architecture",
        "render_architecture",
        "probe_architecture",
    ),
    "Inside a model": (
        "explain",
        "render_activations",
        "render_filters",
        "render_edge_filters",
        "Base",
    ),
    "Weight files": ("list_weights", "pull_weights", "verify_weights", "import_weights"),
    "Events": ("Event",),
    "The machine": ("describe_environment",),
    "The feature store": ("FeatureCache", "fill_features"),
}
ELSEWHERE = ("Recipe", "ToolkitError", "errors", "recipe", "tasks")
"""Public names that have tables of their own."""
RETURNED = {
    "`tl.validate` returns a plan": ("plan.plan", ("Plan",)),
    "`tl.check_data` returns a report": ("audit.report", ("DataReport",)),
    "`tl.split_data` returns a split": ("audit.split", ("DataSplit", "SplitImage")),
    "`DataReport.findings` holds findings": ("audit.findings", ("Finding",)),
    "`Run.predict` returns predictions, `Run.tabulate` a table": (
        "tasks.predictions",
        ("Prediction", "Table"),
    ),
    "`Run.predict` of a classification": ("tasks.classification.outputs", ("ClassPrediction",)),
    "`Run.predict` of a multilabel task": ("tasks.multilabel.outputs", ("LabelsPrediction",)),
    "`Run.predict` of a regression": ("tasks.regression.outputs", ("ValuesPrediction",)),
    "`Run.predict` of a dense task": ("tasks.dense.outputs", ("MapPrediction",)),
    "`tl.explain` returns explanations": ("api.explain", ("Explanation",)),
    "`tl.render_filters` returns matches": ("inspect.filters", ("FilterMatch",)),
    "`tl.list_runs` returns what is known of each run": ("api.listing", ("RunInfo",)),
    "`tl.describe_run` returns a description": ("api.listing", ("RunDescription", "PhaseRecord")),
    "`tl.compare` returns a comparison": (
        "api.comparing",
        ("RunComparison", "PairedTest", "Difference"),
    ),
    "`tl.rank_bases` returns a ranking": ("api.rank_bases", ("BaseRanking", "RankedBase")),
    "`tl.embed` returns features": ("api.embedding", ("Features",)),
    "`tl.similar` returns images": ("api.similar", ("SimilarImage",)),
    "`tl.label_next` returns images to label": ("api.label_next", ("ToLabel", "UnlabelledImage")),
    "`tl.reproduce` returns both runs, compared": (
        "api.reproducing",
        ("Reproduction", "ComparedPart"),
    ),
    "`tl.remove_runs` returns what was removed": ("runs.removal", ("Removed",)),
    "`tl.prune_runs` returns what may go": ("api.removal", ("Pruned",)),
    "`SearchRun.trials` holds trials": ("tuning.journal", ("Trial",)),
    "`tl.describe_architecture` returns a description": (
        "inspect.describe",
        ("Description", "Row"),
    ),
    "`tl.list_weights` returns published files": ("catalog.published", ("PublishedFile",)),
    "`tl.verify_weights` returns verdicts": ("transfer.weight_cache", ("Verdict",)),
    "`tl.probe_architecture` returns a probe": ("inspect.probe", ("Probe", "BlockProbe")),
}
"""Classes that no one builds: a title, their module, their names."""
_TYPES = """## Words in the signatures

| word | what it stands for |
| --- | --- |
| `RecipeSource` | A recipe's file, its contents, a `tl.Recipe`, or a `tl.LoadedRecipe`. |
| `Overrides` | Texts, `["phases.head.epochs=3", "~data.test"]`, or a mapping of dotted fields to \
values, `{"phases.head.epochs": 3}`. |
| `Handler` | A function that receives each `tl.Event`; several threads call it. |
| `InFolder` | What `tl.load_run`, `tl.search`, `tl.sweep` and `tl.curve` return. |
| `Runs` | A run, or a list of runs: folders, NAME/NNN, or what `tl.load_run` returns. |
| `Image` | A path, or an array: uint8 (h, w, 3), (h, w) or (n, h, w, 3). |
"""
_WIDTH = 88
_HEADING = re.compile(r"(Args|Returns|Yields|Raises|Attributes):")


def build_api(places: Mapping[str, str]) -> str:
    """Returns the reference of the Python API as Markdown.

    Args:
        places: Headings of docs/recipe.md by the name of their class.
    """
    parts = [OPENING]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [_write_object(f"tl.{name}", getattr(tl, name)) for name in names]
    parts.append("## What the functions return\n")
    for title, (module, names) in RETURNED.items():
        parts.append(f"{title}, of `tl_toolkit.{module}`:\n")
        home = import_module(f"tl_toolkit.{module}")
        parts += [_write_class(name, getattr(home, name), call=False) for name in names]
    return "\n".join([*parts, _write_sections(places), _write_errors(), _TYPES])


def _write_object(name: str, value: Any) -> str:
    return _write_class(name, value) if isinstance(value, type) else _write_function(name, value)


def _write_function(name: str, function: Callable[..., Any], level: str = "###") -> str:
    heading = f"{level} {name}\n\n```python\n{write_signature(name, function)}\n```\n"
    return f"{heading}\n{write_docstring(function)}"


def _write_class(name: str, kind: type, *, call: bool = True) -> str:
    """Returns a class: its docstring, its properties, then its methods.

    Args:
        name: As it is read.
        kind: The class.
        call: Whether a user may build one, so that its signature is of interest.
    """
    signature = f"```python\n{write_signature(name, kind)}\n```\n\n" if call else ""
    parts = [f"### {name}\n\n{signature}{write_docstring(kind)}"]
    members = dict(_list_members(kind))
    if properties := {key: item for key, item in members.items() if not callable(item)}:
        items = [_write_property(key, item) for key, item in properties.items()]
        parts.append("Properties:\n\n" + "\n".join(items) + "\n")
    methods = {key: item for key, item in members.items() if callable(item)}
    short = name.rpartition(".")[2]
    parts += [_write_function(f"{short}.{key}", item, "####") for key, item in methods.items()]
    return "\n".join(parts)


def _list_members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yields the public properties and methods of a class and of its parents in this package."""
    names = dict.fromkeys(
        name
        for parent in reversed(kind.__mro__)
        if parent.__module__.startswith("tl_toolkit")
        for name in vars(parent)
        if not name.startswith("_")
    )
    for name in names:
        value = inspect.getattr_static(kind, name)
        if isinstance(value, property | cached_property) or inspect.isfunction(value):
            yield name, value


def _write_property(name: str, value: property | cached_property[Any]) -> str:
    function = value.fget if isinstance(value, property) else value.func
    kind = inspect.get_annotations(function).get("return", "Any")
    prose, _ = split_docstring(inspect.getdoc(function) or "")
    return f"- `{name}: {kind}`: {_as_text(' '.join(prose.split()))}"


def write_signature(name: str, value: Callable[..., Any]) -> str:
    """Returns a signature as code, on one line where it fits, else a line for each parameter.

    Args:
        name: What is called.
        value: A function or a class.
    """
    signature = inspect.signature(value)
    parameters = [item for item in signature.parameters.values() if item.name != "self"]
    words: list[str] = []
    for item in parameters:
        is_first_keyword = item.kind is item.KEYWORD_ONLY and "*" not in words
        words += ["*"] if is_first_keyword else []
        words.append(_write_parameter(item))
    returned = "" if isinstance(value, type) else f" -> {_annotation(signature.return_annotation)}"
    line = f"{name}({', '.join(words)}){returned}"
    if len(line) <= _WIDTH:
        return line
    inside = "".join(f"    {word},\n" for word in words)
    return f"{name}(\n{inside}){returned}"


def _write_parameter(item: inspect.Parameter) -> str:
    text = f"{item.name}: {_annotation(item.annotation)}"
    if item.default is item.empty:
        return text
    if repr(item.default).startswith("<"):
        return f"{text} = ..."  # made anew for each call
    default = item.default
    return f"{text} = {repr(str(default)) if isinstance(default, Path) else repr(default)}"


def _annotation(value: Any) -> str:
    return value if isinstance(value, str) else inspect.formatannotation(value)


def write_docstring(value: Any) -> str:
    """Returns a docstring as Markdown: its prose, then a list for each section.

    Args:
        value: What has the docstring.
    """
    prose, sections = split_docstring(inspect.getdoc(value) or "")
    parts = [f"{_as_text(prose)}\n"]
    for title, items in sections.items():
        if title in ("Returns", "Yields"):
            parts.append(f"{title}: {_as_text(' '.join(' '.join(items).split()))}\n")
        else:
            parts.append(f"{title}:\n\n" + "\n".join(map(_write_item, items)) + "\n")
    return "\n".join(parts)


def split_docstring(docstring: str) -> tuple[str, dict[str, list[str]]]:
    """Returns the prose of a docstring, and the items of its sections by title.

    Args:
        docstring: In Google's style, without indentation.
    """
    prose: list[str] = []
    sections: dict[str, list[str]] = {}
    lines = prose
    for line in docstring.splitlines():
        if heading := _HEADING.fullmatch(line):
            lines = sections[heading[1]] = []
        elif lines is prose:
            lines.append(line)
        elif re.match(r" {4}\S", line) or (line.strip() and not lines):
            lines.append(line.strip())
        elif line.strip():  # the rest of an item is indented further
            lines[-1] += f" {line.strip()}"
    return "\n".join(prose).strip(), sections


def _write_item(item: str) -> str:
    name, _, text = item.partition(": ")
    return f"- `{name}`: {_as_text(text)}"


def _as_text(text: str) -> str:
    """Returns text in which Markdown sees no tags, outside of code."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def _write_sections(places: Mapping[str, str]) -> str:
    """Returns tables of the classes that recipes are built of."""
    named = {f"tl.recipe.{name}": getattr(tl.recipe, name) for name in dir(tl.recipe)}
    named |= {f"tl.tasks.{find_task(kind).__name__}": find_task(kind) for kind in TASKS}
    rows = ["| class | fields | what it is |", "| --- | --- | --- |"]
    for name, kind in named.items():
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            continue
        short = name.rpartition(".")[2]
        place = places.get(short)
        anchor = f"#{slug(place)}" if place else "#the-top-level"
        fields = ", ".join(f"`{field}`" for field in kind.model_fields)
        first = split_docstring(inspect.getdoc(kind) or "")[0].partition("\n\n")[0]
        rows.append(f"| [`{name}`](recipe.md{anchor}) | {fields} | {_as_text(first)} |")
    prose = (
        "`tl.Recipe` is the whole recipe, frozen, of the sections in this table; their fields are\n"
        "described in [recipe.md](recipe.md) and by `help(tl.recipe.Data)`. A class refuses what\n"
        "does not fit with a `RecipeError`.\n"
    )
    return f"## Sections of a recipe\n\n{prose}\n" + "\n".join(rows) + "\n"


def slug(heading: str) -> str:
    """Returns the anchor that GitHub gives a heading.

    Args:
        heading: Its text, without code or links.
    """
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _write_errors() -> str:
    """Returns a table of the errors, with the exit code of a command that ends with each."""
    errors = [
        item
        for item in vars(tl.errors).values()
        if isinstance(item, type) and issubclass(item, tl.errors.ToolkitError)
    ]
    rows = [
        "| error of `tl.errors` | child of | exit code | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for item in errors:
        prose, _ = split_docstring(inspect.getdoc(item) or "")
        parent = "" if item is tl.errors.ToolkitError else f"`{item.__base__.__name__}`"
        rows.append(f"| `{item.__name__}` | {parent} | {item.exit_code} | {_as_text(prose)} |")
    prose = (
        "Whatever a user can cause is a `tl.ToolkitError`. Its text is meant to be read, and\n"
        "`problems` is a tuple of `tl.errors.Problem`:\n"
    )
    table = "\n".join(rows)
    problem = write_docstring(tl.errors.Problem).partition("\n\n")[2]
    return f"## Errors\n\n{prose}\n{problem}\n{table}\n"
