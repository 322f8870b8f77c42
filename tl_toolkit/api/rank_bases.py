"""`rank_bases`: which base tells the images of a recipe apart best, before any training."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.base_choices import (
    BaseChoice,
    choose_bases,
    find_problems,
    list_changes,
    plan_bases,
)
from tl_toolkit.api.progress import handling
from tl_toolkit.catalog.bands import BandStatistics
from tl_toolkit.errors import Problem, RecipeError, ToolkitError, lacks_memory
from tl_toolkit.events import Handler, ignore, message, warning
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.tasks import plan_task
from tl_toolkit.recipe.load import RecipeSource, read_recipe
from tl_toolkit.recipe.overrides import Overrides
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import numerics, refuse_dtype_policy

if TYPE_CHECKING:
    from tl_toolkit.evaluation.ranking import BaseCost, Judged

__all__ = ["BaseRanking", "RankedBase", "rank_bases"]

Admits = Callable[[str, "BaseCost | None"], str]
"""Returns why a base is not judged, "" if it is; its cost is None before it is built."""


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
        neighbors: The score of nearest neighbours by the last map, cross-validated; None for tasks
            with an output for each pixel.
        neighbors_interval: Its 95 % interval.
        seconds: What features and predictors took; features that were stored take little.
        images: Images that were predicted.
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
    images: int = 0

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
        metric: The score; for tasks with an output for each pixel, that of single pixels, which
            epochs are compared by.
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
    nearest neighbours by the last map are cross-validated. For tasks with an output for each pixel
    the probe reads the maps at pixels that are sampled uniformly, 200 of an image and 5,000 in
    all at most; folds and intervals are of images, and there are no neighbours. The best probe is
    nominated; bases whose interval overlaps its own are not to be told apart from it.

    Args:
        recipe: As in `finetune`. Its head and phases do not matter.
        overrides: As in `finetune`.
        bases: Names, as mobilenet or mobilenet:alpha=0.25; by default the recipe's own and all
            whose ImageNet weights are on this machine. With `model.weights: random` all are random.
        most_operations: Multiply-accumulates that a base may take for one image.
        most_parameters: Weights that it may have.
        progress: As in `finetune`.

    Raises:
        DataError: The images cannot be used.
        RecipeError: No base can be used.
    """
    loaded = read_recipe(recipe, overrides).recipe
    choices = choose_bases(loaded, bases)
    plans, skipped = plan_bases(loaded, choices)
    if not plans:
        problems = [Problem(name, reason) for name, reason in skipped.items()]
        hint = "tltool weights pull NAME, or --bases"
        raise RecipeError([*problems, Problem("rank-bases", "no base can be used", "", hint)])
    refuse_dtype_policy()
    with handling(progress) as handle, numerics(deterministic=loaded.deterministic):
        for name, reason in skipped.items():
            handle(warning(f"skipped {name}: {reason}"))
        admits = limit_costs(most_operations, most_parameters)
        ranked = list(judge_bases(plans, handle, skipped, admits))
    ranking = order_bases(loaded, ranked, skipped)
    best = ranking.nominated
    if best is None:
        return ranking
    changes = list_changes(loaded, plans[best.name][0])
    return replace(ranking, changes=changes, problems=find_problems(loaded, changes))


def order_bases(
    recipe: Recipe, judged: Sequence[RankedBase], skipped: Mapping[str, str]
) -> BaseRanking:
    """Returns bases by their scores, the best first, and those that are not judged last.

    Args:
        recipe: The recipe, whose task names the score.
        judged: As `judge_bases` yields them.
        skipped: Why others are left out.
    """
    worst = -float("inf")
    ranked = sorted(
        judged, key=lambda base: worst if base.probe is None else base.probe, reverse=True
    )
    images = max((base.images for base in judged), default=0)
    return BaseRanking(plan_task(recipe).ranking_score, images, ranked, skipped)


