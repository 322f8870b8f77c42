"""Thresholds that metrics are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from tl_toolkit.errors import Problem, RecipeError, ThresholdError, closest

__all__ = ["check_limits", "check_names", "check_thresholds"]


def check_names(
    thresholds: Mapping[str, float],
    metrics: Mapping[str, Any],
    *,
    ungraded: AbstractSet[str] = frozenset(),
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Refuses thresholds of metrics that a run does not have, before anything is measured.

    Args:
        thresholds: Limits by name.
        metrics: What the run's metrics.json holds.
        ungraded: Numbers that no threshold can be set on.
        aliases: Other names of metrics, as of `TaskSection.list_aliases`.

    Raises:
        RecipeError: A metric is unknown; all of them are named.
    """
    for split in ("validation", "test"):
        if split in metrics:
            _resolve(thresholds, _list_graded(metrics[split], ungraded), aliases or {})
            return


def check_limits(
    thresholds: Mapping[str, float],
    *,
    lower_is_better: AbstractSet[str],
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Refuses thresholds that no model reaches: a score, where higher is better, is at most 1.

    Args:
        thresholds: Limits by name.
        lower_is_better: As in `check_thresholds`: losses and errors have no such bound.
        aliases: As in `check_names`.

    Raises:
        RecipeError: A limit is above 1, as a percentage is.
    """
    problems = [
        Problem(
            where=f"--fail-under {typed}={limit:g}",
            what="no model reaches it",
            expected=f"{typed} is at most 1.",
            hint=f"--fail-under {typed}={limit / 100 if 2 < limit <= 100 else 0.9:g}",
        )
        for typed, limit in thresholds.items()
        if limit > 1 and not _find_meant(typed, sorted(lower_is_better), aliases or {})
    ]
    if problems:
        raise RecipeError(problems)


def check_thresholds(
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, float],
    *,
    lower_is_better: AbstractSet[str],
    ungraded: AbstractSet[str] = frozenset(),
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Compares metrics with the least values that the user accepts.

    Losses and errors, where lower is better, are compared with the greatest values.

    Args:
        metrics: Metrics of a split.
        thresholds: Limits by name.
        lower_is_better: Metrics where lower values are better.
        ungraded: As in `check_names`.
        aliases: As in `check_names`.

    Raises:
        RecipeError: There is no metric of that name.
        ThresholdError: A metric is worse than its threshold.
    """
    names = _resolve(thresholds, _list_graded(metrics, ungraded), aliases or {})
    problems = []
    for typed, limit in thresholds.items():
        name = names[typed]
        value, at_most = metrics[name], name in lower_is_better
        # A metric that is not a number compares with nothing, and is never good enough.
        if not (value <= limit if at_most else value >= limit):
            problems.append(
                Problem(
                    where=f"--fail-under {typed}={limit:g}",
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


def _resolve(
    thresholds: Mapping[str, float], known: Sequence[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    """Returns the metric that each threshold means."""
    meant = {typed: _find_meant(typed, known, aliases) for typed in thresholds}
    problems = [
        Problem(
            where=f"--fail-under {typed}={thresholds[typed]:g}",
            what=f"{typed!r} is no metric of the run; {_suggest(typed, names, known)}".rstrip("; "),
            expected=f"One of {', '.join(known)}.",
            hint=f"--fail-under {names[0]}={thresholds[typed]:g}" if names else "",
        )
        for typed, names in meant.items()
        if len(names) != 1
    ]
    if problems:
        raise RecipeError(problems)
    return {typed: names[0] for typed, names in meant.items()}


def _suggest(typed: str, names: Sequence[str], known: Sequence[str]) -> str:
    return f"it may be {' or '.join(names)}" if names else closest(typed, known)


def _find_meant(typed: str, known: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Returns the metrics that a name may mean: its own, an alias, or the end of one's name."""
    if typed in known:
        return [typed]
    short = _simplify(typed)
    names = {_simplify(alias): name for alias, name in aliases.items() if name in known}
    names |= {_simplify(name): name for name in known}
    return [names[short]] if short in names else [
        name for name in known if name.endswith(f"_{short}")
    ]  # fmt: skip


def _simplify(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
