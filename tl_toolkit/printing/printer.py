"""Prints the events of a run: bars on a terminal, else one line per epoch."""

from __future__ import annotations

import math
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from tl_toolkit.events import Event, Kind
from tl_toolkit.printing.tables import (
    Figure,
    FittedTable,
    build_summary,
    build_table,
    is_notebook,
    is_terminal,
    open_console,
)
from tl_toolkit.printing.words import (
    describe_folds,
    describe_kept,
    describe_rate,
    describe_search,
    describe_seconds,
    describe_trial,
    escape_controls,
    score_of,
    shorten_path,
    wrap,
)
from tl_toolkit.recipe.tasks import TaskSection
from tl_toolkit.runs.folder import RunFolder

if TYPE_CHECKING:
    from rich import progress as bars
    from rich.console import Console

    from tl_toolkit.printing.trials import TrialTable

_BARS: dict[Kind, str] = {
    "weights_fetched": "weights",
    "images_inspected": "images",
    "targets_inspected": "targets",
    "features_computed": "frozen part",
    "fold_ended": "folds",
}
_MOST_LINES = 40
"""Lines of epochs in a file or a pipe; a terminal shows all."""
_MOST_OF_BASELINE = 10
_SECONDS_OF_COUNTS = 10
_STYLES = re.compile(r"\x1b\[[0-9;]*m")


