"""Tables of figures, as rich prints them; rich is imported only where one is built."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from tl_toolkit.printing.words import escape_controls
from tl_toolkit.recipe.tasks import TaskSection

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

_GAP = 2  # spaces between columns
_PARTS = re.compile(r"[^/\\]+[/\\]?|[/\\]")  # a path is broken after a slash
_FILE_WIDTH = 160  # columns where output goes to a file or a pipe: tables must not fold at 80


def open_console(file: TextIO, *, is_needed: bool = True) -> Console:
    """Returns a console of rich that prints to a file.

    Args:
        file: A terminal, or any other text stream.
        is_needed: Whether the process ends where the file is a pipe that nobody reads any more;
            else it goes on without a word.
    """
    from rich.console import Console

    class Unneeded(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.file.fileno())  # of what others write there, too
            os.close(null)

    return (Console if is_needed else Unneeded)(
        file=file,
        highlight=False,
        soft_wrap=True,
        width=None if is_terminal(file) else _FILE_WIDTH,
        force_terminal=False if is_notebook() else None,
        force_jupyter=False,  # it would show each line as an output of its own
    )


def is_notebook() -> bool:
    """Returns whether a kernel of Jupyter runs this process."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def is_terminal(file: TextIO) -> bool:
    """Returns whether bars and tables can move in a file: on a terminal, in no notebook.

    Args:
        file: Any text stream.
    """
    return file.isatty() and not is_notebook()


class Figure(str):
    """A number that is written with its unit or its parts, as 12.3 M: it is never wrapped."""


