"""How well probabilities rank images of a class above others: ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_toolkit.reports.charts import COLORS, Series, plot_series
from tl_toolkit.reports.sections import Chart, Part, Text

__all__ = ["measure_ranking", "plot_ranking"]

_MOST_CELLS = 5_000_000  # of probabilities: sorting more takes longer than a short training
_MOST_POINTS = 160


def measure_ranking(
    classes: Sequence[str], members: np.ndarray, probabilities: np.ndarray
) -> dict[str, dict[str, float]]:
    """Returns the area under both curves of each class, by scikit-learn.

    Args:
        classes: Names of the columns.
        members: int (n, classes), 1 where an image is of a class.
        probabilities: float (n, classes).

    Returns:
        roc_auc and average_precision of each class that some images are of, and some are not.
    """
    from sklearn import metrics

    return {
        name: {
            "roc_auc": float(metrics.roc_auc_score(truth, values)),
            "average_precision": float(metrics.average_precision_score(truth, values)),
        }
        for name, truth, values in zip(classes, members.T, probabilities.T, strict=True)
        if 0 < truth.sum() < len(truth)
    }


def plot_ranking(
    classes: Sequence[str], members: np.ndarray, probabilities: np.ndarray
) -> tuple[list[Part], dict[str, Any]]:
    """Plots ROC and precision-recall curves: of all classes, or of those with the least area.

    Args:
        classes: As in `measure_ranking`.
        members: As in `measure_ranking`.
        probabilities: As in `measure_ranking`.

    Returns:
        The charts, and the areas by class.
    """
    if probabilities.size > _MOST_CELLS:
        return [Text("Curves are left out: there are too many probabilities.")], {}
    areas = measure_ranking(classes, members, probabilities)
    if not areas:
        return [], {}
    shown = sorted(areas, key=lambda name: areas[name]["average_precision"])[:COLORS]
    places = [place for place, name in enumerate(classes) if name in shown]
    which = f"the {len(places)} classes of {len(areas)} with the least area"
    if len(shown) == len(areas):
        which = "each class" if len(areas) > 1 else classes[places[0]]
    columns = [(classes[place], members[:, place], probabilities[:, place]) for place in places]
    return [_plot_roc(columns, areas, which), _plot_precision(columns, areas, which)], areas


def _plot_roc(columns: Sequence[Any], areas: dict[str, Any], which: str) -> Chart:
    from sklearn import metrics

    series = [Series("chance", [0, 1], [0, 1], "reference")]
    for name, truth, values in columns:
        false, true, _ = metrics.roc_curve(truth, values)
        label = f"{name} {areas[name]['roc_auc']:.3f}"
        series.append(Series(label, *_thin(false, true)))
    return plot_series(
        "roc", f"ROC curves of {which}",
        f"True over false positives, with the area below: {_list(series)}.",
        [*series[1:], series[0]],
        x_title="false positive rate", y_title="true positive rate", x_limits=(0, 1),
        y_limits=(0, 1),
    )  # fmt: skip


def _plot_precision(columns: Sequence[Any], areas: dict[str, Any], which: str) -> Chart:
    from sklearn import metrics

    series = []
    for name, truth, values in columns:
        precision, recall, _ = metrics.precision_recall_curve(truth, values)
        label = f"{name} {areas[name]['average_precision']:.3f}"
        series.append(Series(label, *_thin(recall, precision)))
    return plot_series(
        "precision-recall", f"Precision and recall of {which}",
        f"Precision over recall, with the average precision: {_list(series)}.",
        series, x_title="recall", y_title="precision", x_limits=(0, 1), y_limits=(0, 1),
    )  # fmt: skip


def _list(series: Sequence[Series]) -> str:
    return ", ".join(each.label for each in series if each.form == "line")


def _thin(xs: np.ndarray, ys: np.ndarray) -> tuple[list[float], list[float]]:
    """Returns at most so many points as a chart can show."""
    places = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), _MOST_POINTS)).astype(int))
    return xs[places].tolist(), ys[places].tolist()
