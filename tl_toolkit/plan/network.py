"""Compares a recipe's network with the catalog: model, head, phases and weight file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import exists  # unlike Path.exists it raises for no path
from pathlib import Path

from tl_toolkit.catalog.lookup import (
    ARCHITECTURES,
    Architecture,
    check_arguments,
    check_image_size,
    describe_unpublished,
    find_weight_file,
    resolve_unfreeze,
)
from tl_toolkit.catalog.published import describe_absent, is_offline
from tl_toolkit.catalog.records import WeightFile
from tl_toolkit.catalog.taps import check_taps
from tl_toolkit.catalog.weight_files import cache_path, recall_weights
from tl_toolkit.catalog.weight_matching import describe_misfit, suggest_base
from tl_toolkit.errors import DataError, Problem, RecipeError, WeightsError, nearest
from tl_toolkit.plan.bases import find_base
from tl_toolkit.plan.check_phases import check_rates, check_stages
from tl_toolkit.plan.findings import Finding, Findings
from tl_toolkit.plan.start import check_start
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.plan.teacher import check_teacher
from tl_toolkit.plan.used_runs import open_run
from tl_toolkit.recipe.remote import is_address, name_object
from tl_toolkit.recipe.schema import (
    Head,
    OwnBase,
    Phase,
    Recipe,
    UnfreezeFrom,
    UnfreezeGradual,
    UnfreezeOnly,
)
from tl_toolkit.recipe.tree import FieldPath
from tl_toolkit.sources.addresses import find_weights_file
from tl_toolkit.sources.listing import name_some

__all__ = ["Network", "check_network", "resolve_head", "resolve_network"]

_WORDS = ("imagenet", "random")


@dataclass(frozen=True)
class Network:
    """What model and phases of a recipe are by the catalog.

    Attributes:
        architecture: The record of the base.
        units: For each phase, or each part of one that unfreezes block by block, the units of the
            base that train, input to output.
        weights_file: Where the weight file is, or will be; None for random weights, or the base's
            own.
        published: The record of the weight file, if it is one that can be fetched.
    """

    architecture: Architecture
    units: Mapping[str, tuple[str, ...]]
    weights_file: Path | None
    published: WeightFile | None = None


def resolve_head(recipe: Recipe) -> Recipe:
    """Returns a recipe with its paper's head in place of the word, where there is one.

    Args:
        recipe: The recipe; `check_network` checks whether its base has a paper's head.
    """
    base = recipe.model.base
    record = None if isinstance(base, OwnBase) else ARCHITECTURES.get(base)
    if isinstance(recipe.model.head, Head) or record is None or record.head is None:
        return recipe
    head = Head.model_validate(dict(record.head))
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"head": head})})


def resolve_network(recipe: Recipe, *, again: bool = True) -> Network:
    """Returns what model and phases of a recipe are, without checking that they fit it.

    Args:
        recipe: The recipe.
        again: Whether an object store is asked for weights that this process has from it already.

    Raises:
        RecipeError: There is no such architecture, block or unit.
        WeightsError: The base's file is missing, or no weights were ever published.
    """
    architecture = find_base(recipe)
    units = {
        stage.name: resolve_unfreeze(architecture, stage.unfreeze)
        for phase in recipe.phases
        for stage in phase.stages
    }
    return _find_weights(recipe, architecture, units, again=again)


def check_network(recipe: Recipe, classes: Sequence[str]) -> tuple[list[Finding], Network | None]:
    """Compares model, head and phases with the record of the base.

    Args:
        recipe: The recipe.
        classes: In the order of the outputs; none if they are not known.

    Returns:
        What is wrong; and the network, None where that keeps it from being found.
    """
    planning = plan_task(resolve_head(recipe))
    try:
        architecture = find_base(recipe)
    except (RecipeError, WeightsError) as error:
        return [Finding(("model", "base"), error.problems[0], type(error))], None
    findings = [Finding(*entry) for entry in planning.check(architecture, classes)]
    arguments = check_arguments(architecture, recipe.model.arguments)
    for name, problem in arguments.items():
        findings.append(Finding(("model", "arguments", name), problem))
    if problem_of_size := check_image_size(architecture, recipe.data.image_size):
        findings.append(Finding(("data", "image_size"), problem_of_size))
    findings += _check_head(recipe, architecture)
    wrong_start = check_start(resolve_head(recipe), classes)
    findings += wrong_start
    findings += check_teacher(recipe, classes)
    readable = planning.readable_units(architecture)
    findings += check_stages(recipe)
    units: dict[str, tuple[str, ...]] = {}
    for index, phase in enumerate(recipe.phases):
        try:
            widest = resolve_unfreeze(architecture, phase.unfreeze)
            parts = {
                stage.name: resolve_unfreeze(architecture, stage.unfreeze) for stage in phase.stages
            }
        except RecipeError as error:
            findings += _refuse_unfreeze(phase, index, error)
        else:
            units_of_phase = next(iter(parts.values()))
            findings += _check_unfreeze(phase, index, units_of_phase, readable)
            findings += _check_feature_changes(phase, index, units_of_phase, architecture)
            findings += check_rates(phase, index, architecture, widest)
            units |= parts
    if arguments:
        return findings, None
    try:
        network = _find_weights(recipe, architecture, units, again=True)
    except DataError:  # of the run to start from
        return findings, None
    except WeightsError as error:
        return [*findings, _place_weights(recipe, error.problems[0])], None
    if not wrong_start:  # which says more than the weights of another network
        findings += _check_weights(recipe, network)
    is_whole = all(stage.name in units for phase in recipe.phases for stage in phase.stages)
    return findings, network if is_whole else None


def _check_head(recipe: Recipe, architecture: Architecture) -> Findings:
    head = recipe.model.head
    if not isinstance(head, Head):
        if architecture.head is None:
            expected = "expected a head of your own: its paper has no classifier."
            what = f"model.head = 'paper' with {architecture.name}"
            yield Finding(("model", "head"), Problem("", what, expected))
        yield from _check_resolved_head(recipe, architecture)
    elif head.pooling is not None and head.taps is None and architecture.output == "vector":
        expected = (
            f"{architecture.name} ends in a vector: expected no pooling, got {head.pooling!r}."
        )
        what = f"model.head.pooling = {head.pooling!r}"
        problem = Problem("", what, expected, "~model.head.pooling")
        yield Finding(("model", "head", "pooling"), problem)
    if isinstance(head, Head) and isinstance(head.taps, tuple):
        for index, problem in check_taps(architecture, head.taps, "model.head.taps"):
            yield Finding(("model", "head", "taps", index), problem)


def _check_resolved_head(recipe: Recipe, architecture: Architecture) -> Findings:
    """Compares the head of a paper with the task, as the schema does with a written head."""
    resolved = resolve_head(recipe).model
    for path, expected, _ in recipe.task.find_recipe_conflicts({"model": resolved}):
        if path[:2] == ("model", "head"):
            what = f"model.head = 'paper' with {architecture.name}: {path[-1]}"
            hint = "model.head={hidden: [{units: 256}]}"
            yield Finding(("model", "head"), Problem("", what, f"{expected}.", hint))


def _refuse_unfreeze(phase: Phase, index: int, error: RecipeError) -> Findings:
    for problem in error.problems:
        path: FieldPath = ("phases", index, "unfreeze", *_field_of(phase))
        yield Finding(path, replace(problem, what=f"phases[{index}].{problem.what}"))


def _check_unfreeze(
    phase: Phase, index: int, units: Sequence[str], readable: Sequence[str] | None
) -> Findings:
    if units and readable is not None and not set(units) & set(readable):
        what = f"phases[{index}].unfreeze: {name_some(units)} would train"
        expected = f"expected {readable[-1]} or a unit before it: the head reads none behind it."
        hint = f"unfreeze: {{from: {readable[-1]}}}"
        path: FieldPath = ("phases", index, "unfreeze", *_field_of(phase))
        yield Finding(path, Problem("", what, expected, hint))


def _field_of(phase: Phase) -> tuple[str, ...]:
    """Returns the field that names what trains, where `unfreeze` is a section."""
    fields = {UnfreezeFrom: "from", UnfreezeOnly: "only", UnfreezeGradual: "gradual"}
    return tuple(name for kind, name in fields.items() if isinstance(phase.unfreeze, kind))


def _check_feature_changes(
    phase: Phase, index: int, units: Sequence[str], architecture: Architecture
) -> Findings:
    """Refuses changes of features in a phase where all units train, so that there are none."""
    first = architecture.blocks[0].units[0].name
    if first not in units:
        return
    instead = {"feature_noise": "augment.brightness", "feature_mixup": "augment.mixup"}
    for name, field in instead.items():
        if value := getattr(phase, name):
            what = f"phases[{index}].{name} = {value!r} changes features of the frozen part"
            expected = f"expected a phase that freezes {first}; {field} changes the images."
            hint = f"~phases.{phase.name}.{name}"
            yield Finding(("phases", index, name), Problem("", what, expected, hint))


def _find_weights(
    recipe: Recipe,
    architecture: Architecture,
    units: Mapping[str, tuple[str, ...]],
    *,
    again: bool,
) -> Network:
    """Returns the network with its weight file.

    Raises:
        DataError: The run to start from lies on an object store, and cannot be read.
        WeightsError: No file was ever published for the base and its arguments; or the address of
            the file cannot be read.
    """
    model = recipe.model
    if model.start is not None:
        return Network(architecture, units, open_run("model.start", model.start).model)
    if model.weights is None or model.weights == "random":
        return Network(architecture, units, None)
    if model.weights != "imagenet":
        return Network(architecture, units, find_weights_file(model.weights, again=again))
    file = find_weight_file(architecture, model.arguments, recipe.data.image_size)
    if file is None:
        raise WeightsError(describe_unpublished(architecture, model.arguments))
    return Network(architecture, units, cache_path(file), file)


def _place_weights(recipe: Recipe, problem: Problem) -> Finding:
    """Returns why there are no weights: none were published, or an address cannot be read."""
    field = ("model", "weights")
    if not is_address(str(recipe.model.weights)):
        return Finding(field, problem)
    return Finding(field, replace(problem, what=f"{problem.where} {problem.what}"), WeightsError)


def _check_weights(recipe: Recipe, network: Network) -> Findings:
    path = network.weights_file
    if recipe.model.own_file is not None:
        return  # loading compares them: the catalog knows no shapes of a user's own base
    if path is None:
        return
    if network.published is not None and not exists(path):
        if is_offline():
            problem = describe_absent(network.published, path)
            what = f"model.weights: {problem.where!r} {problem.what}"
            yield Finding(("model", "weights"), replace(problem, what=what), WeightsError)
        return
    what, expected, hint = "", "", ""
    try:
        info = recall_weights(path)
    except WeightsError as error:
        problem = error.problems[0]
        what, expected, hint = problem.what, problem.expected, problem.hint
        if not exists(path) and (word := nearest(path.name, _WORDS)):
            hint = f"weights: {word}"
    else:
        misfit = describe_misfit(
            network.architecture,
            recipe.model.arguments,
            info,
            image_size=recipe.data.image_size,
            channels=recipe.data.channels,
        )
        what = misfit or ""
        if misfit:
            hint = suggest_base(network.architecture, recipe.model.arguments, info)
    if what:
        field = "weights" if recipe.model.start is None else "start"
        name = name_object(str(path))
        problem = Problem("", f"model.{field}: {name!r} {what}", expected, hint)
        yield Finding(("model", field), problem, WeightsError)