class Printer:
    """Prints events; its method `handle` is an event handler.

    Args:
        file: Where to print; by default stderr, and stdout in a notebook, which shows the former in
            red.
        command: A command line. With it, the run's command.log holds the command, and after it all
            that is printed.
        counts: Print counts of images outside of a run as lines where there is no terminal: the
            last one, and one every ten seconds until then.
    """

    def __init__(
        self, file: TextIO | None = None, *, command: str = "", counts: bool = False
    ) -> None:
        self._file = file or (sys.stdout if is_notebook() else sys.stderr)
        self._is_live = is_terminal(self._file)
        self._command = command
        self._counts = counts and not self._is_live
        self._counted = time.monotonic()
        self._folder: RunFolder | None = None
        self._section = TaskSection()
        self._opened: Console | None = None
        self._bars: bars.Progress | None = None
        self._task: bars.TaskID | None = None
        self._bar = ""
        self._epochs = 0
        self._plan: list[Mapping[str, Any]] = []
        self._stride = 1
        self._began = self._clock = time.monotonic()
        self._seconds: dict[str, list[float]] = {}  # of the epochs of each phase
        self._trials: TrialTable | None = None
        self._handlers: dict[Kind, Callable[[Event], None]] = {
            "run_began": self._begin_run,
            "planned": self._print_phases,
            "phase_began": self._begin_phase,
            "step_ended": self._end_step,
            "epoch_ended": self._end_epoch,
            "trial_began": self._begin_trial,
            "trial_ended": self._end_trial,
            "search_ended": self._end_search,
            "message": self._print_sentence,
            "warning": self._print_sentence,
            "run_ended": self._end_run,
        }

    def handle(self, event: Event) -> None:
        """Prints an event, or moves a bar.

        Args:
            event: Any event of a run or a search.
        """
        if event.kind == "images_inspected" and self._counts and not self._folder:
            self._print_count(event.done, event.total or 0)
        elif event.kind in _BARS:
            self._move_bar(_BARS[event.kind], event.done, event.total or 0)
        else:
            self._handlers[event.kind](event)

    def stop(self) -> None:
        """Removes the bar from the terminal; a table of trials stays as it is."""
        trials, self._trials = self._trials, None
        self._stop_bar()
        if trials:
            trials.stop()

    def _begin_run(self, event: Event) -> None:
        folder = event.facts["folder"]
        self._folder = RunFolder(folder)
        self._section = event.facts.get("task", self._section)
        if self._command:
            self._folder.append_log(f"$ {self._command}")
        self._print(f"run {folder}")
        self._began = time.monotonic()

    def _print_phases(self, event: Event) -> None:
        rows = [
            [
                phase["name"],
                phase["epochs"],
                phase["trains"],
                phase["parameters"],
                Figure(f"{phase['parameters'] / phase['total_parameters']:.1%}"),
                phase["optimizer"],
                describe_rate(phase["learning_rate"]),
            ]
            for phase in event.facts["phases"]
        ]
        columns = ["phase", "epochs", "trains", "parameters", "of all", "optimizer", "rate"]
        self._print(build_table(columns, rows))
        self._print("* the best epoch so far, whose weights are kept")
        # A baseline is planned when the run itself is done.
        most = _MOST_OF_BASELINE if self._plan else _MOST_LINES
        self._plan = self._plan or event.facts["phases"]
        epochs = sum(phase["epochs"] for phase in event.facts["phases"])
        self._stride = 1 if self._is_live else math.ceil(max(epochs, 1) / most)
        if self._stride > 1:
            self._print(f"a line for every {self._stride} epochs; history.csv holds all")

    def _begin_phase(self, event: Event) -> None:
        self.stop()
        if rates := event.facts.get("rates"):
            rows = [[row["name"], Figure(f"{row['rate']:.3g}"), row["tensors"]] for row in rates]
            self._print(build_table([f"{event.facts['phase']} trains", "rate", "tensors"], rows))
        self._epochs = event.facts["epochs"]
        self._clock = time.monotonic()
        self._seconds[event.facts["phase"]] = []
        self._start_bar(event.facts["phase"], self._epochs * event.facts["steps"])

    def _end_step(self, event: Event) -> None:
        if self._bars and self._task is not None:
            self._bars.advance(self._task)

    def _end_epoch(self, event: Event) -> None:
        row = event.facts
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        taken = self._seconds.setdefault(row["phase"], [])
        if not taken:
            self._print(self._write_epoch(row, None))
        taken.append(seconds)
        # The first ones show that it trains.
        if row["epoch"] < 3 or row["epoch"] % self._stride == 0 or row["epoch"] == self._epochs:
            self._print(self._write_epoch(row, seconds) + (" *" if event.is_best else ""))
        if row["epoch"] == self._epochs:
            self.stop()

    def _write_epoch(self, row: Mapping[str, Any], seconds: float | None) -> str:
        """Returns the line of an epoch, or without seconds the heading of such lines."""
        score = score_of(row)
        title = self._section.title_of(score)
        name = f"{row['phase']} {row['epoch']}/{self._epochs}"
        room = len(f"{row['phase']} {self._epochs}/{self._epochs}")
        cells = {
            "loss": (row["loss"], "8.4f"),
            title: (row[score], "6.3f"),
            "val loss": (row["val_loss"], "8.4f"),
            f"val {title}": (row[f"val_{score}"], "6.3f"),
            "seconds": (seconds, "6.1f"),
        }
        if seconds is None:
            texts = {head: head for head in cells}
        else:
            texts = {head: "" if value is None else f"{value:{form}}"
                     for head, (value, form) in cells.items()}  # fmt: skip
        parts = [
            text.rjust(max(len(head), 8 if cells[head][1] == "8.4f" else 6))
            for head, text in texts.items()
        ]
        return "  ".join([("epoch" if seconds is None else name).ljust(room), *parts])

    def _begin_trial(self, event: Event) -> None:
        if self._trials is None and self._is_live:
            from tl_toolkit.printing.trials import TrialTable

            self._trials = TrialTable(self._console)
        if self._trials is not None:
            self._trials.begin(event.facts["number"], event.total, event.facts["values"])

    def _end_trial(self, event: Event) -> None:
        if self._trials is not None:
            self._trials.end(event.facts, best=event.is_best)
        else:
            self._print(describe_trial(event.facts) + (" *" if event.is_best else ""))

    def _end_search(self, event: Event) -> None:
        self.stop()
        for line in describe_search(event.facts):
            self._print(line)

    def _print_sentence(self, event: Event) -> None:
        self._stop_bar()  # a table of trials stays: the sentence goes above it
        text = f"warning: {event.text}" if event.kind == "warning" else event.text
        self._print(text, is_prose=True)

    def _end_run(self, event: Event) -> None:
        self.stop()
        best = event.facts["metrics"]["best"]
        self._print(f"\n{describe_kept(best)}")
        if improving := self._describe_improving(best):
            self._print(improving)
        metrics = event.facts["metrics"]
        self._print(build_summary(metrics, self._section))
        for split in ("test", "validation"):
            if split in metrics and (text := self._section.describe_certainty(metrics[split])):
                chose = ", which chose the epoch" if split == "validation" else ""
                if chose and "folds" in metrics:
                    chose = ", each image by a model trained without its fold"
                self._print(f"{text} ({split}{chose})")
                if split == "validation" and "folds" in metrics:
                    score = self._section.score
                    if choice := describe_folds(metrics, score, self._section.title_of(score)):
                        self._print(choice, is_prose=True)
                for sentence in self._section.describe_comparisons(metrics[split]):
                    self._print(sentence)
                break
        for path in event.facts["exported"].values():
            self._print(f"exported: {path}")
        if page := event.facts.get("report"):
            self._print(f"report: {page}")
        self._print(self._describe_time())
        if self._folder:
            run = shlex.quote(shorten_path(self._folder.path))
            verbs = [f"evaluate {run}"] if "folds" not in metrics or "test" in metrics else []
            verbs += [f"predict {run} IMAGE..."]
            verbs += [] if event.facts["exported"] else [f"export {run}"]
            self._print("\nnext:" + "".join(f"\n  tltool {verb}" for verb in verbs))

    def _describe_improving(self, best: Mapping[str, Any]) -> str:
        """Returns a sentence if the last epoch was the best one, else ""."""
        # More epochs would not change a head that was solved.
        last = self._plan[-1]["name"] if self._plan and not self._plan[-1]["solver"] else None
        done = len(self._seconds.get(best["phase"], ())) - 1  # without the one before the first
        if best["phase"] != last or not best["epoch"] == done > 0:
            return ""
        if self._plan[-1].get("section", last) != last:  # a part of a phase
            return "still improving when it stopped"
        return f"still improving when it stopped: more epochs, as phases.{last}.epochs={2 * done}"

    def _describe_time(self) -> str:
        means = [
            f"{describe_seconds(statistics.fmean(taken[1:]))} an epoch of {name}"
            for name, taken in self._seconds.items()
            if taken[1:]
        ]
        total = describe_seconds(time.monotonic() - self._began)
        return ", ".join([f"time: {total} in all", *means])

    def _stop_bar(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None
            if self._trials:
                self._trials.resume()

    def _start_bar(self, name: str, total: int) -> None:
        if not self._is_live or not total:
            return
        from rich import progress as bars

        if self._trials:
            self._trials.pause()  # a terminal shows one live display at a time
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._bar = name
        self._task = self._bars.add_task(name, total=total)
        self._bars.start()

    def _print_count(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - self._counted >= _SECONDS_OF_COUNTS:
            self._counted = now
            self._print(f"images: {done} of {total}")

    def _move_bar(self, name: str, done: int, total: int) -> None:
        """Moves a bar of its own for these counts, unless the terminal shows another bar."""
        if not self._bars and done < total:
            self._start_bar(name, total)
        if self._bars and self._task is not None and self._bar == name:
            self._bars.update(self._task, completed=done)
            if done >= total:
                self._stop_bar()

    @property
    def _console(self) -> Console:
        if self._opened is None:
            # A training outlives who reads of it, as in `2>&1 | head`: its log has the rest.
            self._opened = open_console(self._file, is_needed=False)
        return self._opened

    def _print(self, text: str | FittedTable, *, is_prose: bool = False) -> None:
        console = self._console
        if not isinstance(text, str):
            with console.capture() as captured:
                console.print(text)
            text = captured.get().rstrip("\n")
        else:
            text = escape_controls(text)
        # rich moves a bar out of the way first.
        shown = wrap(text, console.width) if is_prose and self._is_live else text
        console.print(shown, markup=False)
        if self._folder and self._command:
            self._folder.append_log(_STYLES.sub("", text))
