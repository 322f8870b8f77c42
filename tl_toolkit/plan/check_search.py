"""Checks the recipes that the values of a search make, with all other fields unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.check_phases import check_accumulation
from tl_toolkit.plan.findings import Finding, Findings
from tl_toolkit.plan.network import check_network
from tl_toolkit.plan.space import (
    count_points,
    plan_brackets,
    probe_space,
    resolve_space,
    trial_recipe,
)
from tl_toolkit.plan.tasks import Survey
from tl_toolkit.recipe.schema import Recipe

__all__ = ["check_search"]


def check_search(recipe: Recipe, survey: Survey, known: list[Finding]) -> list[Finding]:
    """Checks the recipes that each value of the space makes, with all other fields unchanged.

    Args:
        recipe: A recipe with a search.
        survey: What the data holds, as far as it is known.
        known: Problems of the recipe itself, which are not reported again.
    """
    reported = {finding.problem for finding in known}
    if any(finding.path[:2] == ("model", "base") for finding in known):
        return []  # the default space consists of its blocks
    findings = list(_check_hyperband(recipe))
    for field, value in probe_space(resolve_space(recipe)):
        for problem in _find_problems(recipe, survey, {field: value}):
            if problem not in reported:
                what = f"with {field} = {value!r}, {problem.what}"
                findings.append(Finding(("search", "space", field), replace(problem, what=what)))
    return findings


def _check_hyperband(recipe: Recipe) -> Findings:
    """Refuses a hyperband in which no trial would end."""
    search, epochs = recipe.search, recipe.phases[-1].epochs
    if search is None or search.algorithm != "hyperband":
        return
    if epochs < search.factor:
        yield _refuse_search(
            "algorithm",
            "search.algorithm = 'hyperband'",
            f"expected a last phase of at least {search.factor} epochs (search.factor) to pause "
            f"in, got {epochs}.",
            "algorithm: random",
        )
        return
    if len(recipe.phases[-1].stages) > 1:
        yield _refuse_search(
            "algorithm",
            "search.algorithm = 'hyperband'",
            "expected a last phase that unfreezes at once: hyperband pauses inside one phase.",
            "algorithm: random",
        )
        return
    first = plan_brackets(epochs, search.factor)[0]
    needed, (most, _) = sum(trials for trials, _ in first), first[0]
    if search.trials is not None and search.trials < needed:
        yield _refuse_search(
            "trials",
            f"search.trials = {search.trials}",
            f"expected at least {needed}: hyperband begins with {_name_rungs(first)}, and with "
            "fewer none would come to its end.",
            "a greater search.factor, fewer epochs, or algorithm: random",
        )
    points = count_points(resolve_space(recipe))
    if points is not None and points < most:
        yield _refuse_search(
            "space",
            f"search.space: {points} combinations",
            f"expected at least {most}: hyperband begins with {_name_rungs(first)}.",
            "algorithm: grid",
        )


def _name_rungs(rungs: Sequence[tuple[int, int]]) -> str:
    (trials, epochs), *rest = rungs
    later = ", ".join(f"{count} up to {end}" for count, end in rest)
    return f"{trials} trials of {epochs} epochs, then {later}"


def _refuse_search(field: str, what: str, expected: str, hint: str) -> Finding:
    return Finding(("search", field), Problem("", what, expected, hint))


def _find_problems(recipe: Recipe, survey: Survey, values: Mapping[str, Any]) -> list[Problem]:
    try:
        trial = trial_recipe(recipe, values)
    except RecipeError as error:
        return list(error.problems)
    epochs = trial.phases[-1].epochs
    halves = recipe.search is not None and recipe.search.algorithm == "hyperband"
    if halves and len(trial.phases[-1].stages) > 1:
        expected = "expected no part for each block: hyperband pauses inside one phase."
        return [Problem("", "the last phase is gradual", expected, "algorithm: random")]
    if halves and epochs != recipe.phases[-1].epochs:
        expected = "expected another field: hyperband itself decides how long the last phase is."
        return [Problem("", f"the last phase has {epochs} epochs", expected, "algorithm: random")]
    findings = [*check_network(trial, survey.classes)[0], *check_accumulation(trial, survey.counts)]
    return [finding.problem for finding in findings]