class FittedTable:
    """A table that rich prints within the width of its console, and breaks no word to do so.

    Numbers are never shortened. Where the columns are too wide, words move to further lines; where
    that is not enough, the columns follow in several tables one below the other, each of which
    begins with the first columns. Only a word that has no room at all is broken.

    Args:
        columns: Names of the columns.
        rows: Rows, with a value for each column.
        keys: Number of first columns that each part of a split table repeats.
        styles: Styles of the rows, as rich names them; none by default.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        keys: int = 1,
        styles: Sequence[str] = (),
    ) -> None:
        self._columns = [
            _Column(
                _escape(name),
                [_escape(_as_text(row[index])) for row in rows],
                _is_numeric(rows, index),
            )
            for index, name in enumerate(columns)
        ]
        self._keys = keys
        self._styles = styles or [""] * len(rows)

    def fits(self, width: int) -> bool:
        """Returns whether the columns fit beside each other.

        Args:
            width: Of the terminal, in characters.
        """
        return _sum(column.least for column in self._columns) <= width

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        for number, columns in enumerate(self._split(options.max_width)):
            if number:
                yield ""
            yield _render(columns, self._styles, options.max_width)

    def _split(self, width: int) -> list[list[_Column]]:
        """Returns the columns of each table that is printed."""
        if self.fits(width):
            return [self._columns]
        keys, rest = self._columns[: self._keys], self._columns[self._keys :]
        tables: list[list[_Column]] = []
        for column in rest:
            if tables and _sum(each.least for each in [*tables[-1], column]) <= width:
                tables[-1].append(column)
            else:
                tables.append([*keys, column])
        return tables or [keys]


@dataclass(frozen=True)
class _Column:
    name: str
    cells: list[str]
    is_numeric: bool

    @property
    def widest(self) -> int:
        return max(map(_measure, (self.name, *self.cells)))

    @property
    def least(self) -> int:
        """The width that its longest word takes; a number is one word, whatever its unit."""
        texts = self.cells if self.is_numeric else list(_list_words(self.cells))
        return max(map(_measure, (*_list_words([self.name]), *texts)), default=0)


def _escape(text: str) -> str:
    """Returns a text on one line; a name of a file or class may hold anything."""
    escaped = escape_controls(text, also="\n\t")
    return text if escaped == text else escaped


def _render(columns: Sequence[_Column], styles: Sequence[str], width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    widths = _share(columns, width)
    for column, room in zip(columns, widths, strict=True):
        name = Text("\n".join(_wrap(column.name, room)))
        justify: Literal["right", "left"] = "right" if column.is_numeric else "left"
        table.add_column(name, justify=justify, width=room, no_wrap=True, overflow="fold")
    for cells, style in zip(zip(*(column.cells for column in columns), strict=True), styles,
                            strict=True):  # fmt: skip
        lines = (_wrap(cell, room) for cell, room in zip(cells, widths, strict=True))
        table.add_row(*(Text("\n".join(cell)) for cell in lines), style=style)
    return table


def _share(columns: Sequence[_Column], width: int) -> list[int]:
    """Returns the width of each column: the widest ones give way first, none below its words."""
    widths = [column.widest for column in columns]
    for least in ([column.least for column in columns], [1] * len(columns)):
        while _sum(widths) > width:
            slack = [have if have > need else 0 for have, need in zip(widths, least, strict=True)]
            if not any(slack):
                break
            widths[slack.index(max(slack))] -= 1
    # Words that moved to further lines leave room behind them.
    return [
        max(_measure(line) for text in (column.name, *column.cells) for line in _wrap(text, width))
        for column, width in zip(columns, widths, strict=True)
    ]


def _sum(widths: Iterable[int]) -> int:
    """Returns the width of a table with the gaps between columns."""
    widths = list(widths)
    return sum(widths) + _GAP * (len(widths) - 1)


def _list_words(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        for word in text.split():
            yield from _PARTS.findall(word)


def _wrap(text: str, width: int) -> list[str]:
    """Returns lines of at most a width, broken at spaces and after slashes where there are any."""
    if _measure(text) <= width:
        return [text]
    lines = [""]
    for index, word in enumerate(text.split()):
        for place, part in enumerate(_PARTS.findall(word)):
            joined = lines[-1] + (" " if index and not place and lines[-1] else "") + part
            if _measure(joined) <= width:
                lines[-1] = joined
                continue
            lines += [part] if lines[-1] else []
            lines[-1] = lines[-1] or part
            while _measure(lines[-1]) > width:  # no room for the word
                head = lines[-1]
                while _measure(head) > width and len(head) > 1:
                    head = head[:-1]
                if head == lines[-1]:
                    break
                lines[-1:] = [head, lines[-1][len(head) :]]
    return lines


def _measure(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _is_numeric(rows: Sequence[Sequence[Any]], index: int) -> bool:
    return any(isinstance(row[index], int | float | Figure) for row in rows)


def build_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, keys: int = 1
) -> FittedTable:
    """Returns a table; numbers are set to the right, None is left empty.

    Args:
        columns: Names of the columns.
        rows: Rows, with a value for each column.
        keys: As in `FittedTable`.
    """
    return FittedTable(columns, rows, keys=keys)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.4f}"
    return str(value)


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """Returns those metrics of a split that are numbers.

    Args:
        metrics: Metrics of one split, as in metrics.json.
    """
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def _list_rows(
    name: str, split: str, metrics: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields the row of a split, and below that of all folds their mean and deviation."""
    if split in metrics:
        yield name, split, metrics[split]
    if split == "validation" and (folds := metrics.get("folds")):
        yield f"  mean of {folds['count']} folds", split, {"images": None, **folds["mean"]}
        yield "  deviation of folds", split, {"images": None, **folds["deviation"]}


def build_summary(metrics: Mapping[str, Any], task: TaskSection) -> FittedTable:
    """Returns the table of `list_summary`.

    Args:
        metrics: The content of metrics.json.
        task: Of the run.
    """
    return build_table(*list_summary(metrics, task), keys=2)


def list_summary(
    metrics: Mapping[str, Any], task: TaskSection
) -> tuple[list[str], list[list[Any]]]:
    """Returns the first metrics of each split: of a run, its baseline, and no model at all.

    Args:
        metrics: The content of metrics.json.
        task: Of the run.

    Returns:
        Names of the columns, and the rows.
    """
    baseline = metrics.get("baseline") or {}
    name = "from scratch" if baseline.get("word") == "scratch" else "baseline"
    models = {"this run": metrics, name: baseline}
    shown = [
        row
        for split in ("validation", "test")
        if split in metrics
        for row in (
            *(row for title, splits in models.items() for row in _list_rows(title, split, splits)),
            *(
                (title, split, metrics[split][key])
                for key, title in task.baselines.items()
                if metrics[split].get(key) is not None
            ),
        )
    ]
    # A split may have headlines that the others lack.
    trained = [values for name, _, values in shown if name in models]
    columns = max(map(task.select_headlines, trained), key=len, default=[])
    rows = [[name, split, *map(values.get, columns)] for name, split, values in shown]
    return ["", "split", *map(task.title_of, columns)], rows
