"""`benchmark`: how fast a run's model is in each format that it was exported to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.progress import handling
from tl_toolkit.api.run import Run, load_run
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.events import Handler, message
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS, split_formats
from tl_toolkit.runs.files import drafted, write_json
from tl_toolkit.runs.states import describe_absent, name_run

if TYPE_CHECKING:
    from tl_toolkit.export.benchmark import Timing

__all__ = ["Benchmark", "benchmark"]

_CALLS = 30


@dataclass(frozen=True)
class Benchmark:
    """What was measured of a run's model.

    Attributes:
        path: The folder of benchmark.json and benchmark.svg.
        machine: The processor, its cores, and the versions.
        timings: A row for each format, number of threads and batch.
    """

    path: Path
    machine: Mapping[str, Any]
    timings: tuple[Timing, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns what benchmark.json holds."""
        return {"machine": dict(self.machine), "timings": [asdict(row) for row in self.timings]}


def benchmark(
    run: str | Path | Run,
    *,
    formats: Sequence[str] | None = None,
    batch: Sequence[int] = (1, 32),
    threads: Sequence[int] = (1, 2),
    calls: int = _CALLS,
    progress: Handler | bool = False,
) -> Benchmark:
    """Times a finished run's model in each format, beside `keras.Model.predict`.

    Each row is a fresh process that has loaded the model and has called it before; loading is not
    in it. Writes benchmark.json and benchmark.svg into the run's export folder.

    Args:
        run: The run, or what `load_run` takes.
        formats: Formats to time; by default all that the run was exported to.
        batch: Images of a call, each at least 1.
        threads: Threads of a call, each at least 1.
        calls: Calls that are timed of each kind, at least 1.
        progress: As in `tl.finetune`: receives a line when each format begins, and for each timing.

    Raises:
        DataError: The run was not exported to such a format.
        ParityError: A runtime cannot run a model.
        RecipeError: A format is unknown, or cannot be run; a number is below 1.
    """
    if min([*batch, *threads, calls], default=0) < 1:
        raise RecipeError(Problem("benchmark", "batch, threads and calls are at least 1"))
    opened = run if isinstance(run, Run) else load_run(run)
    paths = _find_models(opened, formats)
    from tl_toolkit.api.environment import describe_machine
    from tl_toolkit.export.benchmark import plot_timings, time_formats

    def tell(timing: Timing) -> None:
        report(
            message(
                f"{timing.format}: {timing.p50_ms:.2f} ms a call of {timing.batch}, "
                f"{timing.threads} threads"
            )
        )

    with handling(progress) as report:
        timings = time_formats(
            paths, _find_shape(opened), batches=batch, threads=threads, calls=calls,
            began=lambda name: report(message(f"timing {name}")), done=tell,
        )  # fmt: skip
    found = Benchmark(opened.folder.export, describe_machine(), tuple(timings))
    found.path.mkdir(exist_ok=True)
    write_json(opened.folder.benchmark, found.as_json())
    with drafted(opened.folder.benchmark_plot) as draft:
        plot_timings(draft, timings)
    return found


def _find_shape(run: Run) -> tuple[int, ...]:
    return (*run.recipe.data.image_size, run.recipe.data.channels)


def _find_models(run: Run, formats: Sequence[str] | None) -> dict[str, Path]:
    """Returns where the models lie, `keras.Model.predict` on the run's own first."""
    from tl_toolkit.export.benchmark import PREDICT
    from tl_toolkit.export.formats import find_format

    if not run.folder.model.is_file():
        raise describe_absent(run.folder, run.folder.model)
    paths = {
        name: run.folder.export / form.path
        for name, form in EXPORT_FORMATS.items()
        if formats is None or name in split_formats(formats)
    }
    chosen = {name: path for name, path in paths.items() if find_format(name).runtime}
    missing = [name for name, path in chosen.items() if not path.exists()]
    if formats is not None and (missing or len(chosen) < len(paths)):
        absent = missing or sorted(paths.keys() - chosen.keys())
        raise DataError(
            Problem(
                str(run.path),
                f"was not exported to {', '.join(absent)}"
                if missing
                else f"{', '.join(absent)}: this format cannot be run",
                hint=f"tltool export {name_run(run.path)} --to {','.join(missing or ['litert'])}",
            )
        )
    own = {PREDICT: run.folder.model} if not run.recipe.task.is_dense else {}
    found = own | {name: path for name, path in chosen.items() if path.exists()}
    if not found:
        hint = f"tltool export {name_run(run.path)} --to litert"
        raise DataError(
            Problem(str(run.path), "was exported to no format that can be run", "", hint)
        )
    return found
