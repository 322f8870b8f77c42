"""Creates and finds the numbered folders of runs, which never mix."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tl_toolkit.errors import DataError, OutputError, Problem, RecipeError, ToolkitError, nearest
from tl_toolkit.runs.files import describe_unwritable, remove_drafts
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.locks import hold, is_taken_over
from tl_toolkit.runs.results import finish
from tl_toolkit.runs.states import describe_unfinished

_MAX_NAMED = 8
_REMOTE_RUN = Problem(
    "the run",
    "has the address of an object store",
    "A run of this machine is expected; only --from, model.start and teacher take an address.",
    "aws s3 cp --recursive s3://BUCKET/RUN runs/NAME/001, and that folder",
)


@contextlib.contextmanager
def create_run(
    name: str,
    *,
    root: Path = Path("runs"),
    out: Path | None = None,
    overwrite: bool = False,
    kind: str = "run",
) -> Iterator[RunFolder]:
    """Creates an empty run folder and locks it while the block writes to it.

    The folder's status says `running` in the block, and afterwards how the block ended. A block
    that is refused before training began (weights that cannot be fetched, say) leaves no folder.

    Args:
        name: The recipe's name: the run becomes `<root>/<name>/<NNN>`, NNN being the next number.
        root: Folder of all runs.
        out: Use this folder instead. It must be new or empty, unless `overwrite`.
        overwrite: Remove the artifacts of the run that `out` holds, if it is of the same kind.
            Other files in it stay.
        kind: run, search, sweep or curve; the status holds it from the beginning.

    Yields:
        The folder.

    Raises:
        OutputError: The folder cannot be created.
        RecipeError: `out` is in use.
    """
    existed = out is not None and os.path.exists(out)
    refused: list[Path] = []
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, refused)  # when the lock is released
        try:
            if out is None:
                folder = create_numbered(Path(root).absolute(), name)
                stack.enter_context(hold(folder.path))
            else:
                folder = RunFolder(Path(out).resolve())
                _check_free(
                    folder, overwrite, kind
                )  # before a lock file is put into a foreign folder
                folder.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold(folder.path))
                _check_free(folder, overwrite, kind)
                folder.remove_artifacts()
        except OSError as error:
            raise describe_unwritable(Path(out or root), error) from error
        try:
            with _recorded(folder, kind=kind):
                yield folder
        except ToolkitError:
            if not folder.has_begun() and not is_taken_over(folder.path):
                folder.remove_artifacts()
                if not existed:
                    refused.append(folder.path)
            raise


def _remove_empty(paths: Sequence[Path]) -> None:
    """Removes folders of runs that were refused, and those of their names if nothing is left."""
    for path in paths:
        with contextlib.suppress(OSError):  # not empty: the user's own files stay
            path.rmdir()
            if path.name.isdecimal():
                path.parent.rmdir()


@contextlib.contextmanager
def resume_run(folder: RunFolder) -> Iterator[RunFolder]:
    """Locks an existing folder while the block continues its run.

    The status stays as it is until the block writes one: a block that refuses to continue changes
    nothing. After that it says how the block ended.

    Args:
        folder: The folder.

    Yields:
        The same folder.

    Raises:
        OutputError: It cannot be written.
        RecipeError: Another process writes to it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(folder.path))
        except OSError as error:
            raise describe_unwritable(folder.path, error) from error
        remove_drafts(folder.path, but=folder.export)
        with _recorded(folder, resumed=True):
            yield folder


@contextlib.contextmanager
def _recorded(folder: RunFolder, *, resumed: bool = False, kind: str = "run") -> Iterator[None]:
    """Writes the status: running, and how the block ended; not if a resumed run never ran."""
    before = _read_status(folder) if resumed else None
    was_done = resumed and folder.read_status().get("state") == "done"
    if not resumed:
        folder.write_status("running", kind=kind)
    try:
        yield
    except BaseException as error:
        if before is not None and before == _read_status(folder):
            raise
        if isinstance(error, KeyboardInterrupt):
            folder.write_status("interrupted")
        else:
            folder.write_status("failed", error=_describe_error(error))
        raise
    # One that was done already keeps its digests: those of files that were changed would be new.
    if not was_done or before != _read_status(folder):
        finish(folder)


