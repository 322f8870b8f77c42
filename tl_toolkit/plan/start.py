"""The run that training starts from: whether it fits a recipe, and what becomes of its classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.lookup import check_arguments, complete_arguments
from tl_toolkit.errors import DataError, Problem, RecipeError
from tl_toolkit.plan.bases import find_base
from tl_toolkit.plan.findings import Finding
from tl_toolkit.plan.used_runs import open_run
from tl_toolkit.recipe.load import load_recipe
from tl_toolkit.recipe.remote import is_address, name_object
from tl_toolkit.recipe.schema import Head, OwnBase, Recipe
from tl_toolkit.recipe.tasks import TASKS, find_task
from tl_toolkit.recipe.tree import show
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.places import find_run
from tl_toolkit.sources.listing import name_some

__all__ = ["Start", "check_start", "find_start", "read_start_head", "resolve_runs"]

_FIELD = ("model", "start")


@dataclass(frozen=True)
class Start:
    """A run that training starts from.

    Attributes:
        run: Its folder.
        classes: Its classes, in the order of its outputs.
        kept: Those of them that the recipe has too, in the recipe's order.
        new: Classes of the recipe alone.
        dropped: Classes of the run alone.
        is_solved: Whether the head is solved anew, so that its base alone is carried over.
    """

    run: Path
    classes: tuple[str, ...]
    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]
    is_solved: bool = False

    @property
    def name(self) -> str:
        """The folder of the run, or its address on an object store."""
        return name_object(str(self.run))

    def find_new(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Returns the places of the outputs of new classes.

        Args:
            classes: The recipe's, in the order of the outputs.
        """
        return tuple(classes.index(name) for name in self.new)

    def describe(self) -> str:
        """Returns what is carried over, kept, dropped and new, in words."""
        if self.is_solved:
            return f"{self.name}: base carried over; the head is solved anew"
        parts = [f"{self.name}: base and head carried over"]
        parts += [f"outputs kept: {name_some(self.kept)}"] if self.kept else []
        if self.new:
            parts.append(f"new: {name_some(self.new)} (from the means of their features)")
        parts += [f"dropped: {name_some(self.dropped)}"] if self.dropped else []
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Returns run and classes as plain values."""
        names = {name: list(getattr(self, name)) for name in ("kept", "new", "dropped")}
        return {"run": self.name, **names}


def resolve_runs(recipe: Recipe) -> Recipe:
    """Returns a recipe whose start and teacher are folders of one run, where they were `latest`.

    Those on an object store stay addresses; their copies are brought up to date.

    Args:
        recipe: The recipe; the checks of both find what is wrong with runs of this machine.

    Raises:
        DataError: A run on an object store cannot be read.
        OutputError: The cache cannot be written.
    """
    if recipe.model.start is not None:
        changed = {"start": _resolve(".".join(_FIELD), recipe.model.start)}
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=changed)})
    if recipe.teacher is not None:
        changed = {"run": _resolve("teacher.run", recipe.teacher.run)}
        recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=changed)})
    return recipe


def _resolve(field: str, run: Path | str) -> Path | str:
    if is_address(str(run)):
        open_run(field, run, again=True)
        return run
    try:
        return find_run(run).path
    except DataError:
        return run


def _open(start: Path | str) -> RunFolder:
    return open_run(".".join(_FIELD), start)


def find_start(recipe: Recipe, classes: Sequence[str]) -> Start | None:
    """Returns the run that a recipe starts from; None where it starts from a weight file.

    Args:
        recipe: A recipe that `check_start` has found nothing wrong with.
        classes: Its classes, in the order of the outputs.

    Raises:
        DataError: There is no such run.
    """
    if recipe.model.start is None:
        return None
    folder = _open(recipe.model.start)
    before = tuple(folder.read_json(folder.classes))
    return Start(
        folder.path,
        before,
        kept=tuple(name for name in classes if name in before),
        new=tuple(name for name in classes if name not in before),
        dropped=tuple(name for name in before if name not in classes),
        is_solved=isinstance(recipe.model.head, Head) and recipe.model.head.solver is not None,
    )


def read_start_head(recipe: Recipe) -> Head | None:
    """Returns the head of the run that a recipe starts from; None without one.

    Args:
        recipe: The recipe; `check_start` finds what is wrong with its run.
    """
    if recipe.model.start is None:
        return None
    try:
        head = load_recipe(_open(recipe.model.start).recipe).recipe.model.head
    except (DataError, RecipeError):
        return None
    return head if isinstance(head, Head) else None


def check_start(recipe: Recipe, classes: Sequence[str]) -> list[Finding]:
    """Returns what keeps a recipe from starting from its run.

    Args:
        recipe: The recipe, with its head resolved.
        classes: Its classes; none if they are not known.
    """
    if recipe.model.start is None:
        return []
    try:
        folder = _open(recipe.model.start)
        if not folder.model.is_file():
            what, expected = "holds no model.keras", "expected a finished run."
            return [_find(recipe, what, expected, kind=DataError)]
        before = load_recipe(folder.recipe).recipe
        start = find_start(recipe, classes)
    except (DataError, RecipeError) as error:
        return [Finding(_FIELD, problem, type(error)) for problem in error.problems]
    if wrong := _check_task(recipe, before):
        return wrong
    wrong = [*_compare_bases(recipe, before), *_compare_heads(recipe, before)]
    wrong += _compare_channels(recipe, before)
    head = recipe.model.head
    is_single = isinstance(head, Head) and head.activation == "sigmoid"
    if is_single and start and classes and tuple(classes) != start.classes:
        what = f"tells {' from '.join(start.classes)} by a single output"
        expected = f"expected these classes, in this order, got {name_some(classes)}."
        wrong.append(_find(recipe, what, expected, "model.head.activation=softmax, in both"))
    return wrong


def _find(
    recipe: Recipe, what: str, expected: str, hint: str = "", kind: Any = RecipeError
) -> Finding:
    problem = Problem("", f"model.start: {str(recipe.model.start)!r} {what}", expected, hint)
    return Finding(_FIELD, problem, kind)


def _check_task(recipe: Recipe, before: Recipe) -> list[Finding]:
    task = recipe.task
    if not task.has_class_outputs:
        kinds = ", ".join(kind for kind in TASKS if find_task(kind).has_class_outputs)
        expected = f"expected a task with an output for each class ({kinds}), got {task.kind}."
        hint = f"~model.start, and model.weights={recipe.model.start}/model.keras for its base"
        return [_find(recipe, "is a run to start from", expected, hint)]
    if task.kind != before.task.kind:
        expected = f"expected a run of {task.kind}."
        return [_find(recipe, f"is a run of {before.task.kind}", expected)]
    return []


def _compare_bases(recipe: Recipe, before: Recipe) -> list[Finding]:
    """Compares what decides the layers of a base; of a user's own base loading compares them."""
    names = [_name_base(recipe), _name_base(before)]
    if names[0] != names[1]:
        expected = f"expected the recipe's, {names[0]}: weights fit one architecture alone."
        hint = f"model.base={names[1]}" if isinstance(before.model.base, str) else ""
        return [_find(recipe, f"has the base {names[1]}", expected, hint)]
    if isinstance(recipe.model.base, OwnBase):
        return []
    architecture = find_base(recipe)
    if check_arguments(architecture, recipe.model.arguments):
        return []  # they are reported in their own place
    fields = [
        {
            **complete_arguments(architecture, one.model.arguments),
            "edge_filter": one.model.edge_filter,
        }
        for one in (recipe, before)
    ]
    return _compare(recipe, *fields, place="model.arguments")


