"""Tables of figures, as rich prints them; rich is imported only where one is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tl_toolkit.recipe.tasks import TaskSection

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_FILE_WIDTH = 160  # columns where output goes to a file or a pipe: tables must not fold at 80


def open_console(file: TextIO) -> Console:
    """Returns a console of rich that prints to a file.

    Args:
        file: A terminal, or any other text stream.
    """
    from rich.console import Console

    width = None if file.isatty() else _FILE_WIDTH
    return Console(file=file, highlight=False, soft_wrap=True, width=width)


def build_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> Table:
    """Returns a table; numbers are set to the right, None is left empty.

    Args:
        columns: Names of the columns.
        rows: Rows, with a value for each column.
        title: The title above the table.
    """
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
        return f"{value:.3g}" if 0 < abs(value) < 0.001 else f"{value:.4f}"
    return str(value).replace("[", "\\[")


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """Returns those metrics of a split that are numbers.

    Args:
        metrics: Metrics of one split, as in metrics.json.
    """
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def build_summary(metrics: Mapping[str, Any], task: TaskSection) -> Table:
    """Returns the first metrics of each split, of a run and of its baseline.

    Args:
        metrics: The content of metrics.json.
        task: Of the run.
    """
    rows = []
    columns: list[str] = []
    for split in ("validation", "test"):
        if split not in metrics:
            continue
        for name, splits in (("this run", metrics), ("baseline", metrics.get("baseline") or {})):
            if split in splits:
                numbers = numbers_of(splits[split])
                columns = task.select_headlines(numbers)
                rows.append([name, split, *(numbers[column] for column in columns)])
    return build_table(["", "split", *map(task.title_of, columns)], rows)
