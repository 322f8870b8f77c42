"""Where runs are: numbered folders, found again by name, and never mixed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tl_toolkit.errors import DataError, OutputError, Problem, RecipeError
from tl_toolkit.runs.files import describe_unwritable
from tl_toolkit.runs.folder import RunFolder


def create_run(
    name: str, *, root: Path = Path("runs"), out: Path | None = None, overwrite: bool = False
) -> RunFolder:
    """Makes an empty run folder.

    Args:
        name: The recipe's name: the run becomes `<root>/<name>/<NNN>`, NNN being the next number.
        root: Folder of all runs.
        out: Use this folder instead. It must be new or empty, unless `overwrite`.
        overwrite: Replace the run that `out` holds. Anything else is never deleted.

    Raises:
        OutputError: The folder cannot be made.
        RecipeError: `out` is in use.
    """
    try:
        if out is None:
            return _create_numbered(Path(root).absolute(), name)
        folder = RunFolder(Path(out).resolve())
        _clear(folder, overwrite)
        folder.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.path):
            pass  # proves that files can be made here before an hour of training
        return folder
    except OSError as error:
        raise describe_unwritable(Path(out or root), error) from error


def _create_numbered(root: Path, name: str) -> RunFolder:
    family = root / name
    family.mkdir(parents=True, exist_ok=True)
    numbers = [int(entry.name) for entry in family.iterdir() if entry.name.isdigit()]
    number = max(numbers, default=0) + 1
    while True:
        path = family / f"{number:03d}"
        try:
            path.mkdir()  # atomic: of two processes, one gets this number
        except FileExistsError:
            number += 1
            continue
        return RunFolder(path)


def point_latest(folder: RunFolder, *, root: Path, name: str) -> None:
    """Makes `latest` mean this run, if it is one of the numbered ones.

    Only a run that holds a model is pointed at: a failed one must not hide the last good one.
    """
    root = Path(root).absolute()
    if folder.path.parent == root / name:
        _point(root / name / "latest", folder.path.name)
        _point(root / "latest", f"{name}/{folder.path.name}")


def _point(link: Path, target: str) -> None:
    draft = link.with_name(f".{link.name}.{os.getpid()}.{os.urandom(4).hex()}")
    os.symlink(target, draft)
    os.replace(draft, link)


def _clear(folder: RunFolder, overwrite: bool) -> None:
    if folder.path.is_file():
        raise OutputError(
            Problem(where=f"--out {folder.path}", what="is a file", expected="A folder is needed.")
        )
    if not folder.path.is_dir() or not any(folder.path.iterdir()):
        return
    if not folder.status.is_file():
        raise RecipeError(
            Problem(
                where=f"--out {folder.path}",
                what="is not empty and holds no run",
                expected="A run is written to a new or an empty folder; nothing is deleted here.",
                hint="another --out, or none: runs are numbered",
            )
        )
    if not overwrite:
        raise RecipeError(
            Problem(
                where=f"--out {folder.path}",
                what="holds a run already",
                expected="A run never mixes with another.",
                hint="--overwrite to replace it, another --out, or none: runs are numbered",
            )
        )
    refuse_running(folder)
    shutil.rmtree(folder.path)


def refuse_running(folder: RunFolder) -> None:
    """Leaves a folder alone that another living process writes to.

    Raises:
        RecipeError: There is one.
    """
    status = folder.read_json(folder.status)
    alive = status.get("state") == "running" and is_alive(int(status.get("pid", 0)))
    if alive and status["pid"] != os.getpid():
        raise RecipeError(
            Problem(
                where=str(folder.path),
                what=f"is being written by process {status['pid']}",
                expected="What is in progress is not replaced.",
                hint="wait for it, or another --out",
            )
        )


def is_alive(pid: int) -> bool:
    """Tells whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a number that no process can have
        return False
    except OSError:
        return True
    return True


def find_run(run: str | Path, *, root: Path = Path("runs")) -> RunFolder:
    """Finds a run by folder, `<name>/<NNN>`, `<name>/latest` or `latest`.

    Raises:
        DataError: There is no such run; the message lists those that there are.
    """
    for path in (Path(run), Path(root) / run):
        if (path / "status.json").is_file():
            return RunFolder(path.resolve())
    known = sorted(
        str(entry.parent.relative_to(root)) for entry in Path(root).glob("*/[0-9]*/status.json")
    )
    raise DataError(
        Problem(
            where=str(run),
            what="is no run",
            expected="A run is a folder, <name>/<NNN>, <name>/latest or latest. "
            + (f"Here: {', '.join(known[-8:])}." if known else f"{root}/ holds none yet."),
            hint="tltool finetune recipes/quickstart.yaml",
        )
    )
