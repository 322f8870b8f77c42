"""The run folder: the paths of its files, and what they hold."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.runs.artifacts import Artifact
from tl_toolkit.runs.files import is_draft, write_json
from tl_toolkit.runs.lock_files import LOCK, is_lock
from tl_toolkit.runs.locks import refuse_follower
from tl_toolkit.runs.processes import describe_process


@dataclass(frozen=True)
class RunFolder:
    """A run's or a search's folder. Holds paths only; nothing is read until asked for.

    The artifacts below are the whole list of what a run writes and `--overwrite` removes.

    Args:
        path: The folder.
    """

    path: Path

    # Of runs and searches.
    recipe = Artifact("recipe.yaml", "The resolved recipe.")
    base = Artifact("base.keras", "A copy of `model.base.model`, a base of the user's own.")
    status = Artifact(
        "status.json",
        "State: running, done, failed or interrupted; of a done run the SHA-256 of metrics.json, "
        "predictions.csv and each history.csv.",
    )
    log = Artifact("command.log", "The command, its output, the traceback of a failure.")
    manifest = Artifact("manifest.csv", "Every image with its digest, label, split and verdict.")
    tensorboard = Artifact("logs", "TensorBoard's event files.")
    converted = Artifact("converted", "Images that were re-encoded under `data.convert`.")

    # Of runs.
    lock = Artifact("lock.json", "Versions, seeds, and digests of data and weights.")
    bands = Artifact(
        "bands.json",
        "Mean and deviation of each band over the training images; for other channels than RGB.",
    )
    classes = Artifact("classes.json", "Class names in the order of the model's outputs.")
    phases = Artifact(
        "phases",
        "A folder for each phase: history.csv, receipt.json; rates.json where parts have own "
        "rates; learning_rate.json and .svg where the rate was found.",
    )
    checkpoint = Artifact("checkpoints/best.npz", "The best state so far, as arrays.")
    states = Artifact(
        "checkpoints/states",
        "The last two exact states of training, which `--resume` goes on from.",
    )
    task_state = Artifact(
        "task.json", "What the task learned from data, as thresholds; some tasks write none."
    )
    metrics = Artifact("metrics.json", "Metrics of the kept state.")
    predictions = Artifact("predictions.csv", "Predictions for all validation and test images.")
    model = Artifact("model.keras", "The kept model, whole: raw RGB pixels to outputs.")
    export = Artifact("export", "Exported models.")
    parity = Artifact("export/parity.json", "Proof that the exported model equals model.keras.")
    parity_failed = Artifact("export/parity.failed.json", "Why an export was not published.")
    benchmark = Artifact("export/benchmark.json", "Latency and throughput of each format.")
    benchmark_plot = Artifact("export/benchmark.svg", "The time of an image in each format.")
    folds = Artifact("folds", "A folder for each fold of `data.folds`, with its phases.")
    baseline = Artifact("baseline", "The baseline's run, trained beside this one.")
    report = Artifact(
        "report", "The report: index.html, each of its charts as SVG, and its own numbers.json."
    )

    # Of searches.
    search = Artifact("search.json", "What the search was begun with; a resumed one must agree.")
    trials = Artifact("trials", "A JSON file for each finished trial.")
    trials_table = Artifact("trials.csv", "A row for each trial.")
    best_recipe = Artifact("best.yaml", "The winner as a recipe, for `finetune`.")
    summary = Artifact("summary.json", "The winner, its values, score and repeats, and counts.")
    candidates = Artifact("candidates", "The weights of the best trials, under `search.soup`.")
    soup = Artifact("soup", "A run of its own, with the mean of these weights as its model.")
    fields_plot = Artifact("fields.svg", "The score by the values of each searched field.")
    time_plot = Artifact("time.svg", "The best score by time.")
    sweep_table = Artifact("sweep.csv", "Score and cost of each depth of unfreezing.")
    sweep_plot = Artifact("sweep.svg", "Score by the number of trained parameters.")

    # Of learning curves.
    curve = Artifact("curve.json", "The score of each method at each number of training images.")
    curve_table = Artifact("curve.csv", "The same, a row for each number.")
    curve_plot = Artifact("curve.svg", "Score by the number of training images.")

    # Of `tltool auto`.
    auto = Artifact("auto.json", "What `auto` tried, with scores and seconds, and its choice.")
    models = Artifact("models", "The finished runs of `auto`, each in a folder of its own.")
    searches = Artifact("searches", "The searches of `auto`, one for a base.")

    def phase(self, index: int, name: str) -> Path:
        """Returns the folder of one phase.

        Args:
            index: Counts from 0; the folder's number counts from 1.
            name: The phase's name.
        """
        return self.phases / f"{index + 1}-{name}"

    def history(self, index: int, name: str) -> Path:
        """Returns the table of one phase's epochs.

        Args:
            index: As in `phase`.
            name: The phase's name.
        """
        return self.phase(index, name) / "history.csv"

    def list_artifacts(self) -> list[Artifact]:
        """Returns those artifacts that are there."""
        return [artifact for artifact in ARTIFACTS if (self.path / artifact.relative).exists()]

    def has_begun(self) -> bool:
        """Returns whether training began: its seeds and digests, or those of a search, are here."""
        return any(path.is_file() for path in (self.lock, self.search, self.auto))

    def is_empty(self) -> bool:
        """Returns whether the folder holds nothing but locks, and drafts of a killed writer."""
        names = [entry.name for entry in self.path.iterdir()]
        return all(is_lock(name) or is_draft(name) for name in names)

    def remove_artifacts(self) -> None:
        """Deletes all artifacts, and the drafts of interrupted writers; all else stays."""
        names = {artifact.relative.split("/")[0] for artifact in ARTIFACTS}
        # The status comes last, so that a folder that is half removed is still known as a run.
        names.discard(RunFolder.status.relative)
        there = [entry.name for entry in self.path.iterdir()]
        left = {name for name in there if is_draft(name) or (is_lock(name) and name != LOCK)}
        for name in (*sorted(names | left), RunFolder.status.relative):
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def remove_report(self) -> None:
        """Deletes the report, which shows what was there when it was written."""
        shutil.rmtree(self.report, ignore_errors=True)

    def remove_side_states(self) -> None:
        """Deletes the states of folds and baseline, which a finished run does not go on from."""
        for beside in ("folds/*", "baseline", "baseline/folds/*"):
            for states in self.path.glob(f"{beside}/{RunFolder.states.relative}"):
                shutil.rmtree(states, ignore_errors=True)

    def read_json(self, path: Path) -> Any:
        """Reads one of the run's JSON files.

        Args:
            path: The file.

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
        """Replaces the run's status; `started` and `kind` stay as first written.

        Args:
            state: running, done, failed or interrupted.
            **facts: Further facts, as JSON can hold them.

        Raises:
            OutputError: It cannot be written, or another process has taken the folder over.
        """
        refuse_follower(self.path)
        before = self.read_status()
        kept = {"started": before.get("started", time.time()), "kind": before.get("kind", "run")}
        now = {"state": state, **describe_process(), **kept, "updated": time.time()}
        write_json(self.status, now | facts)

    def read_status(self) -> dict[str, Any]:
        """Returns the run's status, {} where it is missing or damaged."""
        try:
            status = json.loads(self.status.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    @property
    def kind(self) -> str:
        """What the folder was made for: run, search, sweep, curve or auto."""
        kind = str(self.read_status().get("kind", "run"))
        if kind == "run" and self.search.is_file():  # of a version that wrote no kind
            return "sweep" if self.path.parent.name.endswith("-sweep") else "search"
        return kind

    def append_log(self, text: str) -> None:
        """Adds lines to the command log; a log that cannot be written never ends a run.

        Args:
            text: The lines.
        """
        with contextlib.suppress(OSError), _open_log(self.log) as file:
            file.write(text.rstrip("\n") + "\n")


ARTIFACTS = tuple(value for value in vars(RunFolder).values() if isinstance(value, Artifact))
"""All artifacts, in the order of their lines."""


def describe_artifacts() -> str:
    """Returns the list of artifacts as a Markdown table."""
    rows = [f"| `{artifact.relative}` | {artifact.about} |" for artifact in ARTIFACTS]
    return "\n".join(["| path | what it holds |", "| --- | --- |", *rows]) + "\n"


class InFolder:
    """The base class of a run and a search, which have a folder of their own.

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
