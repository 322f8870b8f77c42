"""What became of a run or a search: its state, in a sentence, and the next command."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path

from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.locks import find_holder, is_abandoned
from tl_toolkit.runs.processes import is_gone, shares_kernel

__all__ = [
    "describe_absent",
    "describe_early_end",
    "describe_found",
    "describe_interrupted",
    "describe_resume",
    "describe_unfinished",
    "find_state",
    "name_run",
]


def find_state(folder: RunFolder) -> str:
    """Returns running, killed, interrupted, failed or done; "" where status.json cannot be read.

    A run whose process ended without a word is `killed`, though its status.json says `running`. A
    process of another host lives as long as its lock shows signs of life.

    Args:
        folder: A run or a search.
    """
    status = folder.read_status()
    state = str(status.get("state", ""))
    if state != "running" or find_holder(folder.path) is not None:
        return state
    if is_abandoned(folder.path):
        return "killed"
    is_named = {"pid", "host"} <= set(status)
    if is_named and (is_gone(status) or not shares_kernel(status)):
        # It may have ended between the two looks, and has said how.
        return "killed" if folder.read_status() == status else find_state(folder)
    return "running"


def name_run(path: Path) -> str:
    """Returns what to type for a run: NAME/NNN below runs/, else its folder.

    Args:
        path: The run's folder.
    """
    return shlex.quote(_shorten(path))


def _shorten(path: Path) -> str:
    root = Path("runs").resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def describe_interrupted(folder: RunFolder) -> str:
    """Returns what an interrupted run or search leaves, and how Python continues from it.

    Args:
        folder: The run or search.
    """
    name = _shorten(folder.path)
    if folder.kind == "curve":
        resumed = f"tl.curve(..., out={str(folder.path)!r}, resume=True)"
        return f"interrupted; {name} holds what was measured by then: {resumed}"
    if folder.kind == "auto":
        resumed = f"tl.auto(..., out={str(folder.path)!r}, resume=True)"
        return f"interrupted; {describe_found(folder)}: {resumed}"
    if folder.kind != "run":
        if not folder.search.is_file():
            return f"interrupted; {name} holds no trial"
        resumed = f"tl.{folder.kind}(..., out={str(folder.path)!r}, resume=True)"
        return f"interrupted; trials that are done are kept in {name}: {resumed}"
    resumed = f"tl.finetune(..., out={str(folder.path)!r}, resume=True)"
    if folder.model.is_file():
        return (
            f"interrupted; the best weights so far are in {name}: tl.load_run({name!r}), or "
            f"resume with {resumed}"
        )
    return f"interrupted; {name} holds no model yet; resume with {resumed}"


def _find_chosen(folder: RunFolder) -> Path:
    """Returns the folder of the run that an `auto` has chosen, or its own."""
    with contextlib.suppress(DataError, AttributeError):
        return folder.path / str(folder.read_json(folder.auto).get("chosen") or "")
    return folder.path


def describe_found(folder: RunFolder) -> str:
    """Returns what an `auto` that did not end has found by then.

    Args:
        folder: Its folder.
    """
    chosen = _find_chosen(folder)
    best = f"; the best run so far is {_shorten(chosen)}" if chosen != folder.path else ""
    return f"what was done is kept in {_shorten(folder.path)}{best}"


def describe_absent(folder: RunFolder, path: Path) -> RecipeError:
    """Returns the error that a file of a run is not there, by what became of the run.

    Args:
        folder: The run, or the search that was taken for one.
        path: The file.
    """
    if folder.kind != "run":
        what, expected, hint = _describe_search(folder)
    else:
        what, expected, hint = _describe_run(folder)
    return RecipeError(Problem(str(path), f"is missing: {what}", expected, hint))


def describe_early_end(folder: RunFolder) -> str:
    """Returns that the model of a run is not its last one, and what resumes it; "" where it is.

    Args:
        folder: A run that holds a model.
    """
    end = {
        "killed": "was killed",
        "interrupted": "was interrupted",
        "failed": "failed",
    }.get(find_state(folder))
    if end is None:
        return ""
    return (
        f"the run {end} before its end: its model is the best by then; to resume it: "
        f"{describe_resume(folder)}"
    )


def describe_unfinished(folder: RunFolder, typed: str, holds_model: bool) -> Problem:
    """Returns the problem that a name stands for no finished run, by what became of its last one.

    Args:
        folder: The last run of the name.
        typed: What was typed for it.
        holds_model: Whether a run of the name holds a model, which `--any` finds.
    """
    what, left, hint = _describe_run(folder)
    name = f"{folder.path.parent.name}/{folder.path.name}"
    state = what.replace("the run", name, 1)
    if find_state(folder) == "killed" and not folder.model.is_file():
        state = state.replace("was killed", "was killed before it wrote a model", 1)
    if holds_model:
        hint = "--any for the newest that holds a model"
    return Problem(typed, f"is no finished run; {state}", left, hint)


def _describe_run(folder: RunFolder) -> tuple[str, str, str]:
    """Returns the state of a run, what it left, and what to type."""
    status, state = folder.read_status(), find_state(folder)
    process = f"process {status.get('pid')} on {status.get('host')}"
    what = {
        "running": f"the run is still running ({process})",
        "killed": f"the run was killed ({process} has ended)",
        "interrupted": "the run was interrupted",
        "failed": "the run failed",
        "done": "the run is done",
    }.get(state, "status.json does not say what became of the run")
    if folder.model.is_file():
        return what, "The run holds its model.", f"tltool evaluate {name_run(folder.path)}"
    if state == "running":
        hint = f"wait for it, or `kill {status.get('pid')}`, which keeps its best weights"
        return what, "Its model is written when training ends.", hint
    reason = (str(status.get("error") or "").splitlines() or ["command.log may say why."])[0]
    left = {
        "killed": "It left no model: that is written when training ends, or when Ctrl-C or `kill` "
        "without -9 interrupts it. It can go on.",
        "interrupted": "It left no model: its first evaluation was not over. It can go on.",
        "failed": f"It left no model: {reason}",
        "done": "A finished run holds this file; it was removed later.",
    }.get(state, "It left no model.")
    return what, left, describe_resume(folder)


def _describe_search(folder: RunFolder) -> tuple[str, str, str]:
    """Returns the state of a search, what it left, and what to type."""
    kind = folder.kind
    if kind == "curve":
        hint = f"tltool finetune {shlex.quote(str(folder.recipe))}"
        return "this is a curve, which holds no model", "It holds curve.json.", hint
    if kind == "auto":
        what = "this is what tltool auto tried, in which models are runs of their own"
        hint = f"tltool evaluate {name_run(_find_chosen(folder))}"
        return what, "auto.json says which one it chose.", hint
    if folder.best_recipe.is_file():
        what = f"this is a {kind}, which holds no model"
        hint = f"tltool finetune {shlex.quote(str(folder.best_recipe))}"
        return what, "Its winner is a recipe, best.yaml, whose run holds the model.", hint
    state, pid = find_state(folder), folder.read_status().get("pid")
    if state == "running":
        what = f"this is a {kind} that is still running (process {pid})"
        return what, "When it ends, its winner is a recipe, best.yaml.", "wait for it"
    end = {"killed": "was killed", "failed": "failed"}.get(state, "was interrupted")
    what = f"this is a {kind} that {end}"
    if not folder.search.is_file():
        recipe = shlex.quote(str(folder.recipe)) if folder.recipe.is_file() else "RECIPE"
        return what, "It ended before its first trial.", f"tltool {kind} {recipe}"
    return what, "Once it is resumed and ends, its winner is best.yaml.", describe_resume(folder)


def describe_resume(folder: RunFolder) -> str:
    """Returns the command that resumes a run or search by its own recipe, overrides included.

    Args:
        folder: Its folder.
    """
    recipe = str(folder.recipe) if folder.recipe.is_file() else "RECIPE"
    verb = "finetune" if folder.kind == "run" else folder.kind
    command = ["tltool", verb, recipe, "--resume", "--out", str(folder.path)]
    return shlex.join([*command, *(_list_depths(folder) if folder.kind == "sweep" else ())])


def _list_depths(folder: RunFolder) -> list[str]:
    """Returns the options that a sweep was begun with: its phase, and whether units were swept."""
    try:
        space = json.loads(folder.search.read_text(encoding="utf-8"))["search"]["space"]
        ((field, depths),) = space.items()
        by_units = any(isinstance(depth, dict) for depth in depths["choices"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return ["--phase", field.split(".")[1], *(["--units"] if by_units else [])]
