"""The steps of `auto`, in order: a first run, bases, a search, a last run, and the choice."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.auto_bases import AutoBases
from tl_toolkit.api.auto_fitting import Fitting
from tl_toolkit.api.auto_record import FinishedRun, slug
from tl_toolkit.api.auto_runs import AutoRuns, name_head
from tl_toolkit.api.auto_work import AutoWork
from tl_toolkit.api.base_choices import BaseChoice, count_parameters
from tl_toolkit.api.search import Searching, open_search
from tl_toolkit.errors import SearchError
from tl_toolkit.plan.automatic import search_recipe
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.space import trial_recipe
from tl_toolkit.plan.values import describe_value
from tl_toolkit.recipe.load import LoadedRecipe, load_recipe
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tuning.budget import TimeIsUp

if TYPE_CHECKING:
    from tl_toolkit.tuning.journal import Trial

__all__ = ["Automatic"]


class Automatic:
    """The steps of `auto` once its folder exists; each that is done already is left out.

    Args:
        work: Record, time and recipe.
        bases: The bases that it may use.
    """

    def __init__(self, work: AutoWork, bases: AutoBases) -> None:
        self.work = work
        self._bases = bases
        self._runs = AutoRuns(work)

    def run(self) -> None:
        """Takes all steps that fit, and notes each in auto.json.

        Raises:
            RecipeError: No base can be used, or the time ran out before the first run's images were
                read.
        """
        work = self.work
        plans = self._bases.plan()
        work.save()
        _import_all()
        try:
            first = min(plans, key=lambda name: count_parameters(plans[name][1]))
            with work.timed("first run"):
                self._runs.train_first(plans[first][0])
            with work.timed("bases"):
                work.attempt("ranking", lambda: self._bases.rank(plans))
            chosen = self._bases.choose(plans, first)
            if work.record.find(name_head(chosen.name)) is None:
                with work.timed("head on the base that was taken"):
                    work.attempt("head", lambda: self._runs.try_head(chosen))
            work.attempt("search", lambda: self._tune(chosen))
        finally:
            self._runs.choose()
            work.save()

    # The search.

    def _tune(self, choice: BaseChoice) -> None:
        """Searches depths, rates and heads, and trains the winner as a finished run."""
        head = self.work.record.find(name_head(choice.name))
        if head is None:
            return
        plan = check_recipe(
            load_recipe(self.work.folder.path / head.name / RunFolder.recipe.relative)
        )
        fitting = Fitting(
            self.work.budget, self.work.pace, self.work.handle, operations=head.operations,
            images=(head.trained_by, head.images),
        )  # fmt: skip
        epochs = fitting.choose_epochs()
        searched = None
        if epochs is not None:
            searched = search_recipe(plan, epochs=epochs, seed=self.work.recipe.seed)
        place = self.work.folder.searches / slug(choice.name)
        if RunFolder(place).search.is_file():  # it keeps what it began with
            searched = load_recipe(RunFolder(place).recipe)
        if searched is None:
            self.work.say("search", fitting.refusal)
            return
        with self.work.timed("search"):
            trials = self._search(searched, place, fitting)
        self.work.record.trials = [_list_trial(choice.name, trial) for trial in trials]
        self.work.save()
        best = self._find_best(trials, head)
        if best is not None:
            with self.work.timed("run of the best trial"):
                self._train_best(searched.recipe, best, choice)

    def _search(self, searched: LoadedRecipe, place: Path, fitting: Fitting) -> list[Trial]:
        """Returns the trials that are done when no other fits."""
        from tl_toolkit.tuning.journal import Journal

        plan = check_recipe(searched)
        resume = RunFolder(place).search.is_file()
        with (
            contextlib.suppress(SearchError, TimeIsUp),
            self.work.budget.keeping(lambda: fitting.closing),
            open_search(
                searched.recipe.name, place.parent, place, resume=resume, overwrite=False
            ) as folder,
        ):
            Searching(plan, folder, self.work.handle, budget=fitting).run(None)
        return Journal(RunFolder(place)).read()

    def _find_best(self, trials: Sequence[Trial], head: FinishedRun) -> Trial | None:
        """Returns the best trial that is better than the head alone, and whose run fits."""
        done = [trial for trial in trials if trial.score is not None]
        if not done:
            self.work.say("search", "no trial was completed")
            return None
        better = [trial for trial in done if self._beats(trial, head)]
        count = f"{len(done)} trials" if len(done) > 1 else "1 trial"
        if not better:
            self.work.say("search", f"none of {count} is better than {head.name}")
            return None
        best = max(better, key=lambda trial: (trial.score or 0.0, -trial.number))
        fits = self.work.pace.estimate_final(best.seconds) <= self.work.budget.left
        text = f"trial {best.number} of {len(done)} has {best.score:.4f}, {head.name} "
        text += (
            f"{head.objective:.4f}"
            if fits
            else f"{head.objective:.4f}; its run does not fit any more"
        )
        self.work.say("search", text)
        return best if fits else None

    def _beats(self, trial: Trial, head: FinishedRun) -> bool:
        return trial.score is not None and trial.score > head.objective

    def _train_best(self, searched: Recipe, best: Trial, choice: BaseChoice) -> None:
        name = f"{RunFolder.models.relative}/tuned-{slug(choice.name)}-{best.number}"
        if self.work.record.find(name) is not None:
            return
        recipe = trial_recipe(searched, best.values, seed=best.seed)
        values = (f"{field.split('.')[-1]} {describe_value(value)}"
                  for field, value in best.values.items())  # fmt: skip
        about = f"trial {best.number} ({', '.join(values)})"
        self._runs.train_if_time(
            lambda: self._runs.train(recipe, name, choice.name, about, trained=best.parameters),
            name,
        )


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


def _list_trial(base: str, trial: Trial) -> dict[str, Any]:
    kept = ("number", "values", "state", "score", "seconds", "elapsed", "parameters", "error")
    row = asdict(trial)
    return {"base": base, **{name: row[name] for name in kept}}
