"""The report's sections of numbers: predicted against true, residuals, images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tl_toolkit.reports.charts import Series, plot_series
from tl_toolkit.reports.facts import MOST_SHOWN, RunFacts
from tl_toolkit.reports.sections import Chart, DataTable, Part, Section, Text
from tl_toolkit.tasks.classification.metrics import find_interval
from tl_toolkit.tasks.predictions import name_columns, read_numbers

__all__ = ["build_sections", "tabulate_data"]

_MOST_DOTS = 2_000
_MOST_CHARTS = 12  # columns with charts of their own
_BINS = 20


def tabulate_data(facts: RunFacts) -> list[DataTable]:
    """Returns mean, deviation and range of each column in each split.

    Args:
        facts: Of the run.
    """
    rows = []
    for split in dict.fromkeys(entry.split for entry in facts.manifest.examples if entry.usable):
        targets = np.array([entry.targets for entry in facts.manifest.of(split)], np.float64)
        for name, values in zip(facts.classes, targets.T, strict=True):
            figures = (values.mean(), values.std(), values.min(), values.max())
            rows.append([split, name, len(values), *map(float, figures)])
    columns = ["split", "column", "images", "mean", "deviation", "least", "greatest"]
    return [DataTable("Targets of the usable images", columns, rows)]


def build_sections(facts: RunFacts) -> list[Section]:
    """Returns the sections of columns and of images.

    Args:
        facts: Of the run.
    """
    if not facts.split:
        return []
    targets = read_numbers(facts.columns, facts.classes).astype(np.float64)
    predicted = read_numbers(facts.columns, name_columns("predicted", facts.classes))
    residuals = predicted - targets
    rows = [
        [name, values["mae"], values["rmse"], values["r2"], float(bias), float(spread)]
        for (name, values), bias, spread in zip(
            facts.measured["per_column"].items(), residuals.mean(axis=0), residuals.std(axis=0),
            strict=True,
        )
    ]  # fmt: skip
    columns = ["column", "MAE", "RMSE", "R2", "mean residual", "deviation"]
    table = DataTable(f"Each column on the {facts.split} images", columns, rows)
    charts = [
        chart
        for place, name in enumerate(facts.classes[:_MOST_CHARTS])
        for chart in _plot_column(place, name, targets[:, place], predicted[:, place])
    ]
    return [
        Section("columns", "Predicted against true", [table, *charts]),
        *_build_intervals(facts),
        _build_images(facts, targets, predicted),
    ]


def _build_intervals(facts: RunFacts) -> list[Section]:
    """Returns the section of intervals; none where they were not asked for."""
    found, images = facts.measured["per_column"], len(facts.columns["path"])
    if "coverage" not in facts.measured:
        return []
    rows = [
        [name, "without end" if each["half_width"] is None else each["half_width"],
         each["coverage"], *find_interval(round(each["coverage"] * images), images)]
        for name, each in found.items()
    ]  # fmt: skip
    asked = facts.section.coverage
    text = f"An interval is to hold the true number with a probability of {asked:g}. It was found "
    text += f"on validation images; the share is that of the {facts.split} images."
    columns = ["column", "half width", "share that holds it", "from", "to"]
    table = DataTable(f"Intervals on the {facts.split} images", columns, rows)
    return [Section("intervals", "Intervals", [Text(text), table])]


def _plot_column(
    place: int, name: str, targets: np.ndarray, predicted: np.ndarray
) -> Iterator[Chart]:
    shown = np.linspace(0, len(targets) - 1, min(len(targets), _MOST_DOTS)).astype(int)
    ends = [float(targets.min()), float(targets.max())]
    residuals = predicted - targets
    bias, spread = residuals.mean(), residuals.std()
    yield plot_series(
        f"predicted-{place + 1}", f"{name}: predicted against true",
        f"A dot for each image; on the dashed line the two agree. Residuals have a mean of "
        f"{bias:.4g} and a deviation of {spread:.4g}.",
        [
            Series("images", targets[shown].tolist(), predicted[shown].tolist(), "dots"),
            Series("equal", ends, ends, "reference"),
        ],
        x_title=f"true {name}", y_title=f"predicted {name}",
    )  # fmt: skip
    yield plot_series(
        f"residuals-{place + 1}", f"{name}: residuals",
        f"Predicted minus true {name} over the true value: from {residuals.min():.4g} to "
        f"{residuals.max():.4g}.",
        [
            Series("images", targets[shown].tolist(), residuals[shown].tolist(), "dots"),
            Series("none", ends, [0.0, 0.0], "reference"),
        ],
        x_title=f"true {name}", y_title="predicted − true",
    )  # fmt: skip
    counts, edges = np.histogram(residuals, bins=min(_BINS, max(3, len(residuals) // 4)))
    yield plot_series(
        f"residual-counts-{place + 1}", f"{name}: how residuals are spread",
        f"The number of images by predicted minus true {name}; most lie in "
        f"{edges[counts.argmax()]:.4g} to {edges[counts.argmax() + 1]:.4g}.",
        [Series("images", np.repeat(edges, 2).tolist(), [0, *np.repeat(counts, 2).tolist(), 0])],
        x_title="predicted − true", y_title="images",
    )  # fmt: skip


def _build_images(facts: RunFacts, targets: np.ndarray, predicted: np.ndarray) -> Section:
    """Returns images by their residuals, in standard deviations of each column."""
    deviations = np.maximum(targets.std(axis=0), 1e-12)
    by_column = np.abs(predicted - targets) / deviations
    errors = by_column.mean(axis=1)
    order = np.argsort(errors, kind="stable")

    def describe(image: int) -> list[str]:
        return [
            f"{name} {targets[image, place]:.4g}, predicted {predicted[image, place]:.4g}"
            for place, name in enumerate(facts.classes[:4])
        ]

    chosen = {
        "The largest errors": order[::-1][:MOST_SHOWN],
        "The smallest errors": order[:MOST_SHOWN],
    }
    parts: list[Part] = [
        facts.describe_heat("a greater value of the column with the largest error")
    ]
    parts += [
        facts.build_gallery(
            title, images, [describe(image) for image in images], by_column[images].argmax(axis=1)
        )
        for title, images in chosen.items()
    ]
    return Section("images", "Images", parts)
