"""The report's sections of edges: precision and recall over the thresholds, overlays."""

from __future__ import annotations

import numpy as np

from tl_toolkit.reports.charts import Series, plot_series
from tl_toolkit.reports.facts import RunFacts
from tl_toolkit.reports.sections import DataTable, Part, Section
from tl_toolkit.tasks.dense.report import MapReport, build_images, tabulate_data

__all__ = ["build_sections", "tabulate_data"]


def build_sections(facts: RunFacts) -> list[Section]:
    """Returns the sections of thresholds and of images.

    Args:
        facts: Of the run.
    """
    if not facts.measured.get("images"):
        return []
    shown = MapReport(
        lambda target: {"probability": target.clip(0, 1)},
        lambda maps, target: np.abs(maps["probability"] - target) * (target >= 0),
    )
    return [_build_thresholds(facts), build_images(facts, shown)]


def _build_thresholds(facts: RunFacts) -> Section:
    measured, section = facts.measured, facts.section
    names = [name for name, value in measured.items() if isinstance(value, float)]
    rows = [[section.title_of(name), measured[name]] for name in names]
    parts: list[Part] = [DataTable(f"The {facts.split} images", ["metric", "value"], rows)]
    methods = {"this run": measured} | {
        title: measured[name] for name, title in section.baselines.items() if name in measured
    }
    curves = {title: each["curve"] for title, each in methods.items() if "curve" in each}
    if curves:
        areas = [f"{title} {methods[title]['average_precision']:.3f}" for title in curves]
        series = [
            Series(title, each["recall"], each["precision"]) for title, each in curves.items()
        ]
        best = Series("ODS", [measured["ods_recall"]], [measured["ods_precision"]], "dots")
        parts.append(plot_series(
            "precision-recall", "Precision and recall of edges",
            f"Over all thresholds, with the average precision: {', '.join(areas)}. The dot is the "
            f"best threshold for all images, {measured['ods_threshold']:.2f}.",
            [*series, best], x_title="recall", y_title="precision", x_limits=(0, 1),
            y_limits=(0, 1),
        ))  # fmt: skip
    return Section("thresholds", "Edges", parts)