def limit_costs(operations: float | None, parameters: float | None) -> Admits:
    """Returns what admits the bases that take no more than so much.

    Args:
        operations: Multiply-accumulates for one image; None for any number.
        parameters: Weights; None for any number.
    """

    def admits(name: str, cost: BaseCost | None) -> str:
        if cost is None:
            return ""
        values = ((cost.operations, operations), (cost.parameters, parameters))
        fits = all(most is None or value <= most for value, most in values)
        return "" if fits else "takes more than was asked for"

    return admits


def judge_bases(
    plans: Mapping[str, tuple[BaseChoice, Plan]],
    progress: Handler,
    skipped: dict[str, str],
    admits: Admits,
) -> Iterator[RankedBase]:
    """Yields the bases, one after the other as they are judged.

    Args:
        plans: As `plan_bases` returns them.
        progress: Receives events.
        skipped: Receives the reason for each that does not load.
        admits: Is asked before a base is built and again, with its cost, before it computes
            features. A base that it refuses before it is built is left out; one that it refuses
            then is yielded without scores.
    """
    from tl_toolkit.evaluation.ranking import judge_base, measure_cost
    from tl_toolkit.tasks.registry import build_task
    from tl_toolkit.training.bands import settle_bands
    from tl_toolkit.training.prepare import assemble_model, survey_images
    from tl_toolkit.transfer.precision import set_precision

    images = None
    with tempfile.TemporaryDirectory(prefix="tltool-") as place:  # of images that are converted
        for name, (choice, plan) in plans.items():
            if reason := admits(name, None):
                skipped[name] = reason
                continue
            task = build_task(plan.recipe, plan.classes)
            if images is None:
                _, images = survey_images(plan, task, RunFolder(Path(place)), progress)
            transfer = judged = None
            try:
                settled = settle_bands(plan, images["train"].examples, progress)
                transfer = assemble_model(settled, task, progress)
                set_precision(transfer, plan.recipe.precision)
                cost = measure_cost(transfer)
                if not admits(name, cost):
                    progress(message(f"base {name}"))
                    judged = judge_base(plan, transfer, images, progress)
            except Exception as error:
                # What goes wrong once the base is there, of the images, every base would meet.
                if not (transfer is None and isinstance(error, ToolkitError)):
                    if not lacks_memory(error):
                        raise
                    skipped[name] = "memory ran out"
                else:
                    skipped[name] = str(error.problems[0])
                progress(warning(f"skipped {name}: {skipped[name]}"))
                continue
            yield _describe(choice, cost, judged)
            del transfer
            gc.collect()  # its graph is a circle of objects


def measure_plan(plan: Plan) -> BaseCost:
    """Returns what the base of a plan takes; reads no weights and no image.

    Args:
        plan: The plan.

    Raises:
        RecipeError: The head cannot be built onto the base.
    """
    from tl_toolkit.evaluation.ranking import measure_cost
    from tl_toolkit.tasks.registry import build_task
    from tl_toolkit.training.prepare import assemble_model

    channels = plan.recipe.data.channels
    bands = BandStatistics((0.0,) * channels, (1.0,) * channels, 0)  # their size alone counts
    bare = replace(plan, weights_file=None, published=None, start=None, bands=bands)
    cost = measure_cost(assemble_model(bare, build_task(plan.recipe, plan.classes), ignore))
    gc.collect()  # a graph is a circle of objects
    return cost


def _describe(choice: BaseChoice, cost: BaseCost, judged: Judged | None) -> RankedBase:
    known = (choice.name, choice.base, choice.arguments, cost.parameters, cost.operations)
    if judged is None:
        return RankedBase(*known, fits=False)
    return RankedBase(
        *known,
        fits=True,
        probe=judged.probe.value,
        probe_interval=judged.probe.interval,
        neighbors=None if judged.neighbors is None else judged.neighbors.value,
        neighbors_interval=None if judged.neighbors is None else judged.neighbors.interval,
        seconds=judged.seconds,
        images=judged.images,
    )
