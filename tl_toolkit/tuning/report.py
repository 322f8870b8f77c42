"""Reports of a search: a table of trials, plots, and TensorBoard's HParams."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tl_toolkit.plan.space import Space
from tl_toolkit.plan.values import describe_value
from tl_toolkit.recipe.search_schema import Dimension
from tl_toolkit.runs.files import drafted, write_atomically
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tuning.journal import Trial

_BEST = "#c44e52"
_TRIAL = "#4c72b0"
_MOST_TICKS = 8
_LONGEST = 24  # characters of a label


@dataclass(frozen=True)
class SweepRow:
    """One depth of a freeze sweep.

    Attributes:
        depth: The value of `unfreeze`.
        trains: The first part that trains.
        parameters: Weights that trained in that phase.
        score: The objective; None if the trial failed.
        seconds: Seconds that the trial took.
    """

    depth: Any
    trains: str
    parameters: int
    score: float | None
    seconds: float


def type_value(value: Any) -> str:
    """Returns a value of a searched field on one line, as it would be typed.

    Args:
        value: Any value of a recipe.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {type_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(type_value, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def write_trials(path: Path, trials: Sequence[Trial], fields: Sequence[str]) -> None:
    """Writes trials.csv: a row for each trial, with a column for each searched field.

    Where trials are paused, `budget` is the number of epochs after which the last phase of a trial
    had to pause, and `continues` the trial that it resumed. `seed` is a trial's own seed.

    Args:
        path: The file.
        trials: The trials in order.
        fields: The searched fields.
    """
    halved = any(trial.budget is not None for trial in trials)
    rungs = ["budget", "continues"] if halved else []
    if any(trial.seed is not None for trial in trials):
        rungs.append("seed")
    bests = [trial.best for trial in trials if trial.best]
    measured = [name for name in bests[0] if name.startswith("val_")] if bests else []
    columns = [
        "number",
        "state",
        *rungs,
        "score",
        *fields,
        "phase",
        "epoch",
        *measured,
        "trains",
        "parameters",
        "seconds",
        "elapsed",
        "weights_sha256",
        "error",
    ]
    rows = []
    for trial in trials:
        values = {field: type_value(trial.values[field]) for field in fields}
        best = {name: value for name, value in (trial.best or {}).items() if name in columns}
        own = {
            name: getattr(trial, name)
            for name in (
                "number",
                "state",
                *rungs,
                "score",
                "trains",
                "parameters",
                "seconds",
                "elapsed",
                "weights_sha256",
            )
        }
        rows.append({**own, **values, **best, "error": trial.error.replace("\n", " ")})
    _write_table(path, columns, rows)


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, buffer.getvalue())


def plot_fields(
    path: Path, trials: Sequence[Trial], space: Space, objective: str, best: Trial
) -> None:
    """Plots the score against each searched field, a panel for each.

    An axis is logarithmic where the field was sampled so, and has no ticks between whole numbers
    where it has no other values.

    Args:
        path: An SVG or PNG file.
        trials: Failed ones are left out, paused ones hollow.
        space: The searched fields and their values.
        objective: Name of the score.
        best: The winner, marked in each panel.
    """
    done = [trial for trial in trials if trial.score is not None]
    columns = min(3, len(space))
    rows = math.ceil(len(space) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (field, dimension) in zip(axes, space.items(), strict=False):
        places, labels = _place([trial.values[field] for trial in done], dimension)
        _scatter(axis, places, done)
        mark = [place for place, trial in zip(places, done, strict=True) if trial == best]
        axis.scatter(mark, [best.score], color=_BEST, marker="*", s=140, zorder=3)
        if labels is not None:
            turn = {"rotation": 20, "ha": "right"} if max(map(len, labels)) > 6 else {}
            axis.set_xticks(range(len(labels)), labels, **turn)
            axis.set_xlim(-0.5, len(labels) - 0.5)
        else:
            _scale(axis, places, dimension)
        axis.set_xlabel(field)
        finish_axis(axis, objective)
    for axis in axes[len(space) :]:
        axis.set_visible(False)
    save_figure(figure, path)


def _scale(axis: Axes, places: Sequence[float], dimension: Dimension) -> None:
    """Scales an axis of numbers as they were sampled, and sets its ticks."""
    low, high = min(places), max(places)
    choices = dimension.choices or ()
    if dimension.sampling == "log" or (choices and low > 0 and high / low > 50):
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
        # Powers of ten alone would leave a short axis with one label, or none.
        subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
        axis.xaxis.set_major_locator(LogLocator(subs=subs))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif choices and len(choices) <= _MOST_TICKS:
        axis.set_xticks(choices)
    elif all(place.is_integer() for place in places):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _scatter(axis: Axes, places: Sequence[float], trials: Sequence[Trial]) -> None:
    """Plots a mark for each trial, hollow where it was paused: its score is of fewer epochs."""
    for paused, label in ((False, "a trial"), (True, "a paused trial")):
        chosen = [
            (place, trial.score)
            for place, trial in zip(places, trials, strict=True)
            if (trial.state == "paused") == paused
        ]
        if chosen:
            face = "none" if paused else _TRIAL
            axis.scatter(*zip(*chosen, strict=True), facecolors=face, edgecolors=_TRIAL, alpha=0.7,
                         label=label)  # fmt: skip


def _place(values: Sequence[Any], dimension: Dimension) -> tuple[list[float], list[str] | None]:
    """Returns places on an axis: numbers as they are, other values in order, with labels."""
    choices = dimension.choices or values
    if all(isinstance(value, float | int) and not isinstance(value, bool) for value in choices):
        return [float(value) for value in values], None
    labels = [_shorten(describe_value(choice)) for choice in choices]
    places = [type_value(choice) for choice in choices]
    return [float(places.index(type_value(value))) for value in values], labels


def _shorten(label: str) -> str:
    """Returns the end of a long label, as of a path, which leaves room for the axes."""
    return label if len(label) <= _LONGEST else f"...{label[3 - _LONGEST :]}"


def plot_time(path: Path, trials: Sequence[Trial], objective: str, *, is_max: bool) -> None:
    """Plots each trial's score at the time when it ended, and the best so far of complete trials.

    Args:
        path: An SVG or PNG file.
        trials: Failed ones are left out, paused ones hollow.
        objective: Name of the score.
        is_max: Whether higher is better.
    """
    ended = sorted(trials, key=lambda trial: trial.elapsed)  # workers end in another order
    done = [trial for trial in ended if trial.score is not None]
    completed = [trial for trial in done if trial.state != "paused"]
    scores = [float(trial.score or 0.0) for trial in completed]
    choose = max if is_max else min
    so_far = [choose(scores[: count + 1]) for count in range(len(scores))]
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    _scatter(axis, [trial.elapsed for trial in done], done)
    axis.step(
        [trial.elapsed for trial in completed],
        so_far,
        where="post",
        color=_BEST,
        label="best so far",
    )
    axis.set_xlabel("seconds since the search began")
    axis.legend()
    finish_axis(axis, objective)
    save_figure(figure, path)


def write_sweep(folder: RunFolder, rows: Sequence[SweepRow], objective: str) -> None:
    """Writes sweep.csv and sweep.svg: score and cost of each depth of unfreezing.

    The curve is that of Yosinski et al. (2014), on the user's own data: it shows how deep the base
    can stay frozen.

    Args:
        folder: The folder of the sweep.
        rows: Rows, one for each depth.
        objective: Name of the score.
    """
    columns = ["depth", "trains", "parameters", objective, "seconds"]
    table = [
        [type_value(row.depth), row.trains, row.parameters, row.score, row.seconds] for row in rows
    ]
    _write_table(
        folder.sweep_table, columns, [dict(zip(columns, row, strict=True)) for row in table]
    )
    done = [row for row in rows if row.score is not None]
    figure = Figure(figsize=(max(6.4, 0.9 * len(done) + 2), 4.2), layout="constrained")
    axis = figure.subplots()
    places = range(len(done))
    axis.plot(places, [float(row.score or 0) for row in done], "o-", color=_TRIAL)
    labels = [f"{describe_value(row.depth)}\n{row.trains}" for row in done]
    axis.set_xticks(places, labels, rotation=20, ha="right")
    axis.set_xlabel("unfrozen, and the first part that trains")
    finish_axis(axis, objective)
    costs = axis.twinx()
    costs.plot(places, [row.seconds for row in done], "s--", color="0.6", markersize=4)
    costs.set_ylabel("seconds", color="0.4")
    costs.set_ylim(bottom=0)
    save_figure(figure, folder.sweep_plot)


def write_hparams(
    folder: Path, trials: Sequence[Trial], fields: Sequence[str], objective: str
) -> None:
    """Writes the data of TensorBoard's HParams tab: one run for each completed trial.

    Args:
        folder: Receives a folder for each trial.
        trials: The trials.
        fields: The searched fields.
        objective: Name of the score.
    """
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    for trial in trials:
        if trial.state != "completed":
            continue
        values = {field: _as_hparam(trial.values[field]) for field in fields}
        writer = tf.summary.create_file_writer(str(folder / f"{trial.number:05d}"))
        with writer.as_default(step=trial.number):
            api.hparams(values, trial_id=str(trial.number))
            tf.summary.scalar(objective, trial.score)
        writer.close()


def _as_hparam(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else type_value(value)


def finish_axis(axis: Axes, objective: str) -> None:
    """Names the axis of scores, and adds a grid.

    Args:
        axis: The axes of a plot.
        objective: What is on the vertical axis.
    """
    axis.set_ylabel(objective)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure beside its place, and renames it into it.

    Args:
        figure: The figure.
        path: The file; its ending decides the format.
    """
    with drafted(path) as draft:
        figure.savefig(draft)
