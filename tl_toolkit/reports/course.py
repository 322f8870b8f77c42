"""How training went: curves, rates, and where training and validation parted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tl_toolkit.reports.charts import Series, plot_series
from tl_toolkit.reports.matrices import plot_bars
from tl_toolkit.reports.sections import Chart, DataTable, Part, Section, Text

__all__ = ["build_course", "find_parting"]

Row = Mapping[str, Any]

_NAN = float("nan")


def build_course(
    history: Sequence[Row],
    *,
    best: Row,
    score: str,
    title: str,
    rates: Mapping[str, Mapping[str, Any]],
) -> Section:
    """Returns the section of phases and epochs.

    Args:
        history: As `Run.history`.
        best: The kept epoch.
        score: Name of the task's score.
        title: How it is written.
        rates: What rates.json holds, for phases whose parts have rates of their own.
    """
    mixtures = [row for row in history if row.get("mixture") is not None]
    rows = list(_number([row for row in history if row.get("mixture") is None]))
    starts = {row["at"] - row["epoch"]: row["phase"] for row in reversed(rows)}
    kept = next(
        (row["at"] for row in rows
         if (row["phase"], row["epoch"]) == (best["phase"], best["epoch"])), None,
    )  # fmt: skip
    marks = dict(sorted(starts.items())) if len(starts) > 1 else {}
    if kept is not None:
        marks[kept] = f"kept, then {marks[kept]}" if kept in marks else "kept"
    parts: list[Part] = [_tabulate(rows, best, score, title)]
    if len(rows) > 1:
        parts += [
            _plot(rows, "loss", "loss", "loss", marks),
            _plot(rows, score, title, score, marks),
            *_plot_rates(rows, rates, marks),
        ]
    if mixtures:
        parts.append(_plot_mixtures(mixtures, score, title))
    parts.append(_describe_parting(rows))
    numbers = {"parting": parting} if (parting := find_parting(history)) else {}
    return Section("course", "Training", parts, numbers)


def find_parting(history: Sequence[Row]) -> dict[str, Any] | None:
    """Returns where the validation loss was lowest while the training loss went on falling.

    Args:
        history: As `Run.history`.

    Returns:
        phase and epoch of the lowest validation loss, and of the last epoch the losses of both, if
        the validation loss rose from there while the training loss fell; None if not.
    """
    rows = [row for row in _number(history) if row.get("loss") is not None]
    rows = [row for row in rows if row.get("val_loss") is not None]
    if len(rows) < 3:
        return None
    lowest, last = min(rows, key=lambda row: row["val_loss"]), rows[-1]
    if last["val_loss"] <= lowest["val_loss"] or last["loss"] >= lowest["loss"]:
        return None
    return {
        "phase": lowest["phase"],
        "epoch": lowest["epoch"],
        "loss": [lowest["loss"], last["loss"]],
        "val_loss": [lowest["val_loss"], last["val_loss"]],
    }


def _number(history: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yields the rows with `at`, their place among the epochs of all phases.

    The state before a phase is the end of the one before.
    """
    phase, offset, at = None, 0, 0
    for row in history:
        if row["phase"] != phase:
            phase, offset = row["phase"], at
        at = offset + int(row["epoch"])
        yield {**row, "at": at}


def _tabulate(rows: Sequence[Row], best: Row, score: str, title: str) -> DataTable:
    """Returns a row for each phase: its last epoch."""
    phases = dict.fromkeys(row["phase"] for row in rows)
    last = [[row for row in rows if row["phase"] == phase][-1] for phase in phases]
    columns = ["loss", score, "val_loss", f"val_{score}"]
    return DataTable(
        f"The last epoch of each phase; the kept weights are of epoch {best['epoch']} of "
        f"{best['phase']}",
        ["phase", "epochs", "loss", title, "validation loss", f"validation {title}"],
        [[row["phase"], row["epoch"], *(row.get(name) for name in columns)] for row in last],
    )


def _plot(
    rows: Sequence[Row], name: str, title: str, column: str, marks: Mapping[float, str]
) -> Chart:
    at = [row["at"] for row in rows]
    series = [
        Series("training", at, [_value(row.get(column)) for row in rows]),
        Series("validation", at, [_value(row.get(f"val_{column}")) for row in rows]),
    ]
    ends = [
        f"{each.label} {known[0]:.4g} to {known[-1]:.4g}"
        for each in series
        if (known := [value for value in each.ys if value == value])
    ]
    description = f"{title} over {at[-1]} epochs: {'; '.join(ends)}."
    return plot_series(
        f"course-{name.replace('_', '-')}", title[:1].upper() + title[1:], description, series,
        x_title="epoch", y_title=title, x_limits=(0, max(at[-1], 1)), marks=marks,
    )  # fmt: skip


