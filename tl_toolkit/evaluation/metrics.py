"""Thresholds that metrics are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from tl_toolkit.errors import Problem, RecipeError, ThresholdError, closest

__all__ = ["check_names", "check_thresholds"]


def check_names(
    thresholds: Mapping[str, float],
    metrics: Mapping[str, Any],
    *,
    ungraded: AbstractSet[str] = frozenset(),
) -> None:
    """Refuses thresholds of metrics that a run does not have, before anything is measured.

    Args:
        thresholds: Limits by name.
        metrics: What the run's metrics.json holds.
        ungraded: Numbers that no threshold can be set on.

    Raises:
        RecipeError: A metric is unknown; all of them are named.
    """
    for split in ("validation", "test"):
        if split in metrics:
            _refuse_unknown(thresholds, _list_graded(metrics[split], ungraded))
            return


def check_thresholds(
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, float],
    *,
    lower_is_better: AbstractSet[str],
    ungraded: AbstractSet[str] = frozenset(),
) -> None:
    """Compares metrics with the least values that the user accepts.

    Losses and errors, where lower is better, are compared with the greatest values.

    Args:
        metrics: Metrics of a split.
        thresholds: Limits by name.
        lower_is_better: Metrics where lower values are better.
        ungraded: As in `check_names`.

    Raises:
        RecipeError: There is no metric of that name.
        ThresholdError: A metric is worse than its threshold.
    """
    _refuse_unknown(thresholds, _list_graded(metrics, ungraded))
    problems = []
    for name, limit in thresholds.items():
        value, at_most = metrics[name], name in lower_is_better
        # A metric that is not a number compares with nothing, and is never good enough.
        if not (value <= limit if at_most else value >= limit):
            problems.append(
                Problem(
                    where=f"--fail-under {name}={limit:g}",
                    what=f"{name} = {value:.4f}",
                    expected=f"Asked for {'at most' if at_most else 'at least'} {limit:g}.",
                )
            )
    if problems:
        raise ThresholdError(problems)


def _list_graded(metrics: Mapping[str, Any], ungraded: AbstractSet[str]) -> list[str]:
    """Returns the metrics that a threshold can be set on."""
    return [
        name for name, value in metrics.items() if isinstance(value, float) and name not in ungraded
    ]


def _refuse_unknown(thresholds: Mapping[str, float], known: Sequence[str]) -> None:
    problems = [
        Problem(
            where=f"--fail-under {name}={limit:g}",
            what=f"{name!r} is no metric of the run; {closest(name, known)}".rstrip("; "),
            expected=f"One of {', '.join(known)}.",
        )
        for name, limit in thresholds.items()
        if name not in known
    ]
    if problems:
        raise RecipeError(problems)
