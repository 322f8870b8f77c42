"""A first recipe for a folder or table of images: its contents, and choices with reasons."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tl_toolkit.catalog.lookup import Architecture, find_architecture
from tl_toolkit.errors import DataError, Problem, RecipeError, closest, nearest
from tl_toolkit.plan.preset import estimate_splits, resolve_preset
from tl_toolkit.plan.resizing import choose_resize
from tl_toolkit.plan.tasks import Proposal, TaskPlanning
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.schedules import Schedule
from tl_toolkit.recipe.schema import Phase
from tl_toolkit.recipe.tasks import TASKS, find_task
from tl_toolkit.recipe.yaml_reader import read_scalar
from tl_toolkit.sources.listing import is_junk
from tl_toolkit.sources.tables import NOT_TARGETS, mend_decimal, read_columns, read_header

__all__ = [
    "Starter",
    "find_splits",
    "quote",
    "remark",
    "write_classes",
    "write_paths",
    "write_starter",
    "write_table",
]

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
_NAMED_COUNTS = 20
_FRACTION = 0.2  # of the images, for validation
_NAMES_OF_PATH = {
    "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_name",
    "image_id", "img", "img_path", "photo", "picture",
}  # fmt: skip


class Starter(NamedTuple):
    """A first recipe.

    Attributes:
        text: The recipe.
        name: Its name.
        next_step: What makes it valid, as "name the classes in it"; "" if it is.
        choices: Sentences on what was chosen for its user, and why.
    """

    text: str
    name: str
    next_step: str
    choices: tuple[str, ...] = ()


def write_starter(
    data_dir: Path, *, base: str = "mobilenet", place: Path = Path(), task: str = ""
) -> Starter:
    """Inspects a folder or a table and writes a recipe for it.

    Args:
        data_dir: A folder per class, or folders images and masks, optionally inside folders train,
            validation (or val) and test; or a CSV table of images and targets.
        base: Architecture to start from.
        place: Folder that the recipe will be in; its paths are relative to it.
        task: The task; by default the first one that recognizes the data.

    Returns:
        The recipe; a table or folder may leave open what its user must add.

    Raises:
        DataError: There is no such folder or table, or it holds nothing that a task recognizes.
        RecipeError: There is no such architecture, or no such task.
    """
    record = find_architecture(base)
    if task and task not in TASKS:
        expected = f"expected one of {', '.join(TASKS)}"
        near = closest(task, TASKS)
        raise RecipeError(
            Problem(
                "tltool init", f"--task = {task!r}", f"{expected}; {near}" if near else expected
            )
        )
    if not data_dir.is_dir() and not data_dir.is_file():
        raise DataError(
            Problem(
                where=str(data_dir),
                what="is no folder and no table",
                expected=f"Expected {', or '.join(_list_words('folders'))}, or train and "
                "validation folders with either; or a CSV table of images and targets.",
                hint="tltool init DATA_DIR",
            )
        )
    kind, proposal = _find_proposal(data_dir, place, record.default_size, task)
    name = _name_recipe(proposal.folder.resolve())
    resize = choose_resize(data_dir, is_centred=proposal.is_centred)
    choices = (
        f"task: {kind}, by {proposal.reason}",
        *([f"data.resize: {resize[0]}, as {resize[1]}"] if resize else []),
        *(f"not used: {it}" for it in proposal.ignored),
        *(f"warning: {it}" for it in proposal.doubts),
    )
    return Starter(_compose(name, record, proposal, resize), name, proposal.next_step, choices)


def _find_proposal(source: Path, place: Path, image_size: int, task: str) -> tuple[str, Proposal]:
    """Asks each task in turn, or the one that was named; last those that take any folder."""
    header = _read_header(source) if source.is_file() else ()
    plannings = {task: _open_planning(task)} if task else _list_plannings()
    for kind, planning in sorted(plannings.items(), key=lambda item: item[1].takes_any_folder):
        try:
            proposal = planning.propose(source, place, image_size)
        except DataError as error:  # there is no recipe yet whose data.csv could be named
            raise DataError(
                [replace(problem, where="") if problem.where == "data.csv" else problem
                 for problem in error.problems]
            ) from error  # fmt: skip
        if proposal is not None:
            return kind, proposal
    raise _refuse(source, header, plannings)


def _read_header(table: Path) -> tuple[str, ...]:
    """Returns the columns of a table; without `path` no task can use it."""
    header, problems = read_header(table, expected="A table of images and targets is expected")
    if not problems and "path" not in header:
        near = nearest("path", header) or next(
            (name for name in header if name.lower() in _NAMES_OF_PATH), ""
        )
        what = f"has no column path; it has {', '.join(header) or 'none'}"
        hint = f"'path' as the name of {near!r}" if near else ""
        problems = [Problem(str(table), what, hint=hint)]
    if problems:
        raise DataError(problems)
    return header


def _refuse(
    source: Path, header: Sequence[str], plannings: Mapping[str, type[TaskPlanning]]
) -> DataError:
    """Returns why no task can use a folder or a table, with what the table holds."""
    field = "columns" if header else "folders"
    words = list(dict.fromkeys(filter(None, (getattr(it, field) for it in plannings.values()))))
    kinds = ", ".join(plannings) if len(plannings) == 1 else "no task"
    what = f"is no data for {kinds}" if len(plannings) == 1 else f"is a table of {kinds}"
    listed = f"{', '.join(words[:-1])}, or {words[-1]}" if words[1:] else "".join(words)
    expected = f"Expected {'the columns ' if header else ''}{listed or 'another task'}"
    if not header:
        return DataError(Problem(str(source), what, f"{expected}."))
    cells = read_columns(source, header)
    held = "; ".join(
        f"{name!r} holds {cells[name][0].value!r} (line {cells[name][0].line})"
        for name in header
        if name not in NOT_TARGETS and cells[name]
    )
    near = next(filter(None, (nearest(name, ["label", "labels"]) for name in header)), "")
    meant = f" Did you mean the column {near!r}?" if near and near not in header else ""
    firsts = [cells[name][0].value for name in header if name not in NOT_TARGETS and cells[name]]
    comma = next(filter(mend_decimal, firsts), "")
    hint = f"a decimal point: {mend_decimal(comma)} for {comma}" if comma else ""
    expected = f"{expected}; {held or 'it has no rows of targets'}.{meant}"
    return DataError(Problem(str(source), what, expected, hint))


def _open_planning(kind: str) -> type[TaskPlanning]:
    planning: type[TaskPlanning] = find_task(kind)().open("planning").Planning
    return planning


def _list_plannings() -> dict[str, type[TaskPlanning]]:
    return {kind: _open_planning(kind) for kind in TASKS}


def _list_words(field: str) -> list[str]:
    """Returns what the tasks say that they recognize, each once."""
    words = (str(getattr(planning, field)) for planning in _list_plannings().values())
    return list(dict.fromkeys(filter(None, words)))


def _name_recipe(folder: Path) -> str:
    """Returns the folder's own name, or its parent's if the folder is called train."""
    if folder.name.lower() in SPLIT_NAMES["train"]:
        folder = folder.parent
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name).strip("._-")[:57] or "images"
    # YAML would not read a number or a word of its own as text; latest stands for the newest run.
    is_name = isinstance(read_scalar(name), str) and name != "latest"
    return name if is_name else f"images_{name}"


def find_splits(data_dir: Path) -> dict[str, Path]:
    """Returns the folders that are named after splits, else the folder itself for training.

    Args:
        data_dir: The folder.
    """
    below = {entry.name.lower(): entry for entry in sorted(data_dir.iterdir())
             if entry.is_dir() and not is_junk(entry.name)}  # fmt: skip
    folders = {
        split: below[name]
        for split, names in SPLIT_NAMES.items()
        for name in reversed(names)
        if name in below
    }
    return folders if "train" in folders else {"train": data_dir}


def _compose(
    name: str, record: Architecture, proposal: Proposal, resize: tuple[str, str] | None
) -> str:
    lines = [
        f"# {name}: {proposal.opening}.",
        "# yaml-language-server: $schema=recipe.schema.json",
        "#",
        "#   tltool validate THIS_FILE",
        "#   tltool finetune THIS_FILE",
        "#",
        *(f"#   {count:6,}  {text}" for count, text in _at_most(proposal.counts)),
        *(f"#   not used: {words}" for words in proposal.ignored),
        "version: 1",
        f"name: {name}",
        *proposal.task,
        "seed: 0",
        "",
        "data:",
        *proposal.data,
        remark(f"  image_size: {record.default_size}", f"{record.minimum_size} or more"),
        *([remark(f"  resize: {resize[0]}", resize[1])] if resize else []),
        f"  batch_size: {proposal.batch_size}",
        remark("  broken: skip", "damaged images are named and left out; or refuse"),
        remark("  convert: true", "TIFF and some WebP are re-encoded into the run"),
        "",
        remark("# augment:", "random changes of training images; slower, better with few"),
        "#   flip: horizontal",
        "#   rotation: 0.05",
        "",
        "model:",
        remark(f"  base: {record.name}", "tltool models list"),
        *_write_training(record, proposal),
    ]
    return "\n".join(lines) + "\n"


def write_paths(folders: Mapping[str, Path], place: Path, of_what: str) -> list[str]:
    """Returns lines of `data` for folders of splits.

    Args:
        folders: Folders by split, `train` among them.
        place: Folder that the recipe will be in.
        of_what: What a fraction is taken of, as "each class".
    """
    paths = {split: quote(_relative(path, place)) for split, path in folders.items()}
    lines = [f"  train: {paths['train']}"]
    if "validation" in paths:
        lines.append(f"  validation: {paths['validation']}")
    else:
        lines.append(remark(f"  validation: {_FRACTION}", f"this fraction of {of_what}"))
    if "test" in paths:
        lines.append(f"  test: {paths['test']}")
    return lines


def write_classes(classes: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """Returns the line of `data` that leaves classes out, with the reasons above it.

    Args:
        classes: The classes to use.
        left_out: A sentence for each class that is not used; none writes no line.
    """
    if not left_out:
        return []
    reasons = [f"  # {words}" for words in left_out[:_NAMED_COUNTS]]
    names = ", ".join(map(quote, classes))
    return [*reasons, remark(f"  classes: [{names}]", "or add images, and remove this line")]


def write_table(table: Path, place: Path, of_what: str) -> list[str]:
    """Returns lines of `data` for a table.

    Args:
        table: The CSV file.
        place: Folder that the recipe will be in.
        of_what: As in `write_paths`.
    """
    return [
        f"  csv: {quote(_relative(table, place))}",
        remark(f"  validation: {_FRACTION}", f"this fraction of {of_what}"),
    ]


def _write_training(record: Architecture, proposal: Proposal) -> list[str]:
    """Returns the rest of `model`, and the phases: fine-tuning if there are published weights."""
    head = ["  head:", *proposal.head, "    dropout: 0.2", "", "phases:"]
    if not record.weight_files:
        return [
            remark("  weights: random", "none were published; a file is taken too"),
            *head,
            remark("  - name: all", "from random weights, everything trains"),
            "    epochs: 30",
            "    learning_rate: 1e-3",
            f"    unfreeze: {len(record.blocks)}",
            "    batch_norm: train",
            "    batch_norm_momentum: 0.9",
        ]
    weights = [*_write_arguments(record), remark("  weights: imagenet", "or a file")]
    if proposal.images:
        return [*weights, *_write_preset(record, proposal)]
    last = record.blocks[-1].units[-2:][0].name
    return [
        *weights,
        *head,
        remark("  - name: head", "the new head alone, on a frozen base"),
        "    epochs: 10",
        "    learning_rate: 3e-3",
        remark("  - name: tune", "then the last units too, at a tenth of the rate"),
        "    epochs: 5",
        "    learning_rate: 3e-4",
        remark(f"    unfreeze: {{from: {last}}}", f"tltool models show {record.name}"),
    ]


def _write_preset(record: Architecture, proposal: Proposal) -> list[str]:
    """Returns the head and the phases that a recipe without phases gets, with the reasons."""
    images, validation = estimate_splits(proposal.images, _FRACTION)
    recipe = build_recipe(
        {
            "version": 1,
            "name": "starter",
            "data": {"train": ".", "image_size": record.default_size},
            "model": {"base": record.name, "weights": "imagenet"},
        }
    ).recipe
    recipe, choices = resolve_preset(recipe, record, images, validation, outputs=proposal.outputs)
    head, lines = "model.head.", [remark("  head:", "docs/preset.md says more")]
    for choice in choices:
        if choice.field.startswith(head):
            name = choice.field.removeprefix(head)
            lines.append(remark(f"    {name}: {choice.value}", choice.why))
    why = {choice.field: choice.why for choice in choices}
    if not recipe.phases:
        return [*lines, "", remark("phases: []", why["phases"])]
    lines += ["", "phases:"]
    for phase in recipe.phases:
        lines += [
            remark(f"  - name: {phase.name}", why[f"phases.{phase.name}"]),
            *(f"    {line}" for line in _write_phase(phase)),
        ]
    return lines


def _write_phase(phase: Phase) -> list[str]:
    """Returns lines for the fields of a phase that differ from their defaults, but its name."""
    values = phase.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"name"})
    if isinstance(phase.learning_rate, Schedule):
        values["learning_rate"] = {"kind": phase.learning_rate.kind, **values["learning_rate"]}
    return [f"{name}: {_write_flow(value)}" for name, value in values.items()]


def _write_flow(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_write_flow(it)}' for name, it in value.items())}}}"
    return quote(value) if isinstance(value, str) else f"{value:g}"


def _write_arguments(record: Architecture) -> list[str]:
    """Returns the line of the arguments that published weights differ in, with the least values."""
    published: dict[str, set[float]] = {}
    for file in record.weight_files:
        for name, value in file.when.items():
            if isinstance(value, float) and file.image_size == record.default_size:
                published.setdefault(name, set()).add(value)
    chosen = {name: sorted(values) for name, values in published.items() if len(values) > 1}
    if not chosen:
        return []
    words = ", ".join(f"{name}: {values[0]:g}" for name, values in chosen.items())
    more = ", ".join(f"{value:g}" for values in chosen.values() for value in values[1:])
    return [remark(f"  arguments: {{{words}}}", f"or {more}: larger and slower")]


def remark(line: str, text: str) -> str:
    """Returns a line followed by a remark.

    Args:
        line: Line of a recipe.
        text: The remark.
    """
    return f"{line:<32} # {text}"


def _relative(path: Path, place: Path) -> str:
    """Returns a relative path if the recipe and its data are near, so that both can be moved."""
    relative = os.path.relpath(path, place)
    return str(path.absolute()) if relative.startswith("../..") else relative


def _at_most(counts: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Returns the first lines of a table, and a line for the rest."""
    rest = counts[_NAMED_COUNTS:]
    if not rest:
        return list(counts)
    total = sum(count for count, _ in rest)
    return [*counts[:_NAMED_COUNTS], (total, f"in {len(rest)} more classes")]


def quote(text: str) -> str:
    """Returns a path or a name as YAML: plain if it can be, else in double quotes.

    Args:
        text: The path or name.
    """
    is_plain = re.fullmatch(r"[A-Za-z0-9./_-]*[A-Za-z/_][A-Za-z0-9./_-]*", text)
    if is_plain and isinstance(read_scalar(text), str):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
