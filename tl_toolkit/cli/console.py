"""What people see: tables and messages, bars on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.events import Event, Kind
from tl_toolkit.recipe.tasks import list_baselines, list_titles, select_headlines
from tl_toolkit.runs.folder import RunFolder

if TYPE_CHECKING:
    from rich import progress as bars
    from rich.console import Console
    from rich.table import Table

    from tl_toolkit.cli.trials import TrialTable

# A descriptor of our own for people's text, so that the process's stderr can be turned away from
# the terminal: C++ libraries write there what no setting silences.
_terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
_noise = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
_FILE_WIDTH = 160  # columns where output goes to a file or a pipe: tables must not fold at 80


@cache
def _console(*, results: bool = False) -> Console:
    """The console for results (stdout) or for narration (stderr); rich is imported only here."""
    from rich.console import Console

    file = sys.stdout if results else _terminal
    width = None if file.isatty() else _FILE_WIDTH
    return Console(file=file, highlight=False, soft_wrap=True, width=width)


_live: ConsoleProgress | None = None


def divert_noise() -> None:
    """Turns the process's stderr away from the terminal, until `restore_noise`."""
    sys.stderr.flush()
    os.dup2(_noise.fileno(), 2)


def restore_noise() -> str:
    """Turns stderr back, and returns what was written to it."""
    sys.stderr.flush()
    os.dup2(_terminal.fileno(), 2)
    _noise.seek(0)
    return _noise.read().decode(errors="replace")


def tell(message: str) -> None:
    """Prints a sentence for people, to stderr."""
    print(message, file=_terminal, flush=True)


def warn(message: str) -> None:
    """Prints an error for people, to stderr; red where colours are welcome."""
    colours = _terminal.isatty() and "NO_COLOR" not in os.environ
    tell(click.style(message, fg="red") if colours else message)


def show(table: Table | str) -> None:
    """Prints a result for people, to stdout."""
    if isinstance(table, str):
        click.echo(table)
    else:
        _console(results=True).print(table)


def show_json(value: Any) -> None:
    """Prints a result for machines, to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def build_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> Table:
    """Draws a table; numbers are set to the right, None is left empty."""
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_as_text, row))
    return table


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value).replace("[", "\\[")


def _keep_small(value: Any) -> Any:
    """Returns a number of a column's own unit with digits that it would lose behind the point."""
    is_small = isinstance(value, float) and 0 < abs(value) < 0.001
    return f"{value:.3g}" if is_small else value


def _title(name: str) -> str:
    return list_titles().get(name, name.replace("_", " "))


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def show_metrics(name: str, metrics: Mapping[str, Any]) -> None:
    """Prints the metrics of one split, and of each class where there are classes."""
    numbers = _numbers(metrics)
    rows = [list(numbers.values())]
    trivial = next((key for key in list_baselines() if key in metrics), None)
    if trivial is not None:
        rows.append([metrics[trivial].get(key) for key in numbers])
        labels = ("", list_baselines()[trivial])
        rows = [[label, *row] for label, row in zip(labels, rows, strict=True)]
        numbers = {"": None, **numbers}
    show(f"{name}\n")
    show(build_table([_title(key) for key in numbers], rows))
    name = "column" if "per_column" in metrics else "class"
    classes = metrics.get(f"per_{name}")
    if classes:
        columns = list(next(iter(classes.values())))
        # Counts first: they say how much the others are worth.
        columns.sort(key=lambda column: column not in ("images", "pixels"))
        rows = [[label, *(row[column] for column in columns)] for label, row in classes.items()]
        show("")
        rows = [list(map(_keep_small, row)) for row in rows] if name == "column" else rows
        show(build_table([name, *map(_title, columns)], rows))


def current_log() -> Path | None:
    """The log of the run that this command writes, if there is one."""
    return _live.folder.log if _live and _live.folder else None


def stop_live() -> None:
    """Takes a bar off the terminal before something else is printed there."""
    if _live:
        _live.stop()


_BARS: dict[Kind, str] = {
    "weights_fetched": "weights",
    "images_inspected": "images",
    "features_computed": "frozen part",
}


