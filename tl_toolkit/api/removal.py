"""`remove_runs` and `prune_runs`: nothing is removed that was not named or listed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.api.listing import RunInfo, list_runs, name_below, read_info, read_json
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.listing import list_folders
from tl_toolkit.runs.removal import Removed, find_removable, remove_folder

__all__ = ["Pruned", "find_needing", "plan_removal", "prune_runs", "remove_runs"]

_PRUNED = ("interrupted", "killed", "failed")

Runs = str | Path | InFolder | Sequence[str | Path | InFolder]
"""A run, or several: folders, names, or what `load_run` returns."""


@dataclass(frozen=True)
class Pruned:
    """A run that `prune_runs` removes, or would remove.

    Attributes:
        info: The run.
        reason: Why: its state, or its place among the runs of its name.
    """

    info: RunInfo
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""
        return {**self.info.as_json(), "reason": self.reason}


def remove_runs(runs: Runs, *, root: str | Path = "runs") -> list[Removed]:
    """Deletes runs, each by its own name: what it has written, and nothing else.

    Files that no run writes stay, and so does their folder; links are deleted, and not what they
    stand for. `latest` then means the newest run that is left. All are checked before the first is
    deleted.

    Args:
        runs: Folders, or NAME/NNN. `latest` and NAME are refused, as they name no certain run.
        root: Folder of all runs.

    Returns:
        For each its `path`, and as `kept` the names of what stays in it.

    Raises:
        RecipeError: One is no run, lies behind a link, or a process writes to it.
        OutputError: A folder cannot be written.
    """
    paths = [info.path for info in plan_removal(runs, root=root)]
    return [remove_folder(RunFolder(path), root=Path(root)) for path in paths]


def plan_removal(runs: Runs, *, root: str | Path = "runs") -> list[RunInfo]:
    """Returns what `remove_runs` would delete; its arguments and errors are the same.

    Args:
        runs: As in `remove_runs`.
        root: As in `remove_runs`.
    """
    several = [runs] if isinstance(runs, str | Path | InFolder) else runs
    typed = [run.path if isinstance(run, InFolder) else run for run in several]
    folders = find_removable(typed, root=Path(root))
    top = Path(os.path.abspath(root))
    return [read_info(folder, top) for folder in folders]


def find_needing(infos: Iterable[RunInfo], *, root: str | Path = "runs") -> list[tuple[str, str]]:
    """Returns pairs of names: a run that stays, and one that it started from or learned from.

    Args:
        infos: The runs that are to be removed.
        root: Folder of all runs.
    """
    gone = {info.path.resolve(): info.name for info in infos}
    top = Path(os.path.abspath(root))
    return [
        (name_below(folder.path, top), gone[needed])
        for folder in list_folders(top)
        if folder.path.resolve() not in gone
        for needed in _list_needed(folder)
        if needed in gone
    ]


def _list_needed(folder: RunFolder) -> list[Path]:
    """Returns the runs that lock.json says a run started from, and learned from."""
    lock = read_json(folder.lock)
    sections = (lock.get("start"), lock.get("teacher"))
    return [Path(section["run"]).resolve() for section in sections if section]


def prune_runs(
    names: Sequence[str] = (),
    *,
    root: str | Path = "runs",
    keep: int | None = None,
    remove: bool = False,
) -> list[Pruned]:
    """Lists runs that may go, and removes them if that is asked for.

    These are the runs that did not end (interrupted, killed, failed), and with `keep` those of each
    recipe name that are done and not among the best, by their score on validation images. A run
    that another one started from or learned from stays as long as that one does.

    Args:
        names: Names of recipes; all by default.
        root: Folder of all runs.
        keep: How many runs of each name stay, at least 1; None for all that are done.
        remove: Delete them. By default nothing is deleted.

    Returns:
        The runs, in the order of their names, each with its reason.

    Raises:
        RecipeError: `keep` is below 1, or there are no runs of a name.
    """
    if keep is not None and keep < 1:
        expected = "expected a number of at least 1, of the runs that stay of each name."
        raise RecipeError(Problem("--keep", f"got {keep}", expected, "--keep 3"))
    infos = list_runs(root)
    chosen = _select_names(infos, names)
    pruned = [Pruned(info, info.state) for info in chosen if info.state in _PRUNED]
    if keep is not None:
        pruned += _list_worse(chosen, keep)
    pruned = _spare_needed(pruned, root)
    order = {info.path: place for place, info in enumerate(infos)}
    pruned.sort(key=lambda each: order[each.info.path])
    if remove:
        remove_runs([each.info.path for each in pruned], root=root)
    return pruned


def _select_names(infos: Sequence[RunInfo], names: Sequence[str]) -> list[RunInfo]:
    known = {_family(info) for info in infos}
    if unknown := sorted(set(names) - known):
        here = f"Here: {', '.join(sorted(known))}." if known else "There are none yet."
        raise RecipeError(
            [Problem(name, "has no runs", here, "tltool runs list") for name in unknown]
        )
    return [info for info in infos if not names or _family(info) in names]


def _family(info: RunInfo) -> str:
    """Returns the name that a run is listed under: that of its folder, which is its recipe's."""
    return Path(info.name).parts[0]


def _list_worse(infos: Sequence[RunInfo], keep: int) -> list[Pruned]:
    """Returns the runs that are done and not among the best of their name, by one metric."""
    groups: dict[tuple[str, str], list[RunInfo]] = {}
    for info in infos:
        if info.kind == "run" and info.state == "done" and "validation" in info.scores:
            groups.setdefault((_family(info), info.metric), []).append(info)
    worse = []
    for (name, metric), members in groups.items():
        # Of equals the newer one comes first.
        members.sort(key=lambda info: (info.scores["validation"], info.updated or 0), reverse=True)
        for place, info in enumerate(members[keep:], start=keep + 1):
            score = f"{metric.replace('_', ' ')} {info.scores['validation']:.4f}"
            worse.append(Pruned(info, f"place {place} of {len(members)} of {name}, by {score}"))
    return worse


def _spare_needed(pruned: list[Pruned], root: str | Path) -> list[Pruned]:
    while needed := {name for _, name in find_needing((each.info for each in pruned), root=root)}:
        pruned = [each for each in pruned if each.info.name not in needed]
    return pruned
