"""The trials of a search: parallel coordinates, the importance of each field, scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tl_toolkit.plan.values import describe_value
from tl_toolkit.printing.words import describe_seconds
from tl_toolkit.reports.charts import Series, plot_series, render_marks
from tl_toolkit.reports.matrices import plot_bars
from tl_toolkit.reports.scales import Scale, fit_scale, write_number
from tl_toolkit.reports.sections import Chart, DataTable, Part, Section, Text

__all__ = ["Tried", "build_curve", "build_trials", "measure_importance"]

_LEAST_TRIALS = 8  # for an importance
_MOST_LISTED = 50
_MOST_FIELDS = 12
_LONGEST = 14  # letters of a value beside an axis
_AXIS, _TOP, _HEIGHT = 110, 44, 220
_TREES, _SHUFFLES = 100, 10


@dataclass(frozen=True)
class Tried:
    """The trials of a search that have a score.

    Attributes:
        trials: number, values (by field), score, state, seconds and elapsed of each.
        log_fields: Fields that were sampled by their logarithms.
        objective: Name of the score.
        is_max: Whether higher is better.
        best: Number of the winner.
        failed: How many trials have no score.
    """

    trials: Sequence[Mapping[str, Any]]
    log_fields: Sequence[str]
    objective: str
    is_max: bool
    best: int
    failed: int = 0

    @property
    def fields(self) -> list[str]:
        """The searched fields."""
        return list(self.trials[0]["values"]) if self.trials else []

    @property
    def scores(self) -> list[float]:
        """The score of each trial."""
        return [float(trial["score"]) for trial in self.trials]

    def ranked(self) -> list[Mapping[str, Any]]:
        """Returns the trials, the best first."""
        sign = -1 if self.is_max else 1
        return sorted(self.trials, key=lambda trial: sign * float(trial["score"]))


@dataclass(frozen=True)
class _Axis:
    """A field: where each trial lies, and what the ticks are called."""

    field: str
    places: Sequence[float]
    labels: Mapping[float, str]
    is_log: bool


def build_trials(tried: Tried) -> list[Section]:
    """Returns the sections of trials and of fields.

    Args:
        tried: The trials.
    """
    if not tried.trials:
        return [Section("trials", "Trials", [Text("No trial has a score.", is_warning=True)])]
    axes = [_read_axis(tried, field) for field in tried.fields]
    return [_list_trials(tried, axes), _compare_fields(tried, axes)]


def build_curve(points: Sequence[Mapping[str, Any]], title: str, split: str) -> Section:
    """Returns the section of a learning curve.

    Args:
        points: method, images, score and interval (two numbers, or None), the fewest images first.
        title: Of the score.
        split: The images that it is measured on.
    """
    methods = list(dict.fromkeys(point["method"] for point in points))
    series = []
    for method in methods:
        own = [point for point in points if point["method"] == method]
        xs, ys = ([float(point[name]) for point in own] for name in ("images", "score"))
        series.append(Series(method, xs, ys))
    numbers = {float(point["images"]): f"{point['images']:,}" for point in points}
    ends = ", ".join(f"{each.label} {each.ys[0]:.3f} to {each.ys[-1]:.3f}" for each in series)
    chart = plot_series(
        "curve", f"{title} by the number of training images", f"From the fewest to all: {ends}.",
        series, x_title="training images", y_title=title, x_labels=numbers, is_log=(True, False),
    )  # fmt: skip
    rows = [
        [
            point["images"],
            point["method"],
            float(point["score"]),
            *(point["interval"] or (None,) * 2),
        ]
        for point in points
    ]
    columns = ["images", "method", title, "from", "to"]
    table = DataTable(f"{title} on {split} images, with 95 % confidence", columns, rows)
    return Section("curve", "Learning curve", [chart, table])


def measure_importance(columns: Sequence[Sequence[float]], scores: Sequence[float]) -> list[float]:
    """Returns how much each field decides the score: the permutation importance (Breiman, 2001).

    Args:
        columns: The places of the trials on the axis of each field.
        scores: Their scores.

    Returns:
        For each field, by how much R2 of a random forest falls when the field's values are shuffled
        among the trials; at least 0, and above 1 where the forest is worse than the mean then.
    """
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    features, target = np.array(columns, float).T, np.array(scores, float)
    forest = RandomForestRegressor(_TREES, random_state=0).fit(features, target)
    found = permutation_importance(forest, features, target, n_repeats=_SHUFFLES, random_state=0)
    return [max(0.0, float(value)) for value in found.importances_mean]


def _read_axis(tried: Tried, field: str) -> _Axis:
    values = [trial["values"][field] for trial in tried.trials]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        is_log = field in tried.log_fields and min(values) > 0
        return _Axis(field, [float(value) for value in values], {}, is_log)
    named = [describe_value(value) for value in values]
    labels = list(dict.fromkeys(sorted(named)))
    return _Axis(
        field,
        [float(labels.index(name)) for name in named],
        {float(place): _shorten(name) for place, name in enumerate(labels)},
        False,
    )


def _list_trials(tried: Tried, axes: Sequence[_Axis]) -> Section:
    ranked = tried.ranked()
    rows = [
        [trial["number"], float(trial["score"]), trial["state"],
         *(describe_value(trial["values"][field]) for field in tried.fields),
         describe_seconds(trial["seconds"])]
        for trial in ranked[:_MOST_LISTED]
    ]  # fmt: skip
    more = f", of which {_MOST_LISTED} are listed" if len(ranked) > len(rows) else ""
    caption = f"The trials, the best first: {len(ranked)}{more}"
    columns = ["trial", tried.objective, "state", *map(_last, tried.fields), "time"]
    parts: list[Part] = [_plot_parallel(tried, axes), _plot_time(tried)]
    if tried.failed:
        parts.append(Text(f"{tried.failed} trials failed and have no score.", is_warning=True))
    return Section("trials", "Trials", [*parts, DataTable(caption, columns, rows)])


def _plot_time(tried: Tried) -> Chart:
    done = sorted(tried.trials, key=lambda trial: float(trial["elapsed"]))
    choose = max if tried.is_max else min
    times = [float(trial["elapsed"]) for trial in done]
    scores = [float(trial["score"]) for trial in done]
    complete = [place for place, trial in enumerate(done) if trial["state"] != "paused"]
    so_far = [choose(scores[other] for other in complete if other <= place) for place in complete]
    series = [Series("a trial", times, scores, "dots")]
    if complete:
        xs = [times[place] for place in complete for _ in range(2)][1:]
        ys = [value for value in so_far for _ in range(2)][:-1]
        series.append(Series("best so far", xs, ys))
    return plot_series(
        "trials-time", f"{tried.objective} by time",
        f"The best of {len(done)} trials, {choose(scores):.4f}, was there after "
        f"{describe_seconds(times[scores.index(choose(scores))])}.",
        series, x_title="seconds since the search began", y_title=tried.objective,
    )  # fmt: skip


def _compare_fields(tried: Tried, axes: Sequence[_Axis]) -> Section:
    parts: list[Part] = []
    numbers: dict[str, float] = {}
    if len(tried.trials) < _LEAST_TRIALS:
        parts.append(Text(f"Fewer than {_LEAST_TRIALS} trials tell no importance of the fields."))
    elif len(set(tried.scores)) > 1:
        columns = [[math.log(x) if axis.is_log else x for x in axis.places] for axis in axes]
        found = measure_importance(columns, tried.scores)
        numbers = dict(zip(tried.fields, found, strict=True))
        bars = sorted(((name, value, f"{value:.2f}") for name, value in numbers.items()),
                      key=lambda bar: -bar[1])  # fmt: skip
        parts.append(plot_bars(
            "importance", "Importance of each field",
            f"Most of the score depends on {bars[0][0]}. Each bar is by how much R2 of a random "
            "forest falls when the field's values are shuffled among the trials.", bars,
        ))  # fmt: skip
    parts += [
        _plot_field(tried, axis, number) for number, axis in enumerate(axes[:_MOST_FIELDS], 1)
    ]
    return Section("fields", "Fields", parts, {"importance": numbers} if numbers else {})


def _plot_field(tried: Tried, axis: _Axis, number: int) -> Chart:
    is_best = [trial["number"] == tried.best for trial in tried.trials]
    place = is_best.index(True)
    scores = [math.nan if best else score
              for score, best in zip(tried.scores, is_best, strict=True)]  # fmt: skip
    limits = (-0.5, len(axis.labels) - 0.5) if axis.labels else None
    return plot_series(
        f"field-{number}", f"{tried.objective} by {axis.field}",
        f"A dot for each of {len(tried.trials)} trials; the best one has "
        f"{describe_value(tried.trials[place]['values'][axis.field])}.",
        [
            Series("a trial", axis.places, scores, "dots"),
            Series("the best", [axis.places[place]], [tried.scores[place]], "dots"),
        ],
        x_title=axis.field, y_title=tried.objective, x_limits=limits,
        x_labels=axis.labels or None, is_log=(axis.is_log, False),
    )  # fmt: skip


def _plot_parallel(tried: Tried, axes: Sequence[_Axis]) -> Chart:
    """Plots a line for each trial through its values to its score, the better the stronger."""
    score = _Axis(tried.objective, tried.scores, {}, False)
    columns = [_place_axis(axis, 50 + _AXIS * index) for index, axis in enumerate([*axes, score])]
    ranks = {trial["number"]: rank for rank, trial in enumerate(tried.ranked())}
    lines = []
    for index, trial in enumerate(tried.trials):
        rank = ranks[trial["number"]]
        path = "L".join(f"{column['x']} {column['places'][index]:g}" for column in columns)
        lines.append((rank, f"M{path}", round(0.8 - 0.65 * rank / max(len(ranks) - 1, 1), 2)))
    body = render_marks(
        "parallel.svg.jinja", columns=columns, top=_TOP, bottom=_TOP + _HEIGHT,
        lines=sorted(lines, reverse=True),
    )  # fmt: skip
    best = next(trial for trial in tried.trials if trial["number"] == tried.best)
    values = ", ".join(f"{name} {describe_value(value)}" for name, value in best["values"].items())
    return Chart(
        "parallel", "Trials as lines through their values",
        f"{len(tried.trials)} trials; the strongest line is the best, with {values} and "
        f"{tried.objective} {best['score']:.4f}.",
        100 + _AXIS * len(axes), _TOP + _HEIGHT + 20, body,
    )  # fmt: skip


def _place_axis(axis: _Axis, x: float) -> dict[str, Any]:
    limits = (-0.5, len(axis.labels) - 0.5) if axis.labels else None
    scale: Scale = fit_scale(
        axis.places, (_TOP + _HEIGHT, _TOP), is_log=axis.is_log, limits=limits, most_ticks=4
    )
    names = axis.labels or {tick: write_number(tick) for tick in scale.ticks}
    return {
        "x": x,
        "title": _shorten(_last(axis.field)),
        "ticks": [(scale.place(value), name) for value, name in names.items()],
        "places": [scale.place(value) for value in axis.places],
    }


def _last(field: str) -> str:
    """Returns the last part of a field's name, which tells most."""
    return field.rpartition(".")[2]


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
