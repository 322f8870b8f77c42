"""Charts as SVG: lines and dots on two axes, drawn by one template.

Charts of a report are drawn here and not by matplotlib: each takes a millisecond, follows the
page's colours, light or dark, and its words stay text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from tl_toolkit.reports.scales import Scale, fit_scale, write_number
from tl_toolkit.reports.sections import Chart

__all__ = ["COLORS", "Series", "load_environment", "plot_series", "render_marks"]

COLORS = 8
"""Series of a chart that differ in colour or dashes; further ones begin anew."""

_WIDTH, _PLOT_HEIGHT = 420, 220
_LEFT, _RIGHT, _BOTTOM = 66, 12, 44
_LETTER = 6.3  # width of a letter of 12 pixels, on average
_LINE = 18
_LONGEST = 40  # letters of a label


@dataclass(frozen=True)
class Series:
    """Values over other values.

    Attributes:
        label: Its name in the legend; "" for none.
        xs: Along the chart.
        ys: Upwards, as many; values that are not finite interrupt a line.
        form: A line, or dots, or a thin dashed line that others are compared with.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    form: Literal["line", "dots", "reference"] = "line"


@cache
def load_environment() -> jinja2.Environment:
    """Returns the environment of the templates of this folder; every value is escaped."""
    sources = {
        entry.name: entry.read_text("utf-8")
        for entry in resources.files(__package__).iterdir()
        if entry.name.endswith((".jinja", ".css"))
    }
    return jinja2.Environment(
        loader=jinja2.DictLoader(sources), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip


def plot_series(
    name: str,
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    is_log: tuple[bool, bool] = (False, False),
    x_labels: Mapping[float, str] | None = None,
    marks: Mapping[float, str] | None = None,
) -> Chart:
    """Plots series over one axis.

    Args:
        name: As in `Chart`.
        title: As in `Chart`.
        description: As in `Chart`.
        series: At least one.
        x_title: Name of the axis along the chart.
        y_title: Name of the axis upwards.
        x_limits: The range along the chart; by default that of the values.
        y_limits: The range upwards.
        is_log: Whether the axes are logarithmic.
        x_labels: The ticks along the chart, by value, in place of numbers.
        marks: Vertical lines, named, by value.
    """
    labels = [
        (each.label, _style(index, each), each.form)
        for index, each in enumerate(series)
        if each.label
    ]
    legend, top = _lay_out_legend(labels if len(labels) > 1 else [])
    xs = [x for each in series for x in each.xs if math.isfinite(x)]
    ys = [y for each in series for y in each.ys if math.isfinite(y)]
    bottom = top + _PLOT_HEIGHT
    across = fit_scale(xs, (_LEFT, _WIDTH - _RIGHT), limits=x_limits, is_log=is_log[0])
    upward = fit_scale(ys, (bottom, top), limits=y_limits, is_log=is_log[1])
    names = x_labels or {tick: write_number(tick) for tick in across.ticks}
    body = render_marks(
        "series.svg.jinja",
        left=_LEFT, right=_WIDTH - _RIGHT, top=top, bottom=bottom,
        x_title=x_title, y_title=y_title, legend=legend,
        x_ticks=[(across.place(tick), label) for tick, label in names.items()],
        y_ticks=[(upward.place(tick), write_number(tick)) for tick in upward.ticks],
        marks=[(across.place(value), label) for value, label in (marks or {}).items()],
        paths=[
            (_style(index, each), each.form, _trace(each, across, upward))
            for index, each in enumerate(series)
        ],
    )  # fmt: skip
    return Chart(name, title, description, _WIDTH, bottom + _BOTTOM, body)


def render_marks(template: str, **values: Any) -> Markup:
    """Renders what an svg element holds.

    Args:
        template: A file of this folder.
        **values: What it takes.
    """
    return Markup(load_environment().get_template(template).render(values))  # noqa: S704  (autoescaped)


def _style(index: int, series: Series) -> str:
    return "reference" if series.form == "reference" else f"s{index % COLORS}"


def _trace(series: Series, across: Scale, upward: Scale) -> str:
    """Returns a path; dots are strokes of no length with round ends."""
    parts: list[str] = []
    is_down = False
    for x, y in zip(series.xs, series.ys, strict=True):
        if not _fits(x, across) or not _fits(y, upward):
            is_down = False
            continue
        place = f"{across.place(x):g} {upward.place(y):g}"
        if series.form == "dots":
            parts.append(f"M{place}h0")
        else:
            parts.append(f"{'L' if is_down else 'M'}{place}")
        is_down = True
    if len(parts) == 1 and series.form == "line":  # a line of one point would not be seen
        parts.append("h0")
    return "".join(parts)


def _fits(value: float, scale: Scale) -> bool:
    margin = 1e-9 * (scale.high - scale.low)
    return math.isfinite(value) and scale.low - margin <= value <= scale.high + margin


def _lay_out_legend(
    labels: Sequence[tuple[str, str, str]],
) -> tuple[list[tuple[str, str, str, float, float]], float]:
    """Returns label, style, form and place of each entry, and where the plot begins."""
    x, y = float(_LEFT), 14.0
    entries = []
    for label, style, form in labels:
        shown = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
        width = 30 + _LETTER * len(shown)
        if x > _LEFT and x + width > _WIDTH:
            x, y = float(_LEFT), y + _LINE
        entries.append((shown, style, form, round(x, 1), y))
        x += width + 12
    return entries, y + 12 if entries else 12.0
