"""A matrix of counts as a chart of cells, and bars."""

from __future__ import annotations

from collections.abc import Sequence

from tl_toolkit.reports.charts import render_marks
from tl_toolkit.reports.sections import Chart

__all__ = ["plot_bars", "plot_matrix"]

_LETTER = 6.5
_LONGEST = 18  # letters of a name beside a matrix
_WHITE = 0.7  # share from which on a cell is too dark for black letters
_BAR, _GAP = 18, 8


def plot_matrix(
    name: str,
    title: str,
    description: str,
    classes: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    columns: Sequence[str] | None = None,
) -> Chart:
    """Plots a confusion matrix: each cell with its count, darker the more of its row it holds.

    Args:
        name: As in `Chart`.
        title: As in `Chart`.
        description: As in `Chart`.
        classes: Names of the rows.
        counts: A row for each label, a column for each prediction.
        columns: Names of the columns; by default those of the rows.
    """
    names = list(map(_shorten, classes))
    heads = list(map(_shorten, columns)) if columns is not None else names
    digits = max((len(f"{count}") for row in counts for count in row), default=1)
    cell = max(24.0, 7.5 * digits + 6)
    left = 34 + _LETTER * max(map(len, names), default=0)
    top = 34 + _LETTER * max(map(len, heads), default=0) * 0.75
    cells = []
    for down, row in enumerate(counts):
        total = sum(row)
        for along, count in enumerate(row):
            share = count / total if total else 0.0
            place = (left + along * cell, top + down * cell)
            cells.append((*place, round(share, 3), count if count else "", share > _WHITE))
    body = render_marks(
        "matrix.svg.jinja", left=left, top=top, cell=cell, cells=cells, names=names, heads=heads
    )
    width = max(left + cell * len(heads) + 0.5 * top, 240)
    return Chart(name, title, description, round(width), top + cell * len(names) + 12, body)


def plot_bars(
    name: str,
    title: str,
    description: str,
    bars: Sequence[tuple[str, float, str]],
    *,
    most: float | None = None,
) -> Chart:
    """Plots horizontal bars.

    Args:
        name: As in `Chart`.
        title: As in `Chart`.
        description: As in `Chart`.
        bars: Name, length (at least 0) and what is written beside the bar.
        most: The longest length there may be; by default the longest there is.
    """
    names = [label if len(label) <= 34 else f"…{label[-33:]}" for label, _, _ in bars]
    left = 12 + _LETTER * max(map(len, names), default=0)
    right = 10 + _LETTER * max((len(text) for _, _, text in bars), default=0)
    room = max(420 - left - right, 120)
    longest = most or max((length for _, length, _ in bars), default=0.0) or 1.0
    rows = [
        (label, 10 + index * (_BAR + _GAP), round(max(length, 0.0) / longest * room, 1), text)
        for index, (label, (_, length, text)) in enumerate(zip(names, bars, strict=True))
    ]
    body = render_marks("bars.svg.jinja", left=left, rows=rows, bar=_BAR)
    height = 14 + len(rows) * (_BAR + _GAP)
    return Chart(name, title, description, round(left + room + right), height, body)


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
