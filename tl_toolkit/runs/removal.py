"""Removes runs: each is named, none is held by a process, and no link leads out of the folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.runs.files import reporting_unwritable
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.listing import is_run, judge_state, list_folders
from tl_toolkit.runs.locks import hold
from tl_toolkit.runs.places import list_numbered, point

__all__ = ["Removed", "find_removable", "remove_folder"]

_LATEST = "latest"


@dataclass(frozen=True)
class Removed:
    """What became of a folder that was removed.

    Attributes:
        path: The folder.
        kept: Names of what stays in it, as no run writes it; empty where the folder is gone.
    """

    path: Path
    kept: tuple[str, ...]


def find_removable(runs: Iterable[str | Path], *, root: Path) -> list[RunFolder]:
    """Returns the folders of runs that may be removed, each of which was named by its own name.

    Args:
        runs: Folders, or NAME/NNN; `latest` and NAME alone name no certain run.
        root: Folder of all runs.

    Raises:
        RecipeError: One is no run, is running, or lies behind a link; all of them at once.
    """
    folders, problems = [], []
    for run in runs:
        path = _find(run, root)
        if problem := _find_problem(str(run), path, root):
            problems.append(problem)
        else:
            folders.append(RunFolder(path))
    if problems:
        raise RecipeError(problems)
    return list({folder.path: folder for folder in folders}.values())


def _find(run: str | Path, root: Path) -> Path:
    """Returns the folder that a name stands for; links are not followed."""
    for path in (root / run, Path(run)):
        if path.is_dir():
            return Path(os.path.abspath(path))
    return Path(os.path.abspath(run))


def _find_problem(typed: str, path: Path, root: Path) -> Problem | None:
    if link := _find_link(path, root):
        expected = "What a link stands for is removed by its own name alone."
        return Problem(typed, f"is behind a link, {link}", expected, f"{path.resolve()}")
    if path.is_dir() and is_run(path):
        if judge_state(RunFolder(path)) != "running":
            return None
        expected = "A run in progress is not removed."
        return Problem(
            typed, f"is running ({_name_process(path)})", expected, "wait for it, or end it"
        )
    numbered = list_numbered(path) if path.is_dir() else []
    if runs := [each for each in numbered if is_run(each) and not each.is_symlink()]:
        expected = "A run is removed by its own name."
        names = " ".join(f"{path.name}/{each.name}" for each in runs)
        return Problem(typed, f"names {len(runs)} runs", expected, names)
    expected = "Only what a run has written is removed: a folder that holds a status.json."
    return Problem(typed, "is no run", expected, "tltool runs list")


def _name_process(path: Path) -> str:
    status = RunFolder(path).read_status()
    return f"process {status.get('pid')} on {status.get('host')}"


def _find_link(path: Path, root: Path) -> Path | None:
    """Returns the first link between the folder of all runs and a run, or the run's own."""
    top = Path(os.path.abspath(root))
    below = path.relative_to(top).parts if path.is_relative_to(top) else ()
    places = [top.joinpath(*below[: count + 1]) for count in range(len(below))] or [path]
    return next((place for place in places if place.is_symlink()), None)


def remove_folder(folder: RunFolder, *, root: Path) -> Removed:
    """Deletes what a run has written, and its folder if nothing else is in it.

    Links in it are deleted, and not what they stand for. `latest` then means the newest run that is
    done, of those that are left.

    Args:
        folder: From `find_removable`.
        root: Folder of all runs.

    Raises:
        OutputError: The folder cannot be written.
        RecipeError: A process holds it.
    """
    with reporting_unwritable(folder.path), hold(folder.path):
        folder.remove_artifacts()
    kept = _remove_empty(folder.path)
    family = folder.path.parent
    if family.parent == Path(os.path.abspath(root)):
        _repair_latest(family, lambda: list_numbered(family))
        with contextlib.suppress(OSError):
            family.rmdir()
    _repair_latest(
        Path(root), lambda: [each.path for each in list_folders(Path(root)) if each.kind == "run"]
    )
    return Removed(folder.path, kept)


def _remove_empty(path: Path) -> tuple[str, ...]:
    """Removes a folder if it is empty; returns what is in it else."""
    try:
        path.rmdir()
    except OSError:
        return tuple(sorted(os.listdir(path)))
    return ()


def _repair_latest(folder: Path, list_runs: Callable[[], Sequence[Path]]) -> None:
    """Points a link `latest` that leads nowhere to the newest run that is done, or removes it."""
    link = folder / _LATEST
    if not link.is_symlink() or link.exists():
        return
    done = [
        path
        for path in list_runs()
        if path.name.isdecimal() and judge_state(RunFolder(path)) == "done"
    ]
    with contextlib.suppress(OSError):
        if not done:
            link.unlink()
            return
        newest = max(done, key=_read_end)
        point(link, str(newest.relative_to(folder)))


def _read_end(path: Path) -> float:
    """Returns when a run wrote its model, or a search that it was done."""
    folder = RunFolder(path)
    return (folder.status if folder.kind != "run" else folder.model).stat().st_mtime
