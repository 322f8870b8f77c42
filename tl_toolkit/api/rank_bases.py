"""`rank_bases`: which base tells the images of a recipe apart best, before any training."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.progress import handling
from tl_toolkit.catalog.lookup import find_architecture
from tl_toolkit.catalog.published import list_published, spell_choice
from tl_toolkit.errors import Problem, RecipeError, ToolkitError
from tl_toolkit.events import Handler, message, warning
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.plan import Plan
from tl_toolkit.recipe.load import RecipeSource, build_recipe, list_values, read_recipe
from tl_toolkit.recipe.model_schema import Head
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.yaml_reader import read_scalar
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import numerics, refuse_dtype_policy

if TYPE_CHECKING:
    from tl_toolkit.evaluation.ranking import BaseCost, Judged

__all__ = ["BaseRanking", "RankedBase", "rank_bases"]

_KEPT = ("version", "name", "seed", "deterministic", "precision", "task", "data", "features")
_HEAD = {"taps": "all", "pooling": "statistics", "normalize": True}


@dataclass(frozen=True)
class RankedBase:
    """A base, what it takes, and how well it does without training.

    Attributes:
        name: As `rank_bases` takes it: mobilenet, or mobilenet:alpha=0.25.
        base: Name of the architecture.
        arguments: Its arguments.
        parameters: Its weights and moving statistics.
        operations: Multiply-accumulates for one image.
        fits: Whether it takes no more than what was asked for; else it is not judged.
        probe: The score of a linear probe on maps of all depths, cross-validated; None where it is
            not judged.
        probe_interval: Its 95 % interval.
        neighbors: The score of nearest neighbours by the last map, cross-validated.
        neighbors_interval: Its 95 % interval.
        seconds: What features and predictors took; features that were stored take little.
    """

    name: str
    base: str
    arguments: Mapping[str, Any]
    parameters: int
    operations: int
    fits: bool
    probe: float | None = None
    probe_interval: tuple[float, float] | None = None
    neighbors: float | None = None
    neighbors_interval: tuple[float, float] | None = None
    seconds: float | None = None

    def overlaps(self, other: RankedBase) -> bool:
        """Returns whether the intervals of two probes overlap: they are not to be told apart.

        Args:
            other: The other base.
        """
        own, its = self.probe_interval, other.probe_interval
        return own is None or its is None or (own[0] <= its[1] and its[0] <= own[1])


@dataclass(frozen=True)
class BaseRanking:
    """Bases by the score of their probes, the best first.

    Attributes:
        metric: The score.
        images: Images that were predicted, each by predictors that were fitted without it.
        bases: The bases; those that are not judged come last.
        skipped: Why other bases are left out, by name.
        changes: Overrides that give the recipe the nominated base.
        problems: What the recipe would still refuse then, as names of blocks of its own base.
    """

    metric: str
    images: int
    bases: Sequence[RankedBase]
    skipped: Mapping[str, str]
    changes: Sequence[str] = ()
    problems: Sequence[str] = ()

    @property
    def nominated(self) -> RankedBase | None:
        """The base with the best probe of those that fit; None where none does."""
        return next((base for base in self.bases if base.probe is not None), None)

    @property
    def tied(self) -> list[RankedBase]:
        """Those that are not to be told apart from the nominated one, fewest operations first."""
        best = self.nominated
        tied = [
            base
            for base in self.bases
            if best is not None and base is not best and base.probe is not None
            if base.overlaps(best)
        ]
        return sorted(tied, key=lambda base: base.operations)

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""
        best = self.nominated
        return {
            **asdict(self),
            "nominated": None if best is None else best.name,
            "tied": [base.name for base in self.tied],
        }


def rank_bases(
    recipe: RecipeSource,
    overrides: Overrides = (),
    *,
    bases: Sequence[str] | None = None,
    most_operations: float | None = None,
    most_parameters: float | None = None,
    progress: Handler | bool = False,
) -> BaseRanking:
    """Ranks bases by how well they tell the images of a recipe apart, without any training.

    Each computes features of all images once. They are stored, and read by the fine-tune that
    follows. On images that are not test images, a linear probe on the maps of all depths and
    nearest neighbours by the last map are cross-validated. The best probe is nominated; bases whose
    interval overlaps its own are not to be told apart from it.

    Args:
        recipe: As in `finetune`; its task has one output for each image. Its head and phases do not
            matter.
        overrides: As in `finetune`.
        bases: Names, as mobilenet or mobilenet:alpha=0.25; by default the recipe's own and all
            whose ImageNet weights are on this machine. With `model.weights: random` all are random.
        most_operations: Multiply-accumulates that a base may take for one image.
        most_parameters: Weights that it may have.
        progress: As in `finetune`.

    Raises:
        DataError: The images cannot be used.
        RecipeError: No base can be used, or the task has an output for each pixel.
    """
    loaded = read_recipe(recipe, overrides).recipe
    _check(loaded)
    choices = _choose(loaded, bases)
    plans, skipped = _plan_all(loaded, choices)
    if not plans:
        problems = [Problem(name, reason) for name, reason in skipped.items()]
        hint = "tltool weights pull NAME, or --bases"
        raise RecipeError([*problems, Problem("rank-bases", "no base can be used", "", hint)])
    refuse_dtype_policy()
    with handling(progress) as handle, numerics(deterministic=loaded.deterministic):
        for name, reason in skipped.items():
            handle(warning(f"skipped {name}: {reason}"))
        limits = (most_operations, most_parameters)
        ranked, images = _rank(plans, limits, handle, skipped)
    ranked.sort(key=lambda base: -float("inf") if base.probe is None else base.probe, reverse=True)
    task = loaded.task
    ranking = BaseRanking(task.final_score or task.score, images, ranked, skipped)
    best = ranking.nominated
    if best is None:
        return ranking
    changes = _list_changes(loaded, plans[best.name][0])
    return replace(ranking, changes=changes, problems=_find_problems(loaded, changes))


def _list_changes(recipe: Recipe, choice: _Choice) -> list[str]:
    """Returns overrides that give a recipe another base, without what names parts of its own."""
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
    return changes


def _find_problems(recipe: Recipe, changes: Sequence[str]) -> list[str]:
    """Returns what a recipe refuses after the changes."""
    try:
        check_recipe(build_recipe(recipe, changes))
    except ToolkitError as error:
        return [" ".join(str(problem).split()) for problem in error.problems]
    return []


def _check(recipe: Recipe) -> None:
    if recipe.task.is_dense:
        what = f"= {recipe.task.kind!r} has an output for each pixel"
        expected = "Bases are ranked for tasks with one output for each image."
        hint = "tltool search, with model.base in search.space"
        raise RecipeError(Problem("task", what, expected, hint))


@dataclass(frozen=True)
class _Choice:
    name: str
    base: str
    arguments: Mapping[str, Any]
    weights: str


def _choose(recipe: Recipe, names: Sequence[str] | None) -> list[_Choice]:
    """Returns the bases to rank: those that are named, or all whose weights are at hand."""
    word = "random" if recipe.model.is_random else "imagenet"
    own = recipe.model
    choices = []
    if own.own_file is None and own.start is None:
        spelled = _spell(str(own.base), own.arguments)
        choices = [_Choice(spelled, str(own.base), dict(own.arguments), str(own.weights))]
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


def _read_choice(name: str, weights: str) -> _Choice:
    base, _, listed = name.partition(":")
    find_architecture(base)  # raises the error that names the nearest one
    pairs = [pair.partition("=") for pair in listed.split(",") if pair]
    wrong = [key for key, mark, _ in pairs if not mark]
    if wrong:
        expected = "Expected NAME, or NAME:KEY=VALUE,KEY=VALUE."
        raise RecipeError(Problem(name, f"{wrong[0]!r} is no argument", expected))
    arguments = {key: read_scalar(value) for key, _, value in pairs}
    return _Choice(name, base, arguments, weights)


def _plan_all(
    recipe: Recipe, choices: Sequence[_Choice]
) -> tuple[dict[str, tuple[_Choice, Plan]], dict[str, str]]:
    """Returns the plan of each base, and why some cannot be used."""
    values = {key: value for key, value in list_values(recipe).items() if key in _KEPT}
    if values.get("precision") == "auto":
        values["precision"] = "float32"
    plans: dict[str, tuple[_Choice, Plan]] = {}
    skipped: dict[str, str] = {}
    errors: list[ToolkitError] = []
    for choice in choices:
        model: dict[str, Any] = {"base": choice.base, "arguments": dict(choice.arguments)}
        model |= {"weights": choice.weights, "head": _HEAD}
        if recipe.model.edge_filter is not None:
            model["edge_filter"] = recipe.model.edge_filter
        phases = [{"name": "head", "epochs": 0}]
        try:
            plan = check_recipe(build_recipe({**values, "model": model, "phases": phases}))
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


def _rank(
    plans: Mapping[str, tuple[_Choice, Plan]],
    limits: tuple[float | None, float | None],
    progress: Handler,
    skipped: dict[str, str],
) -> tuple[list[RankedBase], int]:
    """Returns the bases, and how many images they were judged by; adds those that do not load."""
    from tl_toolkit.evaluation.ranking import judge_base, measure_cost
    from tl_toolkit.tasks.registry import build_task
    from tl_toolkit.training.bands import settle_bands
    from tl_toolkit.training.prepare import assemble_model, survey_images
    from tl_toolkit.transfer.precision import set_precision

    ranked: list[RankedBase] = []
    images, count = None, 0
    with tempfile.TemporaryDirectory(prefix="tltool-") as place:  # of images that are converted
        for name, (choice, plan) in plans.items():
            task = build_task(plan.recipe, plan.classes)
            if images is None:
                _, images = survey_images(plan, task, RunFolder(Path(place)), progress)
            try:
                settled = settle_bands(plan, images["train"].examples, progress)
                transfer = assemble_model(settled, task, progress)
            except ToolkitError as error:
                skipped[name] = str(error.problems[0])
                progress(warning(f"skipped {name}: {error.problems[0]}"))
                continue
            set_precision(transfer, plan.recipe.precision)
            cost = measure_cost(transfer)
            judged = None
            if _fits(cost, limits):
                progress(message(f"base {name}"))
                judged = judge_base(plan, transfer, images, progress)
                count = judged.images
            ranked.append(_describe(choice, cost, judged))
            del transfer
            gc.collect()  # its graph is a circle of objects
    return ranked, count


def _fits(cost: BaseCost, limits: tuple[float | None, float | None]) -> bool:
    values = (cost.operations, cost.parameters)
    return all(most is None or value <= most for value, most in zip(values, limits, strict=True))


def _describe(choice: _Choice, cost: BaseCost, judged: Judged | None) -> RankedBase:
    known = (choice.name, choice.base, choice.arguments, cost.parameters, cost.operations)
    if judged is None:
        return RankedBase(*known, fits=False)
    return RankedBase(
        *known,
        fits=True,
        probe=judged.probe.value,
        probe_interval=judged.probe.interval,
        neighbors=judged.neighbors.value,
        neighbors_interval=judged.neighbors.interval,
        seconds=judged.seconds,
    )
