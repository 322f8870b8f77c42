"""The steps of `auto`, in order: a first run, bases, a search, a last run, and the choice."""

from __future__ import annotations

import contextlib
import gc
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.auto_fitting import Fitting
from tl_toolkit.api.auto_record import AutoRecord, FinishedRun
from tl_toolkit.api.base_choices import BaseChoice, choose_bases, count_parameters, plan_bases
from tl_toolkit.api.comparing import compare
from tl_toolkit.api.finetune import finetune
from tl_toolkit.api.rank_bases import (
    RankedBase,
    judge_bases,
    limit_costs,
    order_bases,
)
from tl_toolkit.api.search import Searching, open_search
from tl_toolkit.errors import Problem, RecipeError, SearchError
from tl_toolkit.events import Event, Handler, message
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.plan.automatic import search_recipe, with_base
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import trial_recipe
from tl_toolkit.plan.values import describe_value
from tl_toolkit.recipe.load import LoadedRecipe, load_recipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import numerics
from tl_toolkit.tuning.budget import MARGIN, Budget, Pace, TimeIsUp

if TYPE_CHECKING:
    from tl_toolkit.api.run import Run
    from tl_toolkit.evaluation.ranking import BaseCost
    from tl_toolkit.tuning.journal import Trial

__all__ = ["Automatic"]

_SHOWN = ("warning", "weights_fetched", "features_computed", "trial_began", "trial_ended")
_RANKING = 0.4
"""Part of the time after the first run that bases are judged in; the rest is for the search."""


