"""The live table of a search: a row for each trial, the best so far, and the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

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
        self._began = time.monotonic()
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
        self._best = trial if best else self._best
        self._show()

    def pause(self) -> None:
        """Removes the table from the terminal until the next trial begins or ends."""
        if self._live is not None:
            self._live.stop()
            self._live = None

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
        fields = list(self._running[2] if self._running else self._rows[-1][0]["values"])
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("trial", *fields, "score", "seconds"):
            # The table must not wrap: the end of a long field is enough to recognize it.
            table.add_column(name if len(name) < 24 else f"...{name[-21:]}", no_wrap=True)
        for trial, is_best in self._rows[-_ROWS:]:
            score = "failed" if trial["score"] is None else f"{trial['score']:.4f}"
            if trial["state"] == "paused":
                score += f" after {trial['budget']}"
            texts = [_show(trial["values"][field]) for field in fields]
            mark = "bold green" if is_best else ("red" if trial["score"] is None else "")
            label = str(trial["number"])
            if trial["continues"]:
                label += f" ({trial['continues']})"
            cells = [label, *texts, score, f"{trial['seconds']:.1f}"]
            table.add_row(*cells, style=mark)
        if self._running is None:
            return Group(table)
        number, total, values = self._running
        if not self._rows or self._rows[-1][0]["number"] != number:
            table.add_row(str(number), *map(_show, values.values()), "...", "", style="dim")
        return Group(table, Text(self._describe_rest(number, total)))

    def _describe_rest(self, number: int, total: int | None) -> str:
        parts = [f"trial {number} of {total}" if total else f"trial {number}"]
        if self._best is not None:
            parts.append(f"best so far {self._best['score']:.4f} in trial {self._best['number']}")
        if total and self._rows:
            seconds_per_trial = (time.monotonic() - self._began) / len(self._rows)
            parts.append(f"about {seconds_per_trial * (total - number + 1):.0f} s left")
        return ", ".join(parts)


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
