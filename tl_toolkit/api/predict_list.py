"""The verb `predict_list`: predictions of a long list of files, part by part, as Parquet."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.inputs import Inputs
from tl_toolkit.api.progress import handling
from tl_toolkit.api.run import Run, load_run
from tl_toolkit.cluster.tasks import Cluster, LostTask, Resources, open_cluster
from tl_toolkit.errors import DataError, OutputError, Problem, RecipeError
from tl_toolkit.events import Event, Handler, ignore
from tl_toolkit.runs.files import (
    check_folder,
    hash_file,
    remove_drafts,
    reporting_unwritable,
    write_atomically,
    write_json,
)
from tl_toolkit.runs.locks import hold
from tl_toolkit.runs.states import describe_absent
from tl_toolkit.runtime import numerics
from tl_toolkit.sources.objects import as_path, is_address

if TYPE_CHECKING:
    import pyarrow

__all__ = ["ListPredictions", "predict_list"]

_PART = 4096
_ABOUT = "_about.json"  # readers of a folder of Parquet leave out names that begin so
_TEXTS = ("path", "label", "labels", "error")
_NO_PARQUET = "pip install 'tl-toolkit[parquet]'"


@dataclass(frozen=True)
class ListPredictions:
    """The predictions of a list.

    Attributes:
        folder: Holds a Parquet file for each part: part-000000.parquet and so on.
        rows: Lines of the list.
        errors: How many of them could not be read.
        computed: How many were predicted by this call; the others were there.
    """

    folder: Path
    rows: int
    errors: int
    computed: int


def predict_list(
    run: str | Path,
    paths: str | Path | Sequence[str],
    *,
    out: str | Path,
    part: int = _PART,
    threads: int | None = None,
    ray: str | None = None,
    workers: int | None = None,
    progress: Handler | bool = False,
) -> ListPredictions:
    """Predicts each file of a list, and writes a row for each line to Parquet files in a folder.

    A row has `row`, the number of the line from 0, `path`, the columns of `run.tabulate(...,
    wide=True)` and `error`, null for a file that was read. Parts that are written are not predicted
    again: the same call goes on after a kill. A part appears as a whole or not at all, so that each
    row is there once.

    Args:
        run: As in `load_run`.
        paths: A text file with a path on each line, a Parquet file with a column `path`, or the
            paths themselves.
        out: The folder; nothing else may be in it.
        part: Rows of a file.
        threads: Size of TensorFlow's thread pools.
        ray: As in `search`: workers predict other parts; they share `out`, the run and the images.
        workers: As in `search`.
        progress: Receives counts of files.

    Raises:
        RecipeError: The run's task has an output for each pixel, the folder holds the predictions
            of another list or model, pyarrow is missing, or no cluster answers.
        DataError: The list cannot be read, or is empty.
        OutputError: The folder cannot be written, or workers died again and again.
    """
    _import_parquet()
    opened, files, folder = load_run(run), _read_list(paths), Path(out).absolute()
    if opened.recipe.task.is_dense:
        what = f"goes with tasks that have one output for each image, not with {opened.recipe.task}"
        hint = "tltool predict RUN PATHS --out DIR"
        raise RecipeError(Problem("--list", what, "", hint))
    if not opened.folder.model.is_file():
        raise describe_absent(opened.folder, opened.folder.model)
    check_folder(folder)
    with contextlib.ExitStack() as stack:
        handle = stack.enter_context(handling(progress))
        cluster = stack.enter_context(_open_workers(ray, workers, threads, handle))
        with reporting_unwritable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(folder))
            _begin(folder, opened, files, part)
        parts = range(-(-len(files) // part))
        missing = [number for number in parts if not _place(folder, number).is_file()]
        jobs = [_Job(opened.path, folder, number, number * part, threads) for number in missing]
        sent = ((job, files[job.start : job.start + part]) for job in jobs)
        done = len(files) - sum(len(files[job.start : job.start + part]) for job in jobs)
        computed = 0
        for count in _predict_all(sent, cluster, threads, opened):
            computed += count
            handle(Event("images_inspected", done=done + computed, total=len(files)))
        errors = sum(_count_errors(_place(folder, number)) for number in parts)
    return ListPredictions(folder, len(files), errors, computed)


@dataclass(frozen=True)
class _Job:
    """A part that is to be predicted: the run, the folder, its number and its first row."""

    run: Path
    folder: Path
    number: int
    start: int
    threads: int | None


def _open_workers(
    ray: str | None, workers: int | None, threads: int | None, progress: Handler
) -> contextlib.AbstractContextManager[Cluster | None]:
    if ray is None:
        if workers is not None:
            raise RecipeError(Problem("--workers", "goes with a cluster", "", "--ray local"))
        return contextlib.nullcontext()
    resources = Resources(cpus=threads or 1)
    return open_cluster(ray, workers=workers, resources=resources, progress=progress)


def _begin(folder: Path, run: Run, files: Sequence[str], part: int) -> None:
    """Writes what the folder holds the predictions of, or compares it."""
    digest = hashlib.sha256("\n".join(files).encode(errors="surrogateescape")).hexdigest()
    model = hash_file(run.folder.model)
    now = {"list": digest, "rows": len(files), "part": part, "model": model}
    about = folder / _ABOUT
    if about.is_file():
        remove_drafts(folder)
        try:
            before = json.loads(about.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        names = sorted(name for name, value in now.items() if before.get(name) != value)
        if names:
            what = f"holds predictions of another {', '.join(names)}"
            expected = (
                "A folder is resumed with the list, the model and the parts that it began with."
            )
            raise RecipeError(Problem(f"--out {folder}", what, expected, "--out with a new folder"))
        return
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        what = "is not empty, and holds no predictions of a list"
        raise OutputError(Problem(f"--out {folder}", what, "", "--out with a new folder"))
    write_json(about, now)


def _read_list(paths: str | Path | Sequence[str]) -> list[str]:
    """Returns the paths of a list, those of a file as absolute ones."""
    if isinstance(paths, str | os.PathLike):
        place = Path(paths)
        try:
            names = _read_names(place)
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            raise DataError(Problem(f"--list {place}", what)) from error
    else:
        place, names = Path("paths"), [os.fspath(path) for path in paths]
    if not names:
        expected = "A path is expected on each line."
        raise DataError(Problem(f"--list {place}", "names no file", expected))
    return [name if is_address(name) else os.path.abspath(name) for name in names]


def _read_names(place: Path) -> list[str]:
    if place.suffix.lower() != ".parquet":
        return [os.fsdecode(line) for line in place.read_bytes().splitlines() if line.strip()]
    parquet = _import_parquet()
    try:
        table = parquet.read_table(place, columns=["path"])
        names: list[str] = table.column("path").to_pylist()
    except (ValueError, KeyError) as error:  # pyarrow's own are children of these
        what = f"cannot be read: {str(error).splitlines()[0]}"
        raise DataError(Problem(f"--list {place}", what, "Expected a column path.")) from error
    if any(not isinstance(name, str) or not name for name in names):
        raise DataError(Problem(f"--list {place}", "the column path has cells without a path"))
    return names


def _predict_all(
    sent: Iterator[tuple[_Job, list[str]]],
    cluster: Cluster | None,
    threads: int | None,
    run: Run,
) -> Iterator[int]:
    """Predicts parts, here or on the cluster; yields the rows of each that is written."""
    if cluster is None:
        _opened[:] = [run]
        with numerics(deterministic=run.recipe.deterministic, threads=threads):
            for job, files in sent:
                yield predict_part(job, files)
        return
    tasks = ((job.number, (job, files)) for job, files in sent)
    for number, count in cluster.run_all(predict_part, tasks):
        if isinstance(count, LostTask):
            what = f"part {number}: its worker died, and so did those that tried it again: {count}"
            hint = "the same command again, or fewer --workers"
            raise OutputError(Problem("--ray", what, "", hint))
        yield int(count)


_opened: list[Run] = []
"""The run that this process predicts with."""


def predict_part(job: _Job, files: Sequence[str]) -> int:
    """Predicts the rows of a part and writes them; returns how many there are.

    Args:
        job: The part.
        files: Its files.

    Raises:
        OutputError: The folder cannot be written, or the disk is full.
    """
    if not _opened or _opened[0].path != job.run:
        _opened[:] = [load_run(job.run)]
    run = _opened[0]
    with numerics(deterministic=run.recipe.deterministic, threads=job.threads):
        inputs = Inputs(files=[as_path(file) for file in files])
        predictions = run.predict_inputs(inputs, None, (), native=False, report=ignore)
    errors = [item.error for item in predictions]
    table = run.tabulate([item for item in predictions if item.error is None], wide=True)
    rows = iter(table.rows)
    blank = [None] * len(table.columns)
    filled = [next(rows) if error is None else blank for error in errors]
    cells = {
        name: [row[place] for row in filled] for place, name in enumerate(table.columns)
    }  # fmt: skip
    numbers = list(range(job.start, job.start + len(files)))
    columns: dict[str, list[Any]] = {
        "row": numbers,
        **cells,
        "path": list(map(_as_text, files)),
        "error": errors,
    }
    write_atomically(_place(job.folder, job.number), _encode(columns))
    return len(files)


def _encode(columns: dict[str, list[Any]]) -> bytes:
    """Returns a Parquet file, whose columns have the same types in each part."""
    import pyarrow

    parquet = _import_parquet()

    def find_type(name: str) -> pyarrow.DataType:
        if name == "row":
            return pyarrow.int64()
        return pyarrow.string() if name in _TEXTS else pyarrow.float64()

    arrays = {name: pyarrow.array(cells, find_type(name)) for name, cells in columns.items()}
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), buffer)
    return buffer.getvalue()


def _as_text(path: str) -> str:
    """Returns a path as UTF-8 can hold it."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _count_errors(path: Path) -> int:
    column = _import_parquet().read_table(path, columns=["error"]).column("error")
    return len(column) - int(column.null_count)


def _place(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.parquet"


def _import_parquet() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        what = "predictions of a list are Parquet files, which take pyarrow"
        raise RecipeError(Problem("--list", what, "", _NO_PARQUET)) from error
    return parquet
