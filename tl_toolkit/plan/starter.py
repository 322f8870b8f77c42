"""A first recipe for a folder or table of images: its contents, and choices with reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tl_toolkit.catalog.lookup import Architecture, find_architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem, RecipeError, closest, nearest
from tl_toolkit.plan.resizing import choose_channels, choose_resize
from tl_toolkit.plan.starter_lines import NAMED_COUNTS, SPLIT_NAMES, remark
from tl_toolkit.plan.starter_model import write_task, write_training
from tl_toolkit.plan.tasks import Proposal, TaskPlanning, naming_addresses
from tl_toolkit.recipe.fields import find_path_fault
from tl_toolkit.recipe.remote import is_address, name_object
from tl_toolkit.recipe.tasks import TASKS, find_task
from tl_toolkit.recipe.yaml_reader import read_scalar
from tl_toolkit.sources.addresses import find_source
from tl_toolkit.sources.class_folders import prefers_folders
from tl_toolkit.sources.tables import (
    NOT_TARGETS,
    is_table,
    mend_decimal,
    read_columns,
    read_header,
)

__all__ = ["Starter", "write_starter"]

_NAMES_OF_PATH = {
    "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_name",
    "image_id", "img", "img_path", "photo", "picture",
}  # fmt: skip


_CLASSES = ("label", "labels")
"""Columns that name classes: a metadata file with one counts more than folders of images."""


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


@naming_addresses()
def write_starter(
    data_dir: Path, *, base: str = "mobilenet", place: Path = Path(), task: str = ""
) -> Starter:
    """Inspects a folder or a table and writes a recipe for it.

    Args:
        data_dir: A folder per class, or folders images and masks, optionally inside folders train,
            validation (or val) and test; or a table of images and targets; or images with masks
            as PASCAL VOC or COCO have them. Each may be an address on an object store.
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
    data_dir = find_source(data_dir, "DATA_DIR")
    if fault := find_path_fault(str(data_dir)):
        what = f"{str(data_dir)!r} cannot be named in a recipe"
        raise RecipeError(Problem("tltool init", what, f"{fault}.", "mv it to another name"))
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
    channels = choose_channels(data_dir)
    count = channels[0] if channels else RGB
    kind, proposal = _find_proposal(data_dir, place, record.default_size, task, count)
    name = _name_recipe(proposal.folder)
    resize = choose_resize(data_dir, is_centred=proposal.is_centred, channels=count)
    choices = (
        f"task: {kind}, by {proposal.reason}",
        *([f"data.channels: {channels[0]}, as {channels[1]}"] if channels else []),
        *([f"data.resize: {resize[0]}, as {resize[1]}"] if resize else []),
        *(f"not used: {it}" for it in proposal.ignored),
        *(f"warning: {it}" for it in proposal.doubts),
    )
    text = _compose(name, record, proposal, resize, channels)
    return Starter(text, name, proposal.next_step, choices)


def _find_proposal(
    source: Path, place: Path, image_size: int, task: str, channels: int
) -> tuple[str, Proposal]:
    """Asks each task in turn, or the one that was named; last those that take any folder."""
    plannings = {task: _open_planning(task)} if task else _list_plannings()
    header: tuple[str, ...] = ()
    if prefers_folders(source, *_CLASSES) and (not task or plannings[task].folders):
        plannings = {kind: it for kind, it in plannings.items() if it.folders}
    elif is_table(source):
        header = _read_header(source)
    for kind, planning in sorted(plannings.items(), key=lambda item: item[1].takes_any_folder):
        try:
            proposal = planning.propose(source, place, image_size, channels)
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
    problems = [replace(problem, where="") for problem in problems]  # there is no recipe yet
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
    address = name_object(str(folder))
    folder = Path(address) if is_address(address) else folder.resolve()
    if folder.name.lower() in SPLIT_NAMES["train"]:
        folder = folder.parent
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name).strip("._-")[:57] or "images"
    # YAML would not read a number or a word of its own as text; latest stands for the newest run.
    is_name = isinstance(read_scalar(name), str) and name != "latest"
    return name if is_name else f"images_{name}"


def _compose(
    name: str,
    record: Architecture,
    proposal: Proposal,
    resize: tuple[str, str] | None,
    channels: tuple[int, str] | None,
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
        *write_task(record, proposal),
        "seed: 0",
        "",
        "data:",
        *proposal.data,
        remark(f"  image_size: {record.default_size}", f"{record.minimum_size} or more"),
        *([remark(f"  channels: {channels[0]}", channels[1])] if channels else []),
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
        *write_training(record, proposal, channels[0] if channels else RGB),
    ]
    return "\n".join(lines) + "\n"


def _at_most(counts: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Returns the first lines of a table, and a line for the rest."""
    rest = counts[NAMED_COUNTS:]
    if not rest:
        return list(counts)
    total = sum(count for count, _ in rest)
    return [*counts[:NAMED_COUNTS], (total, f"in {len(rest)} more classes")]
