"""The run folder: numbered, locked to what it was made from, and without a torn file ever."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tl_toolkit.errors import DataError, OutputError, Problem, RecipeError


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it into place when the block succeeds.

    Args:
        path: File or folder to publish. Readers see the old one or the new one, never a part.

    Yields:
        A path that does not exist yet, in the same folder.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    path = Path(path)
    # The suffix stays last: Keras picks the format from it.
    draft = path.with_name(f".{path.stem}.{os.getpid()}.{os.urandom(4).hex()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _sync(draft)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(draft, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def _sync(path: Path) -> None:
    """Forces a file's bytes to the disk, so that the rename cannot outrun them."""
    if path.is_file():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        Problem(
            where=str(path),
            what=f"cannot be written: {error.strerror or error}",
            expected="The run's folder must be on a writable disk with space left.",
            hint="--out DIR with a folder you may write to",
        )
    )


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes one file beside its place and renames it into it.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    # File names that are not UTF-8 come as surrogates, and go back as the bytes they were.
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with drafted(path) as draft:
        draft.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically; a non-finite number becomes null."""
    write_atomically(path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value


def default_cache_dir() -> Path:
    """Returns TL_TOOLKIT_CACHE, or the folder tl_toolkit in the user's cache folder."""
    chosen = os.environ.get("TL_TOOLKIT_CACHE")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tl_toolkit"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name. Holds paths only; nothing is read until asked for."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def lock(self) -> Path:
        """Versions, seeds, and digests of data and weights."""
        return self.path / "lock.json"

    @property
    def status(self) -> Path:
        """State of the run: running, done, failed or interrupted."""
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        """The command, what it printed, and the traceback of an unexpected failure."""
        return self.path / "command.log"

    @property
    def manifest(self) -> Path:
        """Every image with its digest, label, split and verdict."""
        return self.path / "manifest.csv"

    @property
    def classes(self) -> Path:
        """Class names in the order of the model's outputs."""
        return self.path / "classes.json"

    @property
    def metrics(self) -> Path:
        """Metrics of the kept state."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        """The kept model's answer for every validation and test image."""
        return self.path / "predictions.csv"

    @property
    def model(self) -> Path:
        """The kept model, whole: raw RGB pixels to probabilities."""
        return self.path / "model.keras"

    @property
    def checkpoint(self) -> Path:
        """The best state so far, as arrays."""
        return self.path / "checkpoints" / "best.npz"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "logs"

    @property
    def converted(self) -> Path:
        """Images that were re-encoded under `data.convert`."""
        return self.path / "converted"

    @property
    def export(self) -> Path:
        """Exported models and their parity reports."""
        return self.path / "export"

    def phase(self, index: int, name: str) -> Path:
        """Folder of one phase; `index` counts from 0, the folder's number from 1."""
        return self.path / "phases" / f"{index + 1}-{name}"

    def read_json(self, path: Path) -> Any:
        """Reads one of the run's JSON files.

        Raises:
            DataError: It is missing or damaged.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                Problem(
                    where=str(path),
                    what=f"cannot be read: {error}",
                    expected="A finished run holds this file.",
                    hint="tltool finetune again, or name another run",
                )
            ) from error

    def write_status(self, state: str, **facts: Any) -> None:
        """Replaces the run's status; `started` is kept from the first one."""
        started = time.time()
        with contextlib.suppress(OSError, ValueError):
            started = json.loads(self.status.read_text())["started"]
        now = {"state": state, "pid": os.getpid(), "started": started, "updated": time.time()}
        write_json(self.status, now | facts)

    def append_log(self, text: str) -> None:
        """Adds lines to the command log; a log that cannot be written never ends a run."""
        with contextlib.suppress(OSError), _open_log(self.log) as file:
            file.write(text.rstrip("\n") + "\n")


class InFolder:
    """What is kept in a folder of its own: a run, a search.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @property
    def path(self) -> Path:
        """Where the folder is."""
        return self.folder.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"


def _open_log(path: Path) -> TextIO:
    return open(path, "a", encoding="utf-8", errors="backslashreplace")


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
        raise _unwritable(Path(out or root), error) from error


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