class ConsoleProgress:
    """Tells a run on stderr: bars on a terminal, else one line per epoch.

    Args:
        command: The command line, for the run's log.
    """

    def __init__(self, command: str = "") -> None:
        global _live
        _live = self
        self.folder: RunFolder | None = None
        self._command = command
        self._bars: bars.Progress | None = None
        self._task: bars.TaskID | None = None
        self._bar = ""
        self._epochs = 0
        self._trials: TrialTable | None = None
        self._handlers: dict[Kind, Callable[[Event], None]] = {
            "run_began": self._begin_run,
            "planned": self._show_phases,
            "phase_began": self._begin_phase,
            "step_ended": self._end_step,
            "epoch_ended": self._end_epoch,
            "trial_began": self._begin_trial,
            "trial_ended": self._end_trial,
            "search_ended": self._end_search,
            "message": self._show_message,
            "warning": self._show_message,
            "run_ended": self._end_run,
        }

    def handle(self, event: Event) -> None:
        """Prints an event, or moves a bar."""
        if event.kind in _BARS:
            self._show(_BARS[event.kind], event.done, event.total or 0)
        else:
            self._handlers[event.kind](event)

    def _begin_run(self, event: Event) -> None:
        folder = event.facts["folder"]
        self.folder = RunFolder(folder)
        self.folder.append_log(f"$ {self._command}")
        self._tell(f"run {folder}")

    def _show_phases(self, event: Event) -> None:
        rows = [
            [
                row["name"],
                row["epochs"],
                row["trains"],
                row["parameters"],
                f"{row['parameters'] / row['total_parameters']:.1%}",
                row["optimizer"],
                f"{row['learning_rate']:g}",
            ]
            for row in event.facts["phases"]
        ]
        columns = ["phase", "epochs", "trains", "parameters", "of all", "optimizer", "rate"]
        self._tell(build_table(columns, rows))
        self._tell("* the best epoch so far, whose weights are kept")

    def _begin_phase(self, event: Event) -> None:
        self.stop()
        self._epochs = event.facts["epochs"]
        self._start(event.facts["phase"], self._epochs * event.facts["steps"])

    def _end_step(self, event: Event) -> None:
        if self._bars and self._task is not None:
            self._bars.advance(self._task)

    def _end_epoch(self, event: Event) -> None:
        row = event.facts
        parts = [f"{row['phase']} {row['epoch']}/{self._epochs}"]
        score = _score_of(row)
        if row["loss"] is not None:
            parts.append(f"loss {row['loss']:.4f}  {_title(score)} {row[score]:.3f}")
        parts.append(f"val loss {row['val_loss']:.4f}  {_title(score)} {row[f'val_{score}']:.3f}")
        self._tell("  ".join(parts) + (" *" if event.is_best else ""))  # within 80 columns
        if row["epoch"] == self._epochs:
            self.stop()

    def _begin_trial(self, event: Event) -> None:
        if self._trials is None and _terminal.isatty():
            from tl_toolkit.cli.trials import TrialTable

            self._trials = TrialTable(_console())
        if self._trials is not None:
            self._trials.began(event.facts["number"], event.total, event.facts["values"])

    def _end_trial(self, event: Event) -> None:
        trial = event.facts
        if self._trials is not None:
            self._trials.ended(trial, best=event.is_best)
            return
        values = "  ".join(
            f"{key.split('.')[-1]} {value}" for key, value in trial["values"].items()
        )
        score = trial["error"].split("\n")[0] if trial["score"] is None else f"{trial['score']:.4f}"
        if trial["state"] == "paused":
            score += f" after epoch {trial['budget']}"
        number = str(trial["number"])
        if trial["continues"]:
            number += f" ({trial['continues']} going on)"
        self._tell(f"trial {number}  {values}  {score}" + (" *" if event.is_best else ""))

    def _end_search(self, event: Event) -> None:
        summary = event.facts
        self.stop()
        best = summary["best"]
        values = ", ".join(f"{key} = {value}" for key, value in best["values"].items())
        failed = f", {summary['failed']} failed" if summary["failed"] else ""
        paused = f", {summary['paused']} paused" if summary["paused"] else ""
        self._tell(
            f"\nbest: trial {best['number']} of {summary['trials']}{paused}{failed}, "
            f"{summary['objective']} {best['score']:.4f}\n  {values}"
        )
        if summary["refit"]:
            self._tell(f"  {_describe_refit(summary['refit'])}")
        # A file, not a run: only a path names it.
        best = Path(summary["best_recipe"])
        typed = best.relative_to(Path.cwd()) if best.is_relative_to(Path.cwd()) else best
        self._tell(f"\nnext:\n  tltool finetune {typed}")

    def _show_message(self, event: Event) -> None:
        self._stop_bar()  # a table of trials stays: the sentence goes above it
        self._tell(event.text)

    def _end_run(self, event: Event) -> None:
        metrics, exported = event.facts["metrics"], event.facts["exported"]
        self.stop()
        best = metrics["best"]
        self._tell(f"\nkept: phase {best['phase']}, epoch {best['epoch']}")
        self._tell(_summary_table(metrics))
        for path in exported.values():
            self._tell(f"exported: {path}")
        if self.folder:
            run = _shortest(self.folder.path)
            self._tell(
                f"\nnext:\n  tltool evaluate {run}\n  tltool predict {run} IMAGE...\n"
                f"  tltool export {run}"
            )

    def stop(self) -> None:
        """Takes the bar off the terminal; a table of trials stays as it is."""
        self._stop_bar()
        if self._trials:
            self._trials.stop()
            self._trials = None

    def _stop_bar(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None

    def _start(self, name: str, total: int) -> None:
        if not _terminal.isatty() or not total:
            return
        from rich import progress as bars

        if self._trials:
            self._trials.pause()  # a terminal shows one live thing at a time
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
            console=_console(),
            transient=True,
        )
        self._bar = name
        self._task = self._bars.add_task(name, total=total)
        self._bars.start()

    def _show(self, name: str, done: int, total: int) -> None:
        """Moves a bar of its own for this, unless another one is on the terminal."""
        if not self._bars and done < total:
            self._start(name, total)
        if self._bars and self._task is not None and self._bar == name:
            self._bars.update(self._task, completed=done)
            if done >= total:
                self._stop_bar()

    def _tell(self, message: str | Table) -> None:
        console = _console()
        if not isinstance(message, str):
            with console.capture() as text:
                console.print(message)
            message = text.get().rstrip("\n")
        # Through rich, which moves a bar out of the way first.
        console.print(message, markup=False)
        if self.folder:
            self.folder.append_log(click.unstyle(message))


