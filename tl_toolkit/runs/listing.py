"""What lies under runs/: folders of runs, their states, and the bytes of their files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tl_toolkit.runs.artifacts import Artifact
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.states import find_state

__all__ = [
    "STATES",
    "UNFINISHED",
    "is_run",
    "judge_state",
    "list_folders",
    "measure_artifacts",
    "measure_size",
]

UNFINISHED = ("interrupted", "killed", "failed", "damaged")
STATES = ("running", "done", *UNFINISHED)
"""What may have become of a run. A damaged one lacks a file that a finished run holds."""

_HELD_WHEN_DONE: dict[str, tuple[Artifact, ...]] = {
    "run": (RunFolder.model, RunFolder.metrics, RunFolder.recipe),
    "search": (RunFolder.summary, RunFolder.best_recipe),
    "sweep": (RunFolder.summary, RunFolder.best_recipe),
    "curve": (RunFolder.curve,),
    "auto": (RunFolder.auto, RunFolder.recipe),
}


def list_folders(root: Path) -> list[RunFolder]:
    """Returns the runs, searches, sweeps and curves below a folder, by name and number.

    Links are not followed, and what lies inside a run (its baseline, the soup of a search) is a
    part of it. A numbered folder that is empty was left by a process that was killed at once.

    Args:
        root: Folder of all runs; need not exist.
    """
    folders = []
    for family in _list_real_folders(root):
        inside = [family] if is_run(family) else filter(is_run, _list_real_folders(family))
        folders += [RunFolder(path) for path in inside]
    return sorted(folders, key=lambda folder: _key(folder.path.relative_to(root)))


def _list_real_folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def is_run(path: Path) -> bool:
    """Returns whether a folder is a run, or a numbered one that a process was killed in.

    Args:
        path: The folder; must exist.
    """
    folder = RunFolder(path)
    return folder.status.is_file() or (path.name.isdecimal() and folder.is_empty())


def _key(relative: Path) -> tuple[str, int, str]:
    number = int(relative.name) if relative.name.isdecimal() else -1
    return (relative.parts[0], number, str(relative))


def judge_state(folder: RunFolder) -> str:
    """Returns one of STATES, by status.json, the process that holds the folder, and its files.

    Args:
        folder: The folder.
    """
    state = find_state(folder)
    if state not in STATES:
        return "damaged"
    held = _HELD_WHEN_DONE.get(folder.kind, ())
    lacks = any(not (folder.path / artifact.relative).is_file() for artifact in held)
    return "damaged" if state == "done" and lacks else state


def measure_size(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder; links count for nothing.

    Args:
        path: File or folder; one that is gone has none.
    """
    try:
        if path.is_symlink():
            return 0
        if not path.is_dir():
            return path.stat().st_size
        return sum(_list_sizes(path))
    except OSError:
        return 0


def _list_sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):  # follows no links
        for name in names:
            try:
                status = os.lstat(os.path.join(place, name))
            except OSError:  # removed meanwhile
                continue
            if not stat.S_ISLNK(status.st_mode):
                yield status.st_size


def measure_artifacts(folder: RunFolder) -> dict[str, int]:
    """Returns the bytes of each artifact that is there, by its path; none counts twice.

    Args:
        folder: The folder.
    """
    listed = [artifact.relative for artifact in folder.list_artifacts()]
    tops = [path for path in listed if not any(path.startswith(f"{top}/") for top in listed)]
    return {path: measure_size(folder.path / path) for path in tops}
