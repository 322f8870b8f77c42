"""The bases that a recipe may have, by their names, and a plan with each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tl_toolkit.catalog.lookup import complete_arguments, find_architecture, read_variants
from tl_toolkit.catalog.published import list_published, spell_choice
from tl_toolkit.errors import Problem, RecipeError, ToolkitError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import build_recipe, list_values
from tl_toolkit.recipe.model_schema import Head
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.yaml_reader import read_scalar

__all__ = [
    "BaseChoice",
    "choose_bases",
    "count_parameters",
    "find_problems",
    "list_changes",
    "plan_bases",
]

_KEPT = ("version", "name", "seed", "deterministic", "precision", "task", "data", "features")


@dataclass(frozen=True)
class BaseChoice:
    """A base that a recipe may have.

    Attributes:
        name: As mobilenet, or mobilenet:alpha=0.25.
        base: Name of the architecture.
        arguments: Its arguments.
        weights: The recipe's `model.weights` with it.
    """

    name: str
    base: str
    arguments: Mapping[str, Any]
    weights: str


def choose_bases(recipe: Recipe, names: Sequence[str] | None) -> list[BaseChoice]:
    """Returns the bases that a recipe may have: those that are named, or all that are at hand.

    Args:
        recipe: Its own base comes first.
        names: As mobilenet, or mobilenet:alpha=0.25; None for the recipe's own and all whose
            ImageNet weights are on this machine.

    Raises:
        RecipeError: There is no such base, or its arguments cannot be read.
    """
    word = "random" if recipe.model.is_random else "imagenet"
    own = recipe.model
    choices = []
    if own.own_file is None and own.start is None:
        spelled = _spell(str(own.base), own.arguments)
        choices = [BaseChoice(spelled, str(own.base), dict(own.arguments), str(own.weights))]
    if names is not None:
        named = [_read_choice(name, word) for name in dict.fromkeys(names)]
        same = {(each.base, str(each.arguments)): each for each in choices}
        return [same.get((each.base, str(each.arguments)), each) for each in named]
    for entry in list_published() if word == "imagenet" else ():
        if entry.state == "here":
            chosen = spell_choice(entry.architecture, entry.file).split(" --input-size")[0]
            base, *arguments = chosen.split(" ")
            choices.append(_read_choice(":".join([base, ",".join(arguments)]).rstrip(":"), word))
    return list({choice.name: choice for choice in reversed(choices)}.values())[::-1]


def _spell(base: str, arguments: Mapping[str, Any]) -> str:
    listed = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{base}:{listed}" if listed else base


def _read_choice(name: str, weights: str) -> BaseChoice:
    base, _, listed = name.partition(":")
    find_architecture(base)  # raises the error that names the nearest one
    pairs = [pair.partition("=") for pair in listed.split(",") if pair]
    wrong = [key for key, mark, _ in pairs if not mark]
    if wrong:
        expected = "Expected NAME, or NAME:KEY=VALUE,KEY=VALUE."
        raise RecipeError(Problem(name, f"{wrong[0]!r} is no argument", expected))
    arguments = {key: read_scalar(value) for key, _, value in pairs}
    return BaseChoice(name, base, arguments, weights)


def plan_bases(
    recipe: Recipe, choices: Sequence[BaseChoice]
) -> tuple[dict[str, tuple[BaseChoice, Plan]], dict[str, str]]:
    """Returns the plan of each base by its name, and why some cannot be used.

    Args:
        recipe: Its head and phases do not matter: the head of each plan reads all maps, as its task
            reads them.
        choices: The bases.

    Raises:
        ToolkitError: A child of it for what every base would meet, as images that are missing.
    """
    values = {key: value for key, value in list_values(recipe).items() if key in _KEPT}
    if values.get("precision") == "auto":
        values["precision"] = "float32"
    plans: dict[str, tuple[BaseChoice, Plan]] = {}
    skipped: dict[str, str] = {}
    errors: list[ToolkitError] = []
    for choice in choices:
        model: dict[str, Any] = {"base": choice.base, "arguments": dict(choice.arguments)}
        model |= {"weights": choice.weights}
        if recipe.model.edge_filter is not None:
            model["edge_filter"] = recipe.model.edge_filter
        phases = [{"name": "head", "epochs": 0}]
        fields = {**values, "model": model, "phases": phases}
        try:
            plan = check_recipe(build_recipe(plan_task(recipe).begin_ranking(fields)))
        except ToolkitError as error:
            errors.append(error)
            skipped[choice.name] = " ".join(str(error.problems[0]).split())
            continue
        if plan.is_fetched:
            plans[choice.name] = (choice, plan)
        else:
            words = " ".join([choice.base, *(f"{k}={v}" for k, v in choice.arguments.items())])
            skipped[choice.name] = f"its weights are not here. Try: tltool weights pull {words}"
    if len(errors) == len(choices) and len(set(skipped.values())) == 1:
        raise errors[0]  # of images, which every base would meet
    return plans, skipped


def count_parameters(plan: Plan) -> int:
    """Returns the weights of a plan's base, at its default size; builds nothing.

    Args:
        plan: A plan with a base of the catalog.
    """
    record, arguments = plan.architecture, plan.recipe.model.arguments
    changed = {
        name: value
        for name, value in complete_arguments(record, arguments).items()
        if value != record.arguments[name].default
    }
    for values, layers in read_variants(record.name):
        if values == changed:
            return sum(prod(shape) for weights in layers.values() for shape in weights)
    return record.parameters


def list_changes(recipe: Recipe, choice: BaseChoice) -> list[str]:
    """Returns overrides that give a recipe another base, without what names parts of its own.

    Args:
        recipe: The recipe.
        choice: The other base.
    """
    model = recipe.model
    arguments = ", ".join(f"{key}: {json.dumps(value)}" for key, value in choice.arguments.items())
    changes = [f"model.base={choice.base}", f"model.arguments={{{arguments}}}"]
    if choice.weights != str(model.weights):
        changes.append(f"model.weights={choice.weights}")
    if model.start is not None:
        changes.append("~model.start")
    is_other = choice.base != model.base or choice.arguments != dict(model.arguments)
    if is_other and isinstance(model.head, Head) and isinstance(model.head.taps, tuple):
        changes.append("~model.head.taps")
    if is_other and recipe.pixels is not None and recipe.pixels.taps is not None:
        changes.append("~pixels.taps")
    return changes


def find_problems(recipe: Recipe, changes: Sequence[str]) -> list[str]:
    """Returns what a recipe refuses after some changes.

    Args:
        recipe: The recipe.
        changes: Overrides.
    """
    try:
        check_recipe(build_recipe(recipe, changes))
    except ToolkitError as error:
        return [" ".join(str(problem).split()) for problem in error.problems]
    return []
