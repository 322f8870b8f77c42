"""`auto`: from a folder and a number of minutes to a finished run, its recipe and its report."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_toolkit.api.auto_record import AutoRecord
from tl_toolkit.api.progress import handling, naming_what_is_kept
from tl_toolkit.api.run import Run
from tl_toolkit.api.search import open_search
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import Event, Handler, message, warning
from tl_toolkit.plan.automatic import read_first
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.states import name_run
from tl_toolkit.runtime import start_tensorflow
from tl_toolkit.tuning.budget import Budget

__all__ = ["AutoRun", "auto"]

_MINUTES = 10.0


class AutoRun(InFolder):
    """What `auto` tried, and the run that it chose.

    Args:
        folder: Its folder.
    """

    @property
    def record(self) -> AutoRecord:
        """What auto.json holds: bases, trials and runs with scores and seconds, and the choice."""
        return AutoRecord.read(self.folder)

    @property
    def best(self) -> Run:
        """The run that is chosen."""
        return Run(RunFolder(self.path / self.record.chosen))

    @property
    def recipe(self) -> Path:
        """Its recipe, which `finetune` repeats."""
        return self.folder.recipe


def auto(
    data: str | Path,
    *,
    minutes: float | None = None,
    task: str = "",
    bases: Sequence[str] | None = None,
    most_operations: float | None = None,
    most_parameters: float | None = None,
    overrides: Overrides = (),
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    root: str | Path = "runs",
    threads: int | None = None,
    clock: Callable[[], float] | None = None,
    progress: Handler | bool = False,
) -> AutoRun:
    """Makes the best model of a folder of images that a number of minutes allows.

    First a head is trained on the cheapest base, so that there is a finished run whatever comes
    after. Then bases are ranked, and a search tries depths, rates and heads of the best one. Its
    winner is trained again as a finished run. Of finished runs that are not to be told apart on
    validation images, the cheapest is chosen. What does not fit into the time is left out. With
    `report` in the recipe, as by default, a page says what was tried and why.

    Args:
        data: A folder or a table, as `tltool init` takes it.
        minutes: All the time that it may take, a tenth more at most; by default 10, and that of the
            first call where it is resumed. Once the first run's images are read, it is trained
            however long it takes.
        task: The task; by default the one that the data is recognized as.
        bases: As in `rank_bases`.
        most_operations: As in `rank_bases`.
        most_parameters: As in `rank_bases`.
        overrides: Fields to replace in the recipe that `tltool init` would write.
        seed: Seed of the recipe and of the search.
        out: Folder for all of it; by default the next number under `root`/<name>-auto.
        resume: Resume what `out` holds, by default as in `search`, for the minutes that are left.
        overwrite: Replace what `out` holds.
        root: Folder of all runs.
        threads: As in `finetune`.
        clock: Returns the seconds since the minutes began to count; by default those of this call.
        progress: As in `finetune`.

    Returns:
        What was tried, and the run that is chosen.

    Raises:
        DataError: No task recognizes the data, or the images cannot be used.
        RecipeError: No base can be used, options do not go together, or the time ran out before the
            first run's images were read.
    """
    clock = clock or _count_seconds(time.monotonic())
    if minutes is not None and not minutes > 0:
        raise RecipeError(Problem("--minutes", f"got {minutes:g}", "expected more than 0."))
    first, choices = read_first(
        Path(data), task=task, base=_name_base(bases), seed=seed, overrides=overrides
    )
    asked = {
        "data": str(Path(data).absolute()), "task": first.recipe.task.kind, "seed": seed,
        "bases": None if bases is None else list(bases), "overrides": _as_plain(overrides),
        "most_operations": most_operations, "most_parameters": most_parameters,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        handle = stack.enter_context(handling(progress))
        name = first.recipe.name
        folder = stack.enter_context(
            open_search(name, Path(root), out, resume=resume, overwrite=overwrite, kind="auto")
        )
        before = AutoRecord.read(folder) if resume else None
        record = _check_record(before, asked, folder, minutes)
        stack.enter_context(naming_what_is_kept(folder, progress, handle))
        folder.write_status("running")
        handle(Event("run_began", facts={"folder": folder.path, "task": first.recipe.task}))
        for text in choices:
            handle(message(text))
        start_tensorflow(threads=threads)
        from tl_toolkit.api.auto_bases import AutoBases
        from tl_toolkit.api.auto_steps import Automatic
        from tl_toolkit.api.auto_work import AutoWork

        budget = Budget(60 * record.minutes, clock, spent=record.seconds)
        work = AutoWork(first, folder, record, budget, handle)
        limits = (most_operations, most_parameters)
        Automatic(work, AutoBases(work, bases=bases, limits=limits)).run()
        made = AutoRun(folder)
        if first.recipe.report:
            _write_report(made, handle)
    return made


def _write_report(made: AutoRun, handle: Handler) -> None:
    """Writes the report; a warning if it fails: what was made is done."""
    from tl_toolkit.api.report_auto import build_auto_report
    from tl_toolkit.reports.page import write_report

    try:
        write_report(made.folder.report, build_auto_report(made))
    except Exception as error:
        made.folder.append_log(traceback.format_exc())
        text = f"the report failed, all else is done: {type(error).__name__}: {error}"
        handle(warning(f"{text}; tltool report {name_run(made.path)}"))


def _count_seconds(began: float) -> Callable[[], float]:
    return lambda: time.monotonic() - began


def _name_base(bases: Sequence[str] | None) -> str:
    return bases[0].partition(":")[0] if bases else "mobilenet"


def _as_plain(overrides: Overrides) -> Any:
    if isinstance(overrides, Mapping):
        return {str(name): str(value) for name, value in overrides.items()}
    return [overrides] if isinstance(overrides, str) else list(overrides)


def _check_record(
    before: AutoRecord | None, asked: Mapping[str, Any], folder: RunFolder, minutes: float | None
) -> AutoRecord:
    """Returns what was done by now; refuses to resume something else.

    Raises:
        RecipeError: It was begun with something else.
    """
    if before is None:
        return AutoRecord(asked, minutes or _MINUTES)
    wrong = sorted(name for name, value in asked.items() if before.asked.get(name) != value)
    if wrong:
        what = f"was begun with another {', '.join(wrong)}"
        expected = "What is compared must be of the same data, and asked for alike."
        raise RecipeError(Problem(f"--resume {folder.path}", what, expected, "a new --out"))
    before.minutes = minutes or before.minutes
    return before