def _name_base(recipe: Recipe) -> str:
    base = recipe.model.base
    return "of the user's own" if isinstance(base, OwnBase) else base


def _compare_channels(recipe: Recipe, before: Recipe) -> list[Finding]:
    own, other = recipe.data.channels, before.data.channels
    if own == other:
        return []
    what, expected = f"is a run on images of {other} channels", f"expected the recipe's, {own}."
    return [_find(recipe, what, expected, f"data.channels={other}")]


def _compare_heads(recipe: Recipe, before: Recipe) -> list[Finding]:
    if not isinstance(recipe.model.head, Head):
        return []  # no paper has one, which is reported in its own place
    heads = [_describe_head(one.model.classifier) for one in (recipe, before)]
    return _compare(recipe, *heads, place="model.head")


def _describe_head(head: Head) -> dict[str, Any]:
    """Returns what decides the layers and weights of a head; dropout and penalties may differ."""
    hidden = [{"units": layer.units, "activation": layer.activation} for layer in head.hidden]
    return {
        "taps": list(head.taps) if isinstance(head.taps, tuple) else head.taps,
        "pooling": head.pooling or "average",
        "normalize": head.normalize,
        "hidden": hidden,
        "activation": head.activation,
    }


def _compare(
    recipe: Recipe, wanted: Mapping[str, Any], found: Mapping[str, Any], *, place: str
) -> list[Finding]:
    findings = []
    for name, value in wanted.items():
        if value != (other := found.get(name)):
            field = f"model.{name}" if name == "edge_filter" else f"{place}.{name}"
            what = f"was trained with {field} = {show(other)}"
            expected = f"expected the recipe's, {show(value)}: its weights fit no other layers."
            text = other if isinstance(other, str) else json.dumps(other)  # JSON is YAML
            hint = f"~{field}" if other is None else f"{field}={text}"
            findings.append(_find(recipe, what, expected, hint))
    return findings
