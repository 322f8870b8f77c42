"""The report's sections of segmentation: IoU of each class, confusions, overlays."""

from __future__ import annotations

import numpy as np

from tl_toolkit.reports.facts import RunFacts
from tl_toolkit.reports.matrices import plot_bars, plot_matrix
from tl_toolkit.reports.sections import DataTable, Section, Text
from tl_toolkit.tasks.calibration import plot_reliability
from tl_toolkit.tasks.dense.report import MapReport, build_images, tabulate_data
from tl_toolkit.tasks.dense.spec import IGNORE

__all__ = ["build_sections", "tabulate_data"]


def build_sections(facts: RunFacts) -> list[Section]:
    """Returns the sections of classes and of images.

    Args:
        facts: Of the run.
    """
    if not facts.measured.get("images"):
        return []
    shown = MapReport(
        lambda target: {"mask": target},
        lambda maps, target: (
            (maps["mask"] != target) & (target != IGNORE) & (maps["mask"] != IGNORE)
        ),
    )
    return [_build_classes(facts), *_build_calibration(facts), build_images(facts, shown)]


def _build_calibration(facts: RunFacts) -> list[Section]:
    """Returns the section of calibration; none where it was not asked for."""
    found = facts.measured.get("calibration")
    if not found:
        return []
    text = f"Probabilities are those of logits divided by {facts.measured['temperature']:.2f}, "
    text += "which pixels of the validation images ask for."
    charts = plot_reliability(found, "pixels", "pixels that are right")
    return [Section("calibration", "Calibration", [Text(text), *charts], {"split": facts.split})]


def _build_classes(facts: RunFacts) -> Section:
    measured = facts.measured
    keys = ["iou", "precision", "recall", "pixels"]
    rows = [[name, *map(values.get, keys)] for name, values in measured["per_class"].items()]
    caption = f"Each class on the pixels of the {facts.split} images"
    table = DataTable(caption, ["class", "IoU", "precision", "recall", "pixels"], rows)
    present = [(name, values["iou"]) for name, values in measured["per_class"].items()
               if values["iou"] is not None]  # fmt: skip
    worst = min(present, key=lambda pair: pair[1])
    bars = plot_bars(
        "iou", "IoU of each class", f"The lowest is {worst[1]:.3f}, of {worst[0]}.",
        [(name, iou, f"{iou:.3f}") for name, iou in present], most=1.0,
    )  # fmt: skip
    counts = np.array(measured["confusion"], np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 100
    accuracy = measured["pixel_accuracy"]
    matrix = plot_matrix(
        "confusion", "Confusion matrix, in percent of each class's pixels",
        f"{accuracy:.1%} of all pixels lie on the diagonal, where label and prediction agree.",
        facts.classes, shares.round().astype(int).tolist(),
    )  # fmt: skip
    return Section("classes", "Classes", [table, bars, matrix])
