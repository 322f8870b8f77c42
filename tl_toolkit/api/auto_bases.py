"""The bases that `auto` may use: their plans, their ranking, and the one that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tl_toolkit.api.auto_record import describe_score
from tl_toolkit.api.auto_work import AutoWork
from tl_toolkit.api.base_choices import BaseChoice, choose_bases, count_parameters, plan_bases
from tl_toolkit.api.rank_bases import RankedBase, judge_bases, measure_plan, order_bases
from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import message
from tl_toolkit.plan.plan import Plan
from tl_toolkit.runtime import numerics
from tl_toolkit.tuning.budget import MARGIN, TimeIsUp

if TYPE_CHECKING:
    from tl_toolkit.evaluation.ranking import BaseCost

__all__ = ["AutoBases"]

_RANKING = 0.4
"""Part of the time after the first run that bases are judged in; the rest is for the search."""
_LEAST = 2  # bases that there is a choice of


class AutoBases:
    """Plans bases, judges them, and takes one.

    Args:
        work: Record, time and recipe.
        bases: Names of bases; None for all that are at hand.
        limits: Multiply-accumulates and weights that a base may take.
    """

    def __init__(
        self,
        work: AutoWork,
        *,
        bases: Sequence[str] | None = None,
        limits: tuple[float | None, float | None] = (None, None),
    ) -> None:
        self.work = work
        self._bases = bases
        self._limits = limits

    def plan(self) -> dict[str, tuple[BaseChoice, Plan]]:
        """Returns the plans of the bases that may be used, those with fewest weights first.

        Raises:
            RecipeError: No base can be used.
        """
        choices = choose_bases(self.work.recipe, self._bases)
        plans, skipped = plan_bases(self.work.recipe, choices)
        for name in list(plans):
            if reason := self._refuse(plans[name][1]):
                skipped[name] = reason
                del plans[name]
        if not plans:
            problems = [Problem(name, reason) for name, reason in skipped.items()]
            hint = "tltool weights pull mobilenet alpha=0.25, or --bases"
            raise RecipeError([*problems, Problem("auto", "no base can be used", "", hint)])
        self.work.record.skipped |= skipped
        return dict(sorted(plans.items(), key=lambda item: count_parameters(item[1][1])))

    def _refuse(self, plan: Plan) -> str:
        """Returns which limit a base is above; "" for none."""
        operations, parameters = self._limits
        above = "has more weights than was asked for"
        if parameters is not None and count_parameters(plan) > parameters:
            return above  # without building it
        if operations is None and parameters is None:
            return ""
        cost = measure_plan(plan)
        if parameters is not None and cost.parameters > parameters:
            return above
        if operations is not None and cost.operations > operations:
            return f"takes {cost.operations:,} operations, more than was asked for"
        return ""

    def rank(self, plans: Mapping[str, tuple[BaseChoice, Plan]]) -> None:
        """Judges bases, cheapest first, until the time for that is over.

        Args:
            plans: As of `plan`.
        """
        judged = {base.name for base in self.work.record.bases}
        left = {name: planned for name, planned in plans.items() if name not in judged}
        if len(plans) < _LEAST or not left:
            return
        until = self.work.budget.left * (1 - _RANKING)
        images = sum(
            sum(counts.values()) for counts in next(iter(left.values()))[1].images.values()
        )
        skipped: dict[str, str] = {}

        def admits(name: str, cost: BaseCost | None) -> str:
            seconds = MARGIN * self.work.pace.judging
            if cost is not None:
                seconds = self.work.pace.estimate_judging(cost.operations, images)
            if seconds <= self.work.budget.left - until:
                return ""
            skipped[name] = f"does not fit: it takes about {seconds:.0f} s"
            return skipped[name]

        began = self.work.clock()
        try:
            with (
                self.work.budget.keeping(lambda: until + self.work.pace.folds),
                numerics(deterministic=self.work.recipe.deterministic),
            ):
                for base in judge_bases(left, self.work.handle, skipped, admits):
                    if base.probe is not None:
                        self._note_base(base, images, self.work.clock() - began)
                    began = self.work.clock()
        except TimeIsUp:
            late = next((name for name in left if self._is_open(name, skipped)), None)
            if late is not None:
                seconds = self.work.clock() - began
                skipped[late] = f"does not fit: it was stopped after {seconds:.0f} s"
        for name in left:
            if self._is_open(name, skipped):
                skipped[name] = "does not fit"
        self.work.record.skipped |= skipped
        self.work.save()

    def _is_open(self, name: str, skipped: Mapping[str, str]) -> bool:
        """Returns whether a base is neither judged nor left out."""
        return name not in skipped and all(base.name != name for base in self.work.record.bases)

    def _note_base(self, base: RankedBase, images: int, seconds: float) -> None:
        self.work.pace.learn(base.operations, images=images, judging=seconds)
        self.work.record.bases.append(base)
        self.work.record.skipped.pop(base.name, None)
        text = f"base {base.name}: {describe_score(base.probe, base.probe_interval)}"
        self.work.progress(message(f"{text}, {seconds:.1f} s"))
        self.work.save()

    def choose(self, plans: Mapping[str, tuple[BaseChoice, Plan]], first: str) -> BaseChoice:
        """Returns the base that is tuned: the best, or the cheapest of those that equal it.

        Args:
            plans: As of `plan`.
            first: The base that is taken where none was judged.
        """
        bases = [base for base in self.work.record.bases if base.name in plans]
        ranking = order_bases(self.work.recipe, bases, {})
        best = ranking.nominated
        self.work.record.tuned = first
        if best is None:
            return plans[first][0]
        chosen, why = best, "has the best probe"
        if ranking.tied:
            chosen = min([best, *ranking.tied], key=lambda base: base.operations)
            others = [base.name for base in [best, *ranking.tied] if base is not chosen]
            why = f"is not to be told apart from {' and '.join(others)}, and takes the fewest "
            why += "operations"
        self.work.record.tuned = chosen.name
        self.work.say("base", f"base {chosen.name} {why}")
        return plans[chosen.name][0]