def _describe_error(error: BaseException) -> str:
    """Returns type and text; the text alone if it is a sentence for people, or names the type."""
    kind, text = type(error).__name__, str(error)
    says_all = isinstance(error, ToolkitError) or not isinstance(error, Exception)
    return text if text and says_all else ": ".join(filter(None, (kind, text)))


def _read_status(folder: RunFolder) -> bytes:
    try:
        return folder.status.read_bytes()
    except OSError:
        return b""


def create_numbered(root: Path, name: str) -> RunFolder:
    """Creates the next numbered folder of a name, which no other process gets.

    Args:
        root: Folder of all runs.
        name: The name.

    Raises:
        OSError: It cannot be created.
    """
    family = root / name
    family.mkdir(parents=True, exist_ok=True)
    numbered = list_numbered(family)
    number = int(numbered[-1].name) + 1 if numbered else 1
    while True:
        path = family / f"{number:03d}"
        try:
            path.mkdir()  # atomic: of two processes, one gets this number
        except FileExistsError:
            number += 1
            continue
        return RunFolder(path)


def list_numbered(family: Path) -> list[Path]:
    """Returns the numbered folders of one name, the newest last: 1000 comes after 999.

    Args:
        family: Where they lie; need not exist.
    """
    paths = [path for path in family.glob("[0-9]*") if path.name.isdecimal()]
    return sorted(paths, key=lambda path: int(path.name))


def point_latest(folder: RunFolder, *, root: Path, name: str) -> str:
    """Points `latest` to this run or search, if it is numbered; that of all runs to a run alone.

    The link only ever points to one that is done: a failed one must not hide the last good one.

    Args:
        folder: The run or search.
        root: Folder of all runs.
        name: The recipe's name; of a search with its kind, as photos-search.

    Returns:
        Why that cannot be done, as on a file system without symbolic links; "" if it is.
    """
    root = Path(root).absolute()
    # Resolved, as the folder of a resumed run is: the root may be a link.
    if folder.path.parent.resolve() != (root / name).resolve():
        return ""
    try:
        point(root / name / "latest", folder.path.name)
        if folder.kind == "run":
            point(root / "latest", f"{name}/{folder.path.name}")
    except OSError as error:
        return f"`latest` does not mean this run: {error.strerror or error}"
    return ""


def point(link: Path, target: str) -> None:
    """Makes a symbolic link, atomically; one of that name is replaced.

    Args:
        link: The link.
        target: What it stands for, as it is written in it.

    Raises:
        OSError: The link cannot be made.
    """
    draft = link.with_name(f".{link.name}.{os.getpid()}.{os.urandom(4).hex()}")
    os.symlink(target, draft)
    try:
        os.replace(draft, link)
    except OSError:
        draft.unlink()
        raise


def _check_free(folder: RunFolder, overwrite: bool, kind: str) -> None:
    if folder.path.is_file():
        raise OutputError(
            Problem(where=f"--out {folder.path}", what="is a file", expected="A folder is needed.")
        )
    if not folder.path.is_dir() or folder.is_empty():
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
    if folder.kind != kind:
        raise RecipeError(
            Problem(
                where=f"--out {folder.path}",
                what=f"holds a {folder.kind}",
                expected=f"A {kind} never takes the place of a {folder.kind}, not with "
                "--overwrite either.",
                hint="another --out, or none: runs are numbered",
            )
        )
    if not overwrite:
        raise RecipeError(
            Problem(
                where=f"--out {folder.path}",
                what=f"holds a {kind} already",
                expected=f"A {kind} never mixes with another.",
                hint="--resume to resume it, --overwrite to replace it, another --out, or "
                "none: runs are numbered",
            )
        )