def _plot_mixtures(mixtures: Sequence[Row], score: str, title: str) -> Chart:
    """Plots the scores of weights between those from before tuning and the tuned ones."""
    values = [_value(row[f"val_{score}"]) for row in mixtures]
    shares = [float(row["mixture"]) for row in mixtures]
    best = max(zip(values, shares, strict=True))
    return plot_series(
        "course-mixtures", "Mixtures of the weights from before and after tuning",
        f"The best validation {title}, {best[0]:.4g}, has a share of {best[1]:.2g} of the tuned "
        "weights.",
        [Series("validation", shares, values)],
        x_title="share of the tuned weights", y_title=f"validation {title}", x_limits=(0, 1),
    )  # fmt: skip


def _plot_rates(
    rows: Sequence[Row], rates: Mapping[str, Mapping[str, Any]], marks: Mapping[float, str]
) -> Iterator[Chart]:
    stepped = [row for row in rows if row["learning_rate"]]
    if len(stepped) > 1:
        values = [row["learning_rate"] for row in stepped]
        yield plot_series(
            "course-learning-rate", "Learning rate",
            f"Learning rate over the epochs, from {values[0]:.3g} to {values[-1]:.3g}.",
            [Series("learning rate", [row["at"] for row in stepped], values)],
            x_title="epoch", y_title="learning rate", x_limits=(0, rows[-1]["at"]),
            is_log=(False, True), marks=marks,
        )  # fmt: skip
    for phase, written in rates.items():
        if len(written.get("epochs", ())) < 2:
            yield _plot_set_rates(phase, written["rates"])
        else:
            offset = min(row["at"] - row["epoch"] for row in rows if row["phase"] == phase)
            yield _plot_moving_rates(phase, written["epochs"], offset)


def _plot_set_rates(phase: str, parts: Sequence[Row]) -> Chart:
    rates = [part["rate"] for part in parts]
    return plot_bars(
        f"course-rates-{phase}", f"Rate of each part in {phase}",
        f"From {min(rates):.3g} to {max(rates):.3g} over {len(rates)} parts.",
        [(part["name"], part["rate"], f"{part['rate']:.3g}") for part in parts],
    )  # fmt: skip


def _plot_moving_rates(phase: str, epochs: Sequence[Row], offset: int) -> Chart:
    by_epoch = [{part["name"]: part["rate"] for part in epoch["rates"]} for epoch in epochs]
    names = list(dict.fromkeys(name for epoch in by_epoch for name in epoch))
    places = [offset + epoch["epoch"] for epoch in epochs]
    series = [Series(name, places, [epoch.get(name, _NAN) for epoch in by_epoch]) for name in names]
    return plot_series(
        f"course-rates-{phase}", f"Rate of each part in {phase}",
        f"The learning rate of each of {len(names)} parts in phase {phase}.",
        series, x_title="epoch", y_title="learning rate", is_log=(False, True),
    )  # fmt: skip


def _describe_parting(rows: Sequence[Row]) -> Text:
    parting = find_parting(rows)
    if parting is None:
        measured = [row for row in rows if row.get("loss") is not None]
        if len([row for row in measured if row.get("val_loss") is not None]) < 3:
            return Text("Too few epochs to tell whether training and validation part.")
        return Text(
            "No sign of overfitting: the validation loss did not rise while the training loss fell."
        )
    (loss, last_loss), (val_loss, last_val_loss) = parting["loss"], parting["val_loss"]
    return Text(
        f"Overfitting after epoch {parting['epoch']} of {parting['phase']}: from there the "
        f"validation loss rose from {val_loss:.4f} to {last_val_loss:.4f} while the training loss "
        f"fell from {loss:.4f} to {last_loss:.4f}. The gap between them grew from "
        f"{val_loss - loss:.4f} to {last_val_loss - last_loss:.4f}.",
        is_warning=True,
    )


def _value(value: Any) -> float:
    return _NAN if value is None else float(value)
