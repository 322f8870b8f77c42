"""The report's sections of several labels: a table with thresholds, curves, images."""

from __future__ import annotations

import numpy as np

from tl_toolkit.reports.facts import MOST_SHOWN, RunFacts
from tl_toolkit.reports.matrices import plot_bars
from tl_toolkit.reports.sections import DataTable, Part, Section
from tl_toolkit.tasks.calibration import measure_calibration, plot_reliability
from tl_toolkit.tasks.predictions import name_columns, read_numbers
from tl_toolkit.tasks.ranking import plot_ranking

__all__ = ["build_sections", "tabulate_data"]


def tabulate_data(facts: RunFacts) -> list[DataTable]:
    """Returns the number of images with each label in each split.

    Args:
        facts: Of the run.
    """
    splits = dict.fromkeys(entry.split for entry in facts.manifest.examples if entry.usable)
    counts = {split: dict.fromkeys(facts.classes, 0) for split in splits}
    for split in splits:
        for entry in facts.manifest.of(split):
            for name in filter(None, entry.targets[0].split(facts.section.separator)):
                counts[split][name] += 1
    rows = [[name, *(counts[split][name] for split in splits)] for name in facts.classes]
    rows.append(["images", *(len(facts.manifest.of(split)) for split in splits)])
    return [DataTable("Usable images with each label", ["label", *splits], rows)]


def build_sections(facts: RunFacts) -> list[Section]:
    """Returns the sections of labels, calibration and images.

    Args:
        facts: Of the run.
    """
    if not facts.split:
        return []
    named = [set(cell.split(facts.section.separator)) for cell in facts.columns["labels"]]
    members = np.array([[name in names for name in facts.classes] for names in named], int)
    probabilities = read_numbers(facts.columns, name_columns("probability", facts.classes))
    calibration = measure_calibration(members.ravel() == 1, probabilities.ravel())
    charts = plot_reliability(calibration, "decisions", "images that have the label")
    numbers = {"split": facts.split, **calibration}
    return [
        _build_labels(facts, members, probabilities),
        Section("calibration", "Calibration", charts, numbers),
        _build_images(facts, members, probabilities),
    ]


def _build_labels(facts: RunFacts, members: np.ndarray, probabilities: np.ndarray) -> Section:
    curves, areas = plot_ranking(facts.classes, members, probabilities)
    keys = ["average_precision", "precision", "recall", "f1", "threshold", "images"]
    rows = [
        [name, areas.get(name, {}).get("roc_auc"), *(values[key] for key in keys)]
        for name, values in facts.measured["per_class"].items()
    ]
    columns = ["label", "ROC AUC", "AP", "precision", "recall", "F1", "threshold", "support"]
    table = DataTable(f"Each label on the {facts.split} images", columns, rows)
    bars = [(str(row[0]), row[5], f"{row[5]:.3f}") for row in rows]
    worst = min(rows, key=lambda row: row[5])
    chart = plot_bars(
        "f1", "F1 of each label", f"The lowest is {worst[5]:.3f}, of {worst[0]}.", bars, most=1.0
    )
    return Section("labels", "Labels", [table, chart, *curves], {"ranking": areas})


def _build_images(facts: RunFacts, members: np.ndarray, probabilities: np.ndarray) -> Section:
    """Returns images by the least probable of the decisions that would be right."""
    right = np.where(members == 1, probabilities, 1 - probabilities)
    worst = right.min(axis=1)
    order = np.argsort(worst, kind="stable")
    chosen = {
        "The surest errors": order[worst[order] < 0.5][:MOST_SHOWN],
        "The surest hits": order[::-1][worst[order[::-1]] >= 0.5][:MOST_SHOWN],
        "The least certain": np.argsort(
            np.abs(probabilities - 0.5).min(axis=1), kind="stable"
        )[:MOST_SHOWN],
    }  # fmt: skip

    def describe(image: int) -> list[str]:
        decision = int(right[image].argmin())
        label, predicted = (facts.columns[name][image] for name in ("labels", "predicted"))
        return [
            f"labels {label or 'none'}",
            f"predicted {predicted or 'none'}",
            f"{facts.classes[decision]} {probabilities[image, decision]:.0%}",
        ]

    parts: list[Part] = [facts.describe_heat("the label of the last line")]
    parts += [
        facts.build_gallery(
            title, images, [describe(image) for image in images], right[images].argmin(axis=1)
        )
        for title, images in chosen.items()
        if len(images)
    ]
    return Section("images", "Images", parts)