def find_run(run: str | Path, *, root: Path = Path("runs"), unfinished: bool = False) -> RunFolder:
    """Finds a run by folder, `<name>/<NNN>`, `<name>/latest`, `<name>` for the same, or `latest`.

    A search, sweep or curve is found alike, by the name of its folder: `<name>-search/latest`.

    Args:
        run: The run in one of these forms.
        root: Folder of all runs.
        unfinished: Let `latest` mean the newest run that holds a model, an interrupted one too.

    Raises:
        DataError: There is no such run; the message lists existing runs.
    """
    root = Path(root)
    run = _strip_root(run, root)
    places = [Path(run), root / run, root / run / "latest"]
    if unfinished and (newest := _find_newest(run, root)):
        places.insert(0, newest)
    for path in places:
        if RunFolder(path).status.is_file():
            return RunFolder(path.resolve())
    if last := _find_last(run, root):
        raise DataError(describe_unfinished(last, str(run), _find_newest(run, root) is not None))
    known = [str(path.relative_to(root)) for path in _list_runs(root) if _is_usable(path)]
    more = f" and {len(known) - _MAX_NAMED} more" if len(known) > _MAX_NAMED else ""
    here = f"Here: {', '.join(known[-_MAX_NAMED:])}{more}." if known else f"{root}/ holds none yet."
    if re.match(r"\w+:/", str(run)):  # of a path that was an address, a slash is lost
        raise DataError(_REMOTE_RUN)
    is_interrupted = Path(run).name == "latest" and _find_newest(run, root) is not None
    raise DataError(
        Problem(
            where=str(run),
            what="is no finished run" if is_interrupted else "is no run",
            expected=f"A run is a folder, <name>/<NNN>, <name>/latest, <name> or latest. {here}",
            hint="--any (in Python: unfinished=True) for the newest that holds a model"
            if is_interrupted
            else _suggest(str(run), known),
        )
    )


def _strip_root(run: str | Path, root: Path) -> str | Path:
    """Returns NAME for the folder of a name's runs, which a shell completes to runs/NAME."""
    path, top = Path(run).absolute(), root.absolute()
    if RunFolder(path).status.is_file() or path == top or not path.is_relative_to(top):
        return run
    return path.relative_to(top)


def _find_last(run: str | Path, root: Path) -> RunFolder | None:
    """Returns the last run of `<name>` or `<name>/latest`, none of which is finished."""
    name, *number = Path(run).parts or ("latest",)
    if name == "latest" or number not in ([], ["latest"]):
        return None
    runs = [RunFolder(path) for path in _list_runs(root, glob.escape(name))]
    return runs[-1] if runs and runs[-1].kind == "run" else None


def _is_usable(path: Path) -> bool:
    """Returns whether a folder holds a run that is done, or one with a model."""
    folder = RunFolder(path)
    is_done = folder.model.is_file() or folder.read_status().get("state") == "done"
    return is_done and folder.kind == "run"


def _suggest(run: str, known: Sequence[str]) -> str:
    """Returns the run that was probably meant, the newest of its name, or how to make a first."""
    name, _, number = run.rpartition("/")
    names = dict.fromkeys(path.rpartition("/")[0] for path in known)
    meant = nearest(name or number, names)
    if not meant:
        return "" if known else "tltool finetune quickstart"
    numbers = [path for path in known if path.rpartition("/")[0] == meant]
    same = f"{meant}/{number.zfill(3)}"
    return same if same in numbers else numbers[-1]


def _list_runs(root: Path, name: str = "*") -> list[Path]:
    """Returns the numbered folders of one name, or of all, that hold a run or search."""
    if not name.strip("/"):  # the root of the file system is no name of runs
        return []
    paths = [path for family in sorted(root.glob(f"{name}/")) for path in list_numbered(family)]
    return [path for path in paths if RunFolder(path).status.is_file()]


def _find_newest(run: str | Path, root: Path) -> Path | None:
    """Returns the newest run that holds a model, for `latest`, `<name>/latest` or `<name>`."""
    parts = Path(run).parts
    if len(parts) > 2 or (len(parts) == 2 and parts[1] != "latest"):
        return None
    name = "*" if parts == ("latest",) else glob.escape(parts[0]) if parts else "*"
    runs = [path for path in _list_runs(root, name) if RunFolder(path).model.is_file()]
    return max(runs, key=lambda path: RunFolder(path).model.stat().st_mtime, default=None)
