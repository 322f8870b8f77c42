"""The live table of a search: a row for each trial, the best so far, and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tl_toolkit.plan.values import describe_value, shorten_fields
from tl_toolkit.printing.tables import Figure, FittedTable

_ROWS = 15


class TrialTable:
    """Shows trials on a terminal while they run.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._rows: list[tuple[Mapping[str, Any], bool]] = []
        self._running: tuple[int, int | None, Mapping[str, Any]] | None = None
        self._best: Mapping[str, Any] | None = None
        self._ends: list[float] = []
        self._console = console
        self._live: Live | None = None

    def begin(self, number: int, total: int | None, values: Mapping[str, Any]) -> None:
        """Shows a trial as running.

        Args:
            number: Number of the trial, from 1.
            total: The most trials that there may be; None if that is not known.
            values: Values of the searched fields.
        """
        self._running = number, total, values
        self._show()

    def end(self, trial: Mapping[str, Any], *, best: bool) -> None:
        """Adds a row.

        Args:
            trial: The columns of `tl_toolkit.tuning.journal.Trial`.
            best: Whether it is the best so far.
        """
        self._rows.append((trial, best))
        self._ends.append(time.monotonic())
        self._best = trial if best else self._best
        self._show()

    def pause(self) -> None:
        """Removes the table from the terminal until it is shown again."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def resume(self) -> None:
        """Shows the table again if a trial is running."""
        if self._running is not None:
            self._show()

    def stop(self) -> None:
        """Leaves the table on the terminal as it is."""
        self.pause()
        self._running = None
        if self._rows:
            self._console.print(self._render())

    def _show(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                refresh_per_second=4,
                transient=True,
                get_renderable=self._render,
            )
            self._live.start()

    def _render(self) -> Group:
        trials = self._rows[-self._height :]
        rows = [[*_describe(trial), trial["values"]] for trial, _ in trials]
        styles = [
            "bold green" if is_best else ("red" if trial["score"] is None else "")
            for trial, is_best in trials
        ]
        if self._running is not None:
            number, total, values = self._running
            if not self._rows or self._rows[-1][0]["number"] != number:
                rows.append([Figure(number), Figure("..."), Figure(""), values])
                styles.append("dim")
        table = _build_trials(rows, styles, self._console.width)
        if self._running is None:
            return Group(table)
        return Group(table, Text(self._describe_rest(number, total)))

    @property
    def _height(self) -> int:
        """Trials that are shown; more than fit a terminal could not be updated in place."""
        return max(3, min(_ROWS, (self._console.height - 6) // 2))

    def _describe_rest(self, number: int, total: int | None) -> str:
        parts = [f"trial {number} of {total}" if total else f"trial {number}"]
        if self._best is not None:
            parts.append(f"best so far {self._best['score']:.4f} in trial {self._best['number']}")
        if total and (rest := self._estimate_rest(total)) >= 1:
            parts.append(f"about {rest:.0f} s left")
        return ", ".join(parts)

    def _estimate_rest(self, total: int) -> float:
        """Returns the seconds that are left, by the trials after the first; 0 for none.

        The first one prepares what all of them share.
        """
        if len(self._ends) < 2:
            return 0.0
        mean = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return mean * (total - len(self._ends)) - (time.monotonic() - self._ends[-1])


def _describe(trial: Mapping[str, Any]) -> list[Figure]:
    """Returns number, score and seconds of a trial, which every terminal shows whole."""
    number = str(trial["number"])
    if trial["continues"]:
        number += f" ({trial['continues']})"
    score = "failed" if trial["score"] is None else f"{trial['score']:.4f}"
    if trial["state"] == "paused":
        score += f" after {trial['budget']}"
    return [Figure(number), Figure(score), Figure(f"{trial['seconds']:.1f}")]


def _build_trials(rows: Sequence[Sequence[Any]], styles: Sequence[str], width: int) -> FittedTable:
    """Returns a column for each field, or all of them in one column where that is too wide.

    Args:
        rows: Number, score, seconds and values of each trial.
        styles: Styles of the rows.
        width: Of the terminal.
    """
    fields = list(rows[-1][-1])
    names = shorten_fields(fields)
    wide = FittedTable(
        ["trial", *names, "score", "seconds"],
        [
            [number, *(_show(values[field]) for field in fields), score, seconds]
            for number, score, seconds, values in rows
        ],
        styles=styles,
    )
    if wide.fits(width):
        return wide
    listed = [
        [*row[:3], ", ".join(f"{name} {describe_value(row[3][field])}"
                             for name, field in zip(names, fields, strict=True))]
        for row in rows
    ]  # fmt: skip
    return FittedTable(["trial", "score", "seconds", "values"], listed, styles=styles)


def _show(value: Any) -> str:
    """Returns a value; a number is set to the right."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Figure(describe_value(value)) if is_number else describe_value(value)