class Automatic:
    """The steps of `auto` once its folder exists; each that is done already is left out.

    Args:
        first: The recipe of the first run.
        folder: The folder, new or of the `auto` that is resumed.
        record: What was done by now.
        budget: The time.
        progress: Receives events.
        bases: Names of bases; None for all that are at hand.
        limits: Multiply-accumulates and weights that a base may take.
    """

    def __init__(
        self,
        first: LoadedRecipe,
        folder: RunFolder,
        record: AutoRecord,
        budget: Budget,
        progress: Handler,
        *,
        bases: Sequence[str] | None = None,
        limits: tuple[float | None, float | None] = (None, None),
    ) -> None:
        self.recipe = first.recipe
        self.folder = folder
        self.record = record
        self.budget = budget
        self.pace = Pace(budget.clock)
        self.pace.restore(record.pace)
        self._bases = bases
        self._limits = limits
        self._progress = progress
        self._said: set[str] = set()
        self._clock = budget.clock
        record.metric = self.recipe.task.final_score or self.recipe.task.score

    def run(self) -> None:
        """Takes all steps that fit, and notes each in auto.json.

        Raises:
            RecipeError: No base can be used.
        """
        plans = self._plan()
        _import_all()
        try:
            first = min(plans, key=lambda name: count_parameters(plans[name][1]))
            self._train_head(plans[first][0])
            self._rank(plans)
            chosen = self._choose_base(plans, first)
            if self.record.find(_name_head(chosen.name)) is None:
                self._try_head(chosen)
            self._tune(chosen)
        finally:
            self._choose()
            self._save()

    def handle(self, event: Event) -> None:
        """Measures by an event, ends a step whose time is up, and passes on what is worth it.

        Args:
            event: An event of a run, a search or a ranking.

        Raises:
            TimeIsUp: The time of the step is up.
        """
        self.pace.note(event)
        self.budget.check(event)
        if event.kind == "warning":  # each run would say the same
            if event.text in self._said:
                return
            self._said.add(event.text)
        if event.kind in _SHOWN:
            self._progress(event)

    def _say(self, step: str, text: str) -> None:
        self.record.why[step] = text
        self._progress(message(text))

    def _save(self) -> None:
        gc.collect()  # the graph of a model that is done with is a circle of objects
        self.record.seconds = round(self.budget.spent, 3)
        self.record.pace = self.pace.as_json()
        self.record.write(self.folder)

    # Bases.

    def _plan(self) -> dict[str, tuple[BaseChoice, Plan]]:
        """Returns the plans of the bases that may be used, those with fewest weights first."""
        choices = choose_bases(self.recipe, self._bases)
        if self.recipe.task.is_dense:  # whose heads read maps by their names
            plan = check_recipe(with_base(self.recipe, {}))
            plans, skipped = {choices[0].name: (choices[0], plan)}, {}
            if not plan.is_fetched:
                skipped, plans = {choices[0].name: "its weights are not here"}, {}
        else:
            plans, skipped = plan_bases(self.recipe, choices)
        most = self._limits[1]
        for name in list(plans):
            if most is not None and count_parameters(plans[name][1]) > most:
                skipped[name] = "has more weights than was asked for"
                del plans[name]
        if not plans:
            problems = [Problem(name, reason) for name, reason in skipped.items()]
            hint = "tltool weights pull mobilenet alpha=0.25, or --bases"
            raise RecipeError([*problems, Problem("auto", "no base can be used", "", hint)])
        self.record.skipped |= skipped
        return dict(sorted(plans.items(), key=lambda item: count_parameters(item[1][1])))

    def _rank(self, plans: Mapping[str, tuple[BaseChoice, Plan]]) -> None:
        """Judges bases, cheapest first, until the time for that is over."""
        judged = {base.name for base in self.record.bases}
        left = {name: found for name, found in plans.items() if name not in judged}
        if len(plans) < 2 or not left:
            return
        until = self.budget.left * (1 - _RANKING)
        images = sum(
            sum(counts.values()) for counts in next(iter(left.values()))[1].images.values()
        )
        skipped: dict[str, str] = {}
        asked = limit_costs(*self._limits)

        def admits(name: str, cost: BaseCost | None) -> str:
            if reason := asked(name, cost):
                return reason
            seconds = MARGIN * self.pace.judging
            if cost is not None:
                seconds = self.pace.estimate_judging(cost.operations, images)
            if seconds <= self.budget.left - until:
                return ""
            skipped[name] = f"does not fit: it takes about {seconds:.0f} s"
            return skipped[name]

        began = self._clock()
        try:
            with (
                self.budget.keeping(lambda: until),
                numerics(deterministic=self.recipe.deterministic),
            ):
                for base in judge_bases(left, self.handle, skipped, admits):
                    if base.probe is not None:
                        self._note_base(base, images, self._clock() - began)
                    began = self._clock()
        except TimeIsUp:
            late = next((name for name in left if self._is_open(name, skipped)), None)
            if late is not None:
                seconds = self._clock() - began
                skipped[late] = f"does not fit: it was stopped after {seconds:.0f} s"
        for name in left:
            if self._is_open(name, skipped):
                skipped[name] = "does not fit"
        self.record.skipped |= skipped
        self._save()

    def _is_open(self, name: str, skipped: Mapping[str, str]) -> bool:
        """Returns whether a base is neither judged nor left out."""
        return name not in skipped and all(base.name != name for base in self.record.bases)

    def _note_base(self, base: RankedBase, images: int, seconds: float) -> None:
        self.pace.learn(base.operations, images=images, judging=seconds)
        self.record.bases.append(base)
        self.record.skipped.pop(base.name, None)
        text = f"base {base.name}: {_describe(base.probe, base.probe_interval)}"
        self._progress(message(f"{text}, {seconds:.1f} s"))
        self._save()

    def _choose_base(self, plans: Mapping[str, tuple[BaseChoice, Plan]], first: str) -> BaseChoice:
        """Returns the base that is tuned: the best, or the cheapest of those that equal it."""
        bases = [base for base in self.record.bases if base.name in plans]
        ranking = order_bases(self.recipe, bases, {})
        best = ranking.nominated
        if best is None:
            return plans[first][0]
        chosen, why = best, "has the best probe"
        if ranking.tied:
            chosen = min([best, *ranking.tied], key=lambda base: base.operations)
            others = [base.name for base in [best, *ranking.tied] if base is not chosen]
            why = f"is not to be told apart from {' and '.join(others)}, and takes the fewest "
            why += "operations"
        self._say("base", f"base {chosen.name} {why}")
        return plans[chosen.name][0]

    # Runs.

    def _train_head(self, choice: BaseChoice) -> None:
        """Trains a head on a base as a finished run."""
        recipe = with_base(
            self.recipe,
            {"base": choice.base, "arguments": dict(choice.arguments), "weights": choice.weights},
        )
        name = _name_head(choice.name)
        if self.record.find(name) is None:
            self._train(recipe, name, choice.name, "a head alone")

    def _try_head(self, choice: BaseChoice) -> None:
        """Trains a head on the chosen base, if a run still fits."""
        if self.pace.estimate_final(self.pace.judging) > self.budget.left:
            self._say("head", f"no run with {choice.name} fits any more")
            return
        self._train_if_time(lambda: self._train_head(choice), _name_head(choice.name))

    def _train_if_time(self, train: Callable[[], object], name: str) -> bool:
        """Trains, and removes what is left of a run that takes too long."""
        try:
            with self.budget.keeping(lambda: self.pace.around / 2):
                train()
        except TimeIsUp:
            shutil.rmtree(self.folder.path / name, ignore_errors=True)
            self._say("late", f"{name} took longer than was left, and was given up")
            return False
        return True

    def _train(
        self, recipe: LoadedRecipe | Recipe, name: str, base: str, about: str, *, trained: int = 0
    ) -> None:
        """Trains a recipe as a finished run, and notes it."""
        began = self._clock()
        place = self.folder.path / name
        run = finetune(recipe, out=place, resume=True, progress=self.handle)
        seconds = self._clock() - began
        metrics = run.metrics
        operations = metrics["cost"]["multiply_accumulates"]
        images = _count_images(run)
        self.pace.learn(operations, images=sum(images.values()))
        self.pace.around = max(self.pace.around, seconds - metrics["seconds"].get("train", 0.0))
        measured = metrics["validation"]
        interval = measured.get("intervals", {}).get(self.record.metric)
        found = FinishedRun(
            name, base, about, float(measured[self.record.metric]),
            None if interval is None else (interval[0], interval[1]),
            images["validation"], images["train"], operations, trained,
            round(seconds, 3), float(metrics["best"][f"val_{self.recipe.task.score}"]),
        )  # fmt: skip
        self.record.add_run(found)
        self._progress(
            message(f"run {name}: {about} on {base}, {_describe(found.score, found.interval)}, "
                    f"{seconds:.1f} s")
        )  # fmt: skip
        self._choose()
        self._save()

    # The search.

    def _tune(self, choice: BaseChoice) -> None:
        """Searches depths, rates and heads, and trains the winner as a finished run."""
        head = self.record.find(_name_head(choice.name))
        if head is None:
            return
        plan = check_recipe(load_recipe(self.folder.path / head.name / RunFolder.recipe.relative))
        fitting = Fitting(
            self.budget, self.pace, self.handle, operations=head.operations,
            images=(head.trained_by, head.images),
        )  # fmt: skip
        epochs = fitting.choose_epochs()
        searched = None
        if epochs is not None:
            searched = search_recipe(plan, epochs=epochs, seed=self.recipe.seed)
        place = self.folder.searches / _slug(choice.name)
        if RunFolder(place).search.is_file():  # it goes on with what it began with
            searched = load_recipe(RunFolder(place).recipe)
        if searched is None:
            self._say("search", fitting.refusal)
            return
        trials = self._search(searched, place, fitting)
        self.record.trials = [_list_trial(choice.name, trial) for trial in trials]
        self._save()
        best = self._find_best(trials, head)
        if best is not None:
            self._train_best(searched.recipe, best, choice)

    def _search(self, searched: LoadedRecipe, place: Path, fitting: Fitting) -> list[Trial]:
        """Returns the trials that are done when no other fits."""
        from tl_toolkit.tuning.journal import Journal

        plan = check_recipe(searched)
        resume = RunFolder(place).search.is_file()
        with (
            contextlib.suppress(SearchError, TimeIsUp),
            open_search(plan.recipe, place.parent, place, resume=resume, overwrite=False) as folder,
        ):
            Searching(plan, folder, self.handle, budget=fitting).run(None)
        return Journal(RunFolder(place)).read()

    def _find_best(self, trials: Sequence[Trial], head: FinishedRun) -> Trial | None:
        """Returns the best trial that is better than the head alone, and whose run fits."""
        done = [trial for trial in trials if trial.score is not None]
        if not done:
            self._say("search", "no trial was completed")
            return None
        better = [trial for trial in done if self._beats(trial, head)]
        count = f"{len(done)} trials" if len(done) > 1 else "1 trial"
        if not better:
            self._say("search", f"none of {count} is better than {head.name}")
            return None
        best = max(better, key=lambda trial: (trial.score or 0.0, -trial.number))
        fits = self.pace.estimate_final(best.seconds) <= self.budget.left
        text = f"trial {best.number} of {len(done)} has {best.score:.4f}, {head.name} "
        text += (
            f"{head.objective:.4f}"
            if fits
            else f"{head.objective:.4f}; its run does not fit any more"
        )
        self._say("search", text)
        return best if fits else None

    def _beats(self, trial: Trial, head: FinishedRun) -> bool:
        return trial.score is not None and trial.score > head.objective

    def _train_best(self, searched: Recipe, best: Trial, choice: BaseChoice) -> None:
        name = f"{RunFolder.models.relative}/tuned-{_slug(choice.name)}-{best.number}"
        if self.record.find(name) is not None:
            return
        recipe = trial_recipe(searched, best.values, seed=best.seed)
        values = (f"{field.split('.')[-1]} {describe_value(value)}"
                  for field, value in best.values.items())  # fmt: skip
        about = f"trial {best.number} ({', '.join(values)})"
        self._train_if_time(
            lambda: self._train(recipe, name, choice.name, about, trained=best.parameters), name
        )

    # The choice.

    def _choose(self) -> None:
        """Chooses the best of the finished runs, or the cheapest of those that equal it."""
        if not self.record.runs:
            return
        best = max(self.record.runs, key=lambda run: (run.score, *(-it for it in run.cost)))
        tied = [run for run in self.record.runs if run is not best and self._equals(best, run)]
        chosen = min([best, *tied], key=lambda run: run.cost)
        others = [run for run in [best, *tied] if run is not chosen]
        why = f"{chosen.name} has the best score"
        if others:
            names = " and ".join(run.name for run in others)
            why = f"{chosen.name} is not to be told apart from {names}, and is the cheapest of them"
        self.record.choose(chosen, others)
        self.record.why.pop("choice", None)  # it comes last
        self.record.why["choice"] = why
        recipe = (self.folder.path / chosen.name / RunFolder.recipe.relative).read_text("utf-8")
        remarks = [f"# auto: {text}\n" for text in self.record.why.values()]
        write_atomically(self.folder.recipe, "".join([*remarks, recipe]))

    def _equals(self, best: FinishedRun, other: FinishedRun) -> bool:
        """Returns whether two runs are not to be told apart on the validation images."""
        paths = [self.folder.path / run.name for run in (best, other)]
        for test in compare(paths).tests:
            if test.split == "validation":
                return bool(test.result["verdict"] == "open")
        return False


