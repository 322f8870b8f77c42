"""Scores with their intervals, one below the other, as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tl_toolkit.reports.charts import render_marks
from tl_toolkit.reports.scales import fit_scale, write_number
from tl_toolkit.reports.sections import Chart

__all__ = ["Scored", "plot_intervals"]

_LETTER = 6.5
_LONGEST = 34  # letters of a name
_TOP, _ROW, _BELOW = 8, 24, 42
_WIDTH, _LEAST_ROOM = 520, 220


@dataclass(frozen=True)
class Scored:
    """A row of the chart.

    Attributes:
        name: What is scored.
        score: Its score.
        interval: From and to; None where there is none.
        is_chosen: Whether it is the one that was chosen.
    """

    name: str
    score: float
    interval: tuple[float, float] | None
    is_chosen: bool = False


def plot_intervals(
    name: str, title: str, description: str, rows: Sequence[Scored], *, score: str
) -> Chart:
    """Plots scores as dots on lines of their intervals, and where the best one's interval begins.

    Args:
        name: As in `Chart`.
        title: As in `Chart`.
        description: As in `Chart`.
        rows: At least one, in their order from the top.
        score: Name of the score.
    """
    names = [_shorten(row.name) + (" *" if row.is_chosen else "") for row in rows]
    left = 14 + _LETTER * max(map(len, names))
    right = max(_WIDTH, left + _LEAST_ROOM) - 12
    bottom = _TOP + _ROW * len(rows)
    ends = [end for row in rows for end in (*(row.interval or ()), row.score)]
    scale = fit_scale(ends, (left, right), most_ticks=4)
    best = max(rows, key=lambda row: row.score)
    body = render_marks(
        "intervals.svg.jinja",
        left=left, right=right, top=_TOP, bottom=bottom, title=score,
        ticks=[(scale.place(tick), write_number(tick)) for tick in scale.ticks],
        limit=None if best.interval is None else scale.place(best.interval[0]),
        rows=[
            (
                label,
                _TOP + _ROW * (place + 0.5),
                *((None, None) if row.interval is None else map(scale.place, row.interval)),
                scale.place(row.score),
                "s1" if row.is_chosen else "s0",
            )
            for place, (label, row) in enumerate(zip(names, rows, strict=True))
        ],
    )  # fmt: skip
    return Chart(name, title, description, round(right + 12), bottom + _BELOW, body)


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
