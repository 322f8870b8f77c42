"""The report's sections of normals: angles, overlays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tl_toolkit.reports.facts import RunFacts
from tl_toolkit.reports.matrices import plot_bars
from tl_toolkit.reports.sections import DataTable, Section
from tl_toolkit.tasks.dense.report import MapReport, build_images, tabulate_data

__all__ = ["build_sections", "tabulate_data"]

_WORST = 90.0  # degrees that are shown as the largest error


def build_sections(facts: RunFacts) -> list[Section]:
    """Returns the sections of angles and of images.

    Args:
        facts: Of the run.
    """
    measured, section = facts.measured, facts.section
    if not measured.get("images"):
        return []
    names = [name for name, value in measured.items() if isinstance(value, float)]
    rows = [[section.title_of(name), measured[name]] for name in names]
    table = DataTable(f"Angles on the {facts.split} images", ["metric", "value"], rows)
    within = [(section.title_of(name), measured[name], f"{measured[name]:.1%}")
              for name in names if name.startswith("within")]  # fmt: skip
    chart = plot_bars(
        "within", "Share of pixels within an angle of the target, in degrees",
        "; ".join(f"{name}: {text}" for name, _, text in within), within, most=1.0,
    )  # fmt: skip
    angles = Section("angles", "Angles", [table, chart])
    shown = MapReport(lambda target: {"normal": target}, _measure_errors)
    return [angles, build_images(facts, shown)]


def _measure_errors(maps: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    from tl_toolkit.tasks.normals.task import measure_angles

    angles = measure_angles(maps["normal"], target)
    return np.where(target.any(axis=-1), angles / _WORST, 0.0).clip(0, 1)
