"""`list_runs` and `describe_run`: what lies under runs/, read from files; no model is opened."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tl_toolkit.errors import ToolkitError
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.summary import read_summary
from tl_toolkit.recipe.tasks import find_task
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.listing import judge_state, list_folders, measure_artifacts, measure_size
from tl_toolkit.runs.places import find_run
from tl_toolkit.runs.results import list_damaged

__all__ = [
    "PhaseRecord",
    "RunDescription",
    "RunInfo",
    "describe_run",
    "list_runs",
    "name_below",
    "read_json",
    "read_recipe_of",
]

_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class RunInfo:
    """A run, search, sweep or curve, as its files describe it.

    Attributes:
        name: What to type for it: NAME/NNN below the folder of all runs, else its path.
        path: Its folder.
        kind: run, search, sweep or curve.
        state: running, done, interrupted, killed, failed, or damaged: done, but a file is gone.
        recipe: Name of the recipe; "" where recipe.yaml cannot be read.
        task: The recipe's task, or "".
        base: The recipe's base, or "".
        metric: The task's metric that finished models are compared by, or "".
        scores: Its value for validation and test images, as far as it was measured. Of a search,
            the score of its winner, under validation.
        bytes: Of all its files.
        started: When it began, in seconds since 1970; None where that is unknown.
        updated: When its state was last written.
        holds_model: Whether it holds a model to evaluate and export.
    """

    name: str
    path: Path
    kind: str
    state: str
    recipe: str = ""
    task: str = ""
    base: str = ""
    metric: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    bytes: int = 0
    started: float | None = None
    updated: float | None = None
    holds_model: bool = False

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class PhaseRecord:
    """A phase of a run, as its history.csv has it.

    Attributes:
        name: Its name.
        planned: Epochs that the recipe gives it; None for one that the recipe does not number.
        epochs: Epochs that were trained.
        learning_rate: The last one.
        best: Its best value of the score on validation images, and None without any.
    """

    name: str
    planned: int | None
    epochs: int
    learning_rate: float | None
    best: float | None


@dataclass(frozen=True)
class RunDescription:
    """All that `tltool runs show` prints of a run.

    Attributes:
        info: As `list_runs` has it.
        seconds: Time of each part, as metrics.json has it, or of the whole.
        phases: The phases in order; none of a search or a curve.
        best: The epoch that is kept, as metrics.json has it; {} without one.
        splits: The metrics of each split that was measured, numbers and `intervals`.
        artifacts: Bytes by path.
        lock: What lock.json holds: seeds, digests, versions and machine; {} without one.
        error: What ended a failed run, or "".
        process: Host and number of the process that wrote it; {} where that is unknown.
        damaged: Metrics, histories and predictions that are not what the run wrote, by status.json.
    """

    info: RunInfo
    seconds: Mapping[str, float]
    phases: Sequence[PhaseRecord]
    best: Mapping[str, Any]
    splits: Mapping[str, Mapping[str, Any]]
    artifacts: Mapping[str, int]
    lock: Mapping[str, Any]
    error: str
    process: Mapping[str, Any]
    damaged: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""
        return {**asdict(self), "info": self.info.as_json()}


def list_runs(root: str | Path = "runs") -> list[RunInfo]:
    """Returns all runs, searches, sweeps and curves below a folder, by name and number.

    Reads their files alone: no model is opened, and TensorFlow is not started.

    Args:
        root: Folder of all runs; one that does not exist holds none.
    """
    root = Path(root).absolute()
    return [read_info(folder, root) for folder in list_folders(root)]


def describe_run(run: str | Path, *, root: str | Path = "runs") -> RunDescription:
    """Returns what a run's files say of it: recipe, phases, scores, artifacts, versions.

    Args:
        run: As in `load_run`; a search, sweep or curve too, and one that is not finished.
        root: Folder of all runs.

    Raises:
        DataError: There is no such run.
    """
    folder = find_run(run, root=Path(root), unfinished=True)
    metrics, status = read_json(folder.metrics), folder.read_status()
    measured = {split: metrics[split] for split in _SPLITS if split in metrics}
    return RunDescription(
        info=read_info(folder, Path(root).absolute()),
        seconds=metrics.get("seconds", {}),
        phases=_read_phases(folder),
        best=metrics.get("best", {}),
        splits=measured,
        artifacts=measure_artifacts(folder),
        lock=read_json(folder.lock),
        error=str(status.get("error") or ""),
        process={key: status[key] for key in ("host", "pid") if key in status},
        damaged=[str(file.relative_to(folder.path)) for file in list_damaged(folder)],
    )


def read_info(folder: RunFolder, root: Path) -> RunInfo:
    """Returns what `list_runs` says of one folder.

    Args:
        folder: The folder.
        root: Absolute path of the folder of all runs.
    """
    recipe, status, kind = read_summary(folder.recipe), folder.read_status(), folder.kind
    task = find_task(recipe.task) if recipe.task else None
    score = "" if task is None else task.final_score or task.score
    metric, scores = _read_scores(folder, kind, score)
    return RunInfo(
        name=name_below(folder.path, root),
        path=folder.path,
        kind=kind,
        state=judge_state(folder),
        recipe=recipe.name,
        task=recipe.task,
        base=recipe.base,
        metric=metric,
        scores=scores,
        bytes=measure_size(folder.path),
        started=_read_time(status, "started"),
        updated=_read_time(status, "updated"),
        holds_model=folder.model.is_file(),
    )


def name_below(path: Path, root: Path) -> str:
    """Returns NAME/NNN for a run below the folder of all runs, else its path.

    Args:
        path: The run's folder.
        root: Absolute path of the folder of all runs.
    """
    for top in (root, root.resolve()):
        if path.is_relative_to(top):
            return str(path.relative_to(top))
    return str(path)


def read_recipe_of(folder: RunFolder) -> Recipe | None:
    """Returns the recipe of a run; None if it is gone, or not to be read by this version.

    Args:
        folder: The run.
    """
    with contextlib.suppress(ToolkitError):
        return load_recipe(folder.recipe).recipe
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; {} if the file is gone or damaged.

    Args:
        path: The file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_scores(folder: RunFolder, kind: str, score: str) -> tuple[str, dict[str, float]]:
    """Returns the metric that runs are compared by, and its values by split."""
    if kind in ("search", "sweep"):
        summary = read_json(folder.summary)
        best = summary.get("best", {}).get("score")
        return str(summary.get("objective", "")), {} if best is None else {"validation": best}
    metrics = read_json(folder.metrics)
    values = {split: metrics.get(split, {}).get(score) for split in _SPLITS}
    measured = {split: value for split, value in values.items() if isinstance(value, float)}
    return score if kind == "run" else "", measured


def _read_time(status: Mapping[str, Any], name: str) -> float | None:
    value = status.get(name)
    return float(value) if isinstance(value, int | float) else None


def _read_phases(folder: RunFolder) -> list[PhaseRecord]:
    recipe = read_recipe_of(folder)
    if recipe is None or folder.kind != "run":
        return []
    planned = {stage.name: stage.epochs for phase in recipe.phases for stage in phase.stages}
    names = recipe.phase_names
    return [
        _read_phase(folder.history(index, name), name, planned.get(name), recipe.task.score)
        for index, name in enumerate(names)
    ]


def _read_phase(path: Path, name: str, planned: int | None, score: str) -> PhaseRecord:
    rows: list[dict[str, str]] = []
    with contextlib.suppress(OSError, csv.Error), open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores, rates, epochs = (
        _read_numbers(rows, column) for column in (f"val_{score}", "learning_rate", "epoch")
    )
    rate = rates[-1] if rates else None
    return PhaseRecord(name, planned, int(max(epochs, default=0)), rate, max(scores, default=None))


def _read_numbers(rows: Sequence[Mapping[str, str | None]], column: str) -> list[float]:
    """Returns the numbers of a column; a row that was cut off may have none."""
    numbers = []
    for row in rows:
        with contextlib.suppress(ValueError):
            numbers += [float(text)] if (text := row.get(column)) else []
    return numbers