def _import_all() -> None:
    """Imports what the first run would import, whose seconds are then those of any run."""
    import matplotlib.pyplot  # noqa: F401
    import sklearn.linear_model
    import sklearn.model_selection  # noqa: F401

    import tl_toolkit.api.report
    import tl_toolkit.evaluation.yardsticks
    import tl_toolkit.reports.background
    import tl_toolkit.training.prepare
    import tl_toolkit.tuning.engine  # noqa: F401


def _name_head(base: str) -> str:
    return f"{RunFolder.models.relative}/head-{_slug(base)}"


def _slug(name: str) -> str:
    return re.sub("[^A-Za-z0-9.]+", "-", name)


def _describe(score: float | None, interval: tuple[float, float] | None) -> str:
    """Returns a score and its interval, as 0.930 (0.902 to 0.951)."""
    bounds = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return f"{score:.3f}{bounds}"


def _count_images(run: Run) -> dict[str, int]:
    """Returns the images of each split that a run used."""
    manifest = Manifest.load(run.folder.manifest, classes=run.classes)
    return {split: len(manifest.of(split)) for split in ("train", "validation", "test")}


def _list_trial(base: str, trial: Trial) -> dict[str, Any]:
    kept = ("number", "values", "state", "score", "seconds", "parameters", "error")
    row = asdict(trial)
    return {"base": base, **{name: row[name] for name in kept}}