def _score_of(row: Mapping[str, Any]) -> str:
    """Returns the name of an epoch's score, of which it has one on validation images too."""
    return next(
        name.removeprefix("val_") for name in row if name.startswith("val_") and name != "val_loss"
    )


def _summary_table(metrics: Mapping[str, Any]) -> Table:
    """Draws the first metrics of each split, of the run and of its baseline."""
    rows = []
    columns: list[str] = []
    for split in ("validation", "test"):
        if split not in metrics:
            continue
        for name, found in (("this run", metrics), ("baseline", metrics.get("baseline") or {})):
            if split in found:
                numbers = _numbers(found[split])
                columns = select_headlines(numbers)
                rows.append([name, split, *(numbers[column] for column in columns)])
    return build_table(["", "split", *map(_title, columns)], rows)


def _describe_refit(refit: Mapping[str, Any]) -> str:
    scores = refit["scores"]
    failed = scores.count(None)
    seeds = f"with {len(scores)} other seeds: "
    if failed == len(scores):
        return f"{seeds}all failed"
    spread = f"mean {refit['mean']:.4f}, {refit['min']:.4f} to {refit['max']:.4f}"
    return seeds + spread + (f", {failed} failed" if failed else "")


def _shortest(path: Path) -> str:
    """A run's path as one would type it: `<name>/<NNN>` under runs/, else relative if it can be."""
    for root in (Path("runs").absolute(), Path.cwd()):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)
