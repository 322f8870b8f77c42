"""Checks the recipes that the values of a search make, with all other fields unchanged."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tl_toolkit.errors import Problem, RecipeError, nearest
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
from tl_toolkit.plan.training import describe_first
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.search_schema import suggest_space

__all__ = ["add_phase", "check_search"]


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
    findings = list(_check_phases(recipe))
    if findings:
        return findings
    findings = [*_check_package(recipe), *_check_hyperband(recipe), *_check_soup(recipe)]
    for field, value in probe_space(resolve_space(recipe)):
        for problem in _find_problems(recipe, survey, {field: value}):
            if problem not in reported:
                told = _tell_of_space(recipe, problem, field, value)
                findings.append(Finding(("search", "space", field), told))
    return list(dict.fromkeys(findings))


def _tell_of_space(recipe: Recipe, problem: Problem, field: str, value: Any) -> Problem:
    """Returns a problem of a trial as one of the space: an unknown field is one for all values."""
    if problem.what.startswith("phases has no entry"):
        names = [phase.name for phase in recipe.phases]
        part, dot, rest = field.partition(".")[2].partition(".")
        what = f"search.space: {field} is no field"
        expected = f"expected a phase of the recipe: {', '.join(names)}."
        hint = f"phases.{nearest(part, names) or names[-1]}{dot}{rest} in place of {field}"
        return Problem("", what, expected, hint)
    if not problem.what.endswith(": unknown key"):
        return replace(problem, what=f"with {field} = {value!r}, {problem.what}")
    near = problem.hint.partition("=")[0]
    hint = f"{near} in place of {field}" if near else ""
    return replace(problem, what=f"search.space: {field} is no field", hint=hint)


def _check_phases(recipe: Recipe) -> Findings:
    """Refuses what needs a phase where there is none, as beside a head that is solved alone."""
    search = recipe.search
    if search is None or recipe.phases:
        return
    if search.space is None:
        what = "search.space: the recipe has no phase, whose unfreezing the default space searches"
        hint = suggest_space(recipe.task.has_classes)
        yield _refuse_search("space", what, "expected a space of its own.", hint)
    elif search.algorithm == "hyperband":
        what = "search.algorithm = 'hyperband': the recipe has no phase"
        yield _refuse_search("algorithm", what, "expected one to pause in.", "algorithm: random")
    for field in search.space or ():
        section, name, *_ = (*field.split("."), "")
        if section == "phases" and name:
            what = f"search.space: {field} is no field, as the recipe has no phase"
            hint = add_phase(recipe, "tune" if name.isdecimal() else name)
            yield _refuse_search("space", what, "expected one that trains after the head.", hint)
            return


def add_phase(recipe: Recipe, name: str) -> str:
    """Returns what to type so that a phase follows a head that is solved alone, without a preset.

    Args:
        recipe: A recipe without phases, in which a preset has chosen its values.
        name: Of the phase.
    """
    solver = recipe.model.classifier.solver
    return f"model.head.solver={solver} 'phases.0={{name: {name}, epochs: 8}}' preset=null"


def _check_package(recipe: Recipe) -> Findings:
    """Refuses an algorithm whose package is not installed; imports nothing."""
    search = recipe.search
    if search is None or search.algorithm != "tpe" or importlib.util.find_spec("optuna"):
        return
    yield _refuse_search(
        "algorithm",
        "search.algorithm = 'tpe'",
        "expected the package optuna, which chooses and is not installed.",
        "pip install 'tl-toolkit[optuna]', or algorithm: bayesian",
    )


def _check_hyperband(recipe: Recipe) -> Findings:
    """Refuses a hyperband in which no trial would end."""
    search = recipe.search
    if search is None or search.algorithm != "hyperband":
        return
    epochs = recipe.phases[-1].epochs
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


def _check_soup(recipe: Recipe) -> Findings:
    """Refuses a mean of trials that do not share their first phase, or the images' features."""
    if recipe.search is None or not recipe.search.soup:
        return
    if recipe.data.folds is not None:
        what = f"search.soup with data.folds = {recipe.data.folds}"
        expected = "expected no folds: a trial would have a model for each."
        yield _refuse_search("soup", what, expected, "~data.folds, or ~search.soup")
    if len(recipe.phases) + (recipe.model.classifier.solver is not None) < 2:
        what = "search.soup: the recipe has one phase"
        expected = "expected a first phase that all trials share, and a later one."
        hint = "a first phase without unfreeze, or model.head.solver: ridge"
        hint = hint if recipe.phases else add_phase(recipe, "tune")
        yield _refuse_search("soup", what, expected, hint)
        return
    for field, dimension in resolve_space(recipe).items():
        reason = _refuse_average(recipe, field, dimension.probes)
        if reason:
            hint = "~search.soup, or a space over later phases, as phases.NAME.learning_rate"
            what = f"search.soup with {field} in search.space"
            yield _refuse_search("soup", what, reason, hint)


def _refuse_average(recipe: Recipe, field: str, values: Sequence[Any]) -> str:
    """Returns why trials with these values of a field cannot be averaged; "" if they can."""
    section = field.partition(".")[0]
    if section in ("features", "precision") or (section == "data" and field != "data.batch_size"):
        return "Trials would see other features of the images, on which the mean is compared."
    try:
        trials = [trial_recipe(recipe, {field: value}) for value in values]
    except RecipeError:  # reported with its value
        return ""
    if len({describe_first(trial) for trial in trials}) == 1:
        return ""
    if field.startswith("model.head.") and field.endswith("dropout"):
        more = " A solved head has no dropout: model.head.solver: ridge."
    else:
        more = ""
    return f"Trials would not share their first phase, from where a mean has a meaning.{more}"


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
    halves = recipe.search is not None and recipe.search.algorithm == "hyperband"
    epochs = trial.phases[-1].epochs if halves else 0
    if halves and len(trial.phases[-1].stages) > 1:
        expected = "expected no part for each block: hyperband pauses inside one phase."
        return [Problem("", "the last phase is gradual", expected, "algorithm: random")]
    if halves and epochs != recipe.phases[-1].epochs:
        expected = "expected another field: hyperband itself decides how long the last phase is."
        return [Problem("", f"the last phase has {epochs} epochs", expected, "algorithm: random")]
    findings = [*check_network(trial, survey.classes)[0], *check_accumulation(trial, survey.counts)]
    return [finding.problem for finding in findings]
