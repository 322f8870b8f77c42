"""Compares the names, ranges and files of a recipe with the catalog and the file system.

The checks need no TensorFlow and open no image: `tltool validate` is instant, and a recipe that
cannot succeed is not trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.published import is_offline
from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import DataError, Problem, RecipeError, WeightsError
from tl_toolkit.plan.bases import find_base
from tl_toolkit.plan.check_phases import check_accumulation
from tl_toolkit.plan.check_search import check_search
from tl_toolkit.plan.findings import Finding, Findings, as_error
from tl_toolkit.plan.network import Network, check_network, resolve_head, resolve_network
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.preset import estimate_splits, resolve_preset
from tl_toolkit.plan.scratch import build_scratch
from tl_toolkit.plan.space import trial_recipe
from tl_toolkit.plan.start import find_start, read_start_head, resolve_runs
from tl_toolkit.plan.tasks import Survey, plan_task
from tl_toolkit.recipe.export_formats import find_missing
from tl_toolkit.recipe.load import LoadedRecipe, build_baseline, find_baseline_problems
from tl_toolkit.recipe.remote import find_address
from tl_toolkit.recipe.schema import Data, Recipe
from tl_toolkit.recipe.tree import FieldPath
from tl_toolkit.sources.leaks import Leak, describe_leaks, find_leaks, refuse_leaks
from tl_toolkit.sources.listing import name_some, suffix_of
from tl_toolkit.sources.near_leaks import find_known_near
from tl_toolkit.sources.remote import list_remote
from tl_toolkit.sources.stores import reach_folder

__all__ = ["check_recipe", "plan_base", "plan_baseline", "plan_trial"]

_OF_BANDS = (".npy", ".tif", ".tiff")


def check_recipe(loaded: LoadedRecipe) -> Plan:
    """Checks everything that can be known before training, and returns what a recipe will do.

    Reads names, sizes and headers of files; opens no image, and no network connection but to an
    object store that the recipe names.

    Args:
        loaded: The recipe and the places of its fields.

    Raises:
        RecipeError: A problem concerns the recipe alone; all problems are named.
        DataError: All problems are of the data, or of the data and the weights.
        WeightsError: All problems are of the weights.
    """
    recipe = resolve_runs(loaded.recipe)
    data = recipe.data
    list_remote({**data.sources, "model.base.model": recipe.model.own_file})
    _reach_store(recipe)
    survey = plan_task(resolve_head(recipe)).survey()
    recipe, reasons = _resolve_preset(recipe, survey)
    findings = [*_check_data(recipe.data, survey), *_check_folds(recipe, survey)]
    wrong, network = check_network(recipe, survey.classes)
    findings += wrong
    findings += check_accumulation(recipe, survey.counts)
    findings += _check_baseline(recipe, survey, findings)
    if recipe.search is not None:
        findings += check_search(recipe, survey, findings)
    if recipe.export:
        findings += (
            Finding(("export", "formats"), problem)
            for problem in find_missing(recipe.export.formats)
        )
    if findings or network is None:
        raise as_error(findings, loaded.locate)
    near = _find_near(recipe, survey)
    return replace(_make_plan(recipe, survey, network), reasons=reasons, near_leaks=near)


def _reach_store(recipe: Recipe) -> None:
    """Lists a feature store on an object store, so that a run does not end where it needs it.

    Who may not write there may still read what others have computed, so that nothing is written.

    Raises:
        DataError: It cannot be listed, or what reads it is not installed.
    """
    location = recipe.features.location
    if recipe.features.store == "never" or location is None or is_offline():
        return
    if address := find_address(location):
        reach_folder(f"features.location: {address}", address)


def _resolve_preset(recipe: Recipe, survey: Survey) -> tuple[Recipe, tuple[str, ...]]:
    """Returns the recipe with what its preset chooses, as it is where the base is not known."""
    if recipe.preset is None:
        return recipe, ()
    try:
        architecture = find_base(recipe)
    except (RecipeError, WeightsError):  # the check of the network says what is wrong
        return recipe, ()
    counts = {split: sum(images.values()) for split, images in survey.counts.items()}
    images, validation = estimate_splits(counts, recipe.data.validation)
    if recipe.data.folds is not None:
        validation = images  # each of them is left out once
        images -= images // recipe.data.folds
    preset = recipe.preset
    recipe, choices = resolve_preset(
        resolve_head(recipe),
        architecture,
        images,
        validation,
        outputs=len(survey.classes),
        start_head=read_start_head(recipe),
        counts=survey.counts.get("train") or survey.counts.get(None),
    )
    return recipe, tuple(f"{preset}: {choice.describe()}" for choice in choices)


def plan_base(recipe: Recipe, survey: Survey) -> Plan:
    """Returns the plan of a recipe whose base is used as it is; its data is not checked.

    Args:
        recipe: The recipe.
        survey: Its images.

    Raises:
        RecipeError: There is no such base, block or unit.
        WeightsError: The base's file is missing, or no weights were ever published.
    """
    recipe = _resolve_preset(resolve_runs(recipe), survey)[0]
    return _make_plan(recipe, survey, resolve_network(recipe))


def plan_trial(plan: Plan, values: Mapping[str, Any], *, seed: int | None = None) -> Plan:
    """Returns the plan of a trial: fields replaced, the same images.

    Args:
        plan: Plan of the recipe.
        values: Values by dotted field.
        seed: Seed of the trial, if it has its own.

    Raises:
        RecipeError: The values do not make a valid recipe.
        WeightsError: There are no such weights.
    """
    recipe = trial_recipe(plan.recipe, values, seed=seed)
    network = resolve_network(recipe, again=False)  # an outage must not end a search
    return replace(_make_plan(recipe, plan.survey, network), bands=plan.bands)


def plan_baseline(plan: Plan) -> Plan | None:
    """Returns the plan of the recipe that is trained beside this one, on the same images.

    Args:
        plan: Plan of the recipe.
    """
    baseline = _build_baseline(plan.recipe, plan.architecture)
    if baseline is None:
        return None
    return replace(_make_plan(baseline, plan.survey, resolve_network(baseline)), bands=plan.bands)


def _make_plan(recipe: Recipe, survey: Survey, network: Network) -> Plan:
    return Plan(
        recipe=resolve_head(recipe),
        survey=survey,
        architecture=network.architecture,
        units=network.units,
        weights_file=network.weights_file,
        published=network.published,
        start=find_start(recipe, survey.classes),
    )


# ------------------------------------------------------------------------------------------- data


def _check_data(data: Data, survey: Survey) -> Findings:
    for field, problem in survey.problems:
        section = () if "." in field else ("data",)
        yield Finding((*section, *field.split(".")), _name_field(problem), DataError)
    if not survey.problems:
        yield from _check_fractions(data, survey.counts)
        yield from _check_leakage(data, survey)


def _check_leakage(data: Data, survey: Survey) -> Findings:
    """Refuses files with the same bytes in two splits that folders or a table name."""
    if data.leakage == "refuse_near":
        yield from _check_near(data, survey)
    if data.leakage == "allow" or len(survey.counts) < 2:
        return
    files = survey.list_files().files
    kinds = [(find_leaks(files), "")]
    if data.leakage == "refuse_near":
        kinds.append((find_known_near(files), " --exclude near_leak"))
    for leaks, option in kinds:
        if leaks:
            what = f"data.leakage = {data.leakage!r}: {describe_leaks(leaks)}"
            yield Finding(("data", "leakage"), refuse_leaks(what, option), DataError)


def _check_near(data: Data, survey: Survey) -> Findings:
    """Refuses images that are not compared by what they look like, which would pass unseen."""
    if data.channels == RGB:
        return
    what = f"data.leakage = 'refuse_near' with data.channels = {data.channels}"
    if data.channels == 1:
        paths = (file.path for file in survey.list_files().files)
        array = next((path for path in paths if suffix_of(path) in _OF_BANDS), None)
        if array is None:
            return
        what += f", of which {array} is an array or TIFF file"
    expected = "Near duplicates are found among photos; of bands those with equal bytes are."
    problem = Problem("", what, expected, "data.leakage=refuse")
    yield Finding(("data", "leakage"), problem, RecipeError)


def _find_near(recipe: Recipe, survey: Survey) -> tuple[Leak, ...]:
    """Returns the near duplicates in two splits that are known and not refused."""
    if recipe.data.leakage == "refuse_near" or len(survey.counts) < 2:
        return ()
    return tuple(find_known_near(survey.list_files().files))


def _check_folds(recipe: Recipe, survey: Survey) -> Findings:
    """Refuses tables that folds do not go with: rows for validation, a target of their name."""
    folds = recipe.data.folds
    if folds is None:
        return
    if "validation" in survey.counts:
        what = f"data.folds = {folds}: the table has rows of the split validation"
        expected = "Each image that trains validates once."
        hint = "train, test or nothing in the column split, or ~data.folds"
        yield Finding(("data", "folds"), Problem("", what, expected, hint), DataError)
    if "fold" in survey.classes and not recipe.task.has_classes:
        what = f"data.folds = {folds}: a target is called 'fold'"
        expected = "manifest.csv and predictions.csv have a column of that name."
        hint = "another name for the column"
        yield Finding(("data", "folds"), Problem("", what, expected, hint), DataError)


def _check_fractions(data: Data, counts: Mapping[str | None, Mapping[str, int]]) -> Findings:
    """Refuses classes with fewer images than there are splits to sample."""
    values = {"validation": data.validation if data.folds is None else None, "test": data.test}
    sampled = [
        name for name, value in values.items() if isinstance(value, float) and name not in counts
    ]
    needed = len(sampled) + 1 + (data.folds is not None)
    free = counts.get(None if sampled else "train", {})
    few = {name: count for name, count in free.items() if count < needed}
    if few and needed > 1:
        field = next(
            name for name in ("train", "csv", "table", "builtin") if getattr(data, name) is not None
        )
        listed = name_some(f"{name!r} ({count})" for name, count in few.items())
        what = f"data.{field}: too few images of {listed}"
        splits = " and ".join(("train", *sampled) if data.folds is None else ("2 folds", *sampled))
        expected = f"expected at least {needed} of each class, for {splits}."
        yield Finding(("data", field), Problem("", what, expected), DataError)


def _name_field(problem: Problem) -> Problem:
    """Puts the field before the problem, whose `where` the place in the recipe replaces."""
    if problem.what.startswith(problem.where):
        return problem
    return replace(problem, what=f"{problem.where}: {problem.what}")


# --------------------------------------------------------------------------------------- baseline


def _check_baseline(recipe: Recipe, survey: Survey, known: list[Finding]) -> list[Finding]:
    """Checks the recipe that the baseline makes; a problem of both is reported once."""
    try:
        architecture = find_base(recipe)
    except (RecipeError, WeightsError):  # the check of the network says what is wrong
        return []
    if wrong := list(find_baseline_problems(recipe)):
        return [Finding(path, problem) for path, problem in wrong]
    baseline = _build_baseline(recipe, architecture)
    if baseline is None:
        return []
    findings, _ = check_network(baseline, survey.classes)
    findings = [*findings, *check_accumulation(baseline, survey.counts)]
    reported = {finding.problem for finding in known}
    return [
        Finding(
            _find_change(recipe, baseline, finding.path),
            replace(finding.problem, what=f"with its baseline, {finding.problem.what}"),
            finding.kind,
        )
        for finding in findings
        if finding.problem not in reported
    ]


def _build_baseline(recipe: Recipe, architecture: Architecture) -> Recipe | None:
    """Returns the recipe that is trained beside a resolved one, or None."""
    if recipe.baseline == "scratch":
        return build_scratch(recipe, architecture)
    return build_baseline(recipe)


def _find_change(recipe: Recipe, baseline: Recipe, path: FieldPath) -> FieldPath:
    """Returns the baseline's entry that changed the field at `path`, else the baseline."""
    names = [str(part) for part in path]
    if path[0] == "phases" and isinstance(path[1], int):
        names[1] = baseline.phases[path[1]].name
    spellings = (".".join(map(str, path)), ".".join(names))
    for key in recipe.baseline if isinstance(recipe.baseline, Mapping) else ():
        if any(f"{spelling}.".startswith(f"{key}.") for spelling in spellings):
            return ("baseline", key)
    return ("baseline",)
