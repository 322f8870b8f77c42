"""Runs the trials of a search, one after the other, and shares work between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tl_toolkit.errors import (
    NonFiniteError,
    OutputError,
    RecipeError,
    ToolkitError,
    WeightsError,
)
from tl_toolkit.events import Event, Handler, ignore, message, warning
from tl_toolkit.features.own_code import describe_own_code
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.bases import open_own_bases
from tl_toolkit.plan.check import plan_trial
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import Space, count_trials, resolve_space
from tl_toolkit.plan.training import TrainingSettings, training_settings
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import derive_seed, describe_arithmetic
from tl_toolkit.training.checkpoint import Epoch
from tl_toolkit.training.folds import FoldTrainer, FoldTrainings, PausedFolds
from tl_toolkit.training.loop import Paused, Trainer, Training
from tl_toolkit.training.soup import SOUP
from tl_toolkit.tuning.journal import Journal, Trial
from tl_toolkit.tuning.oracle import Chooser, Proposal
from tl_toolkit.tuning.soup import Averaged, Candidates
from tl_toolkit.tuning.trainers import Trainers, as_text

_PAUSED_BYTES = 1 << 30
"""Bytes of the states of paused trials that are kept; other trials are trained again, with the same
outcome."""


@dataclass(frozen=True)
class Refit:
    """The winner, trained again with another seed.

    Attributes:
        seed: The recipe's seed.
        score: The objective; None if it failed.
    """

    seed: int
    score: float | None


class Engine:
    """Trains the trials of one recipe.

    Args:
        plan: Plan of a recipe; without a `search` section it has the default search.
        manifest: Its images.
        folder: The search's folder, new or of the search that is resumed.
        progress: Receives the events of trials, and of other work that takes time.
        images: The manifest's images by split, at the recipe's size.
        watch: Receives every event of the trials; what is no `Exception` ends the search.
    """

    def __init__(
        self,
        plan: Plan,
        manifest: Manifest,
        folder: RunFolder,
        progress: Handler,
        *,
        images: Mapping[str, Images],
        watch: Handler = ignore,
    ) -> None:
        self._watch = watch
        self.recipe = recipe = plan.recipe
        self.search = recipe.search or Search()
        self._plan = plan
        self.space: Space = resolve_space(recipe)
        self._folder = folder
        self._progress = progress
        self._journal = Journal(folder)
        self._manifest = manifest
        self._trainers = Trainers(
            plan, self.space, folder, progress=progress, quiet=self._report_work, images=images
        )
        self._candidates: Candidates | None = None
        if self.search.soup:
            most, is_max = self.search.soup.candidates, self.search.objective.is_max
            self._candidates = Candidates(folder.candidates, most=most, is_max=is_max)
        self._known: dict[int, Trial] = {}
        self._paused: dict[int, tuple[float, Paused | PausedFolds]] = {}
        self._chooser: Chooser | None = None
        self._said: set[str] = set()

    def begin(self) -> list[Trial]:
        """Returns the trials that are done already; the oracle learns their scores.

        Raises:
            RecipeError: The search was begun with another recipe or other data, or trials that are
                done are not those that would be proposed now.
        """
        # The fields that are left out change no score.
        left_out: Any = {
            "search": True, "export": True, "baseline": True, "yardsticks": True,
            "features": {"store", "max_gb"},
        }  # fmt: skip
        if self.recipe.model.own_file is not None:
            left_out["model"] = {"base": {"model"}}  # the folder holds a copy of the model
        settings = self.recipe.model_dump(mode="json", by_alias=True, exclude=left_out)
        left_out_of_search = {"trials", "refit", "space"}
        if not self.search.soup:  # which older searches do not know
            left_out_of_search.add("soup")
        chosen = self.search.model_dump(mode="json", exclude=left_out_of_search)
        space = {
            field: dimension.model_dump(mode="json") for field, dimension in self.space.items()
        }
        identity = {
            "recipe": settings,
            "search": {**chosen, "space": space},
            "images": self._manifest.digest,
            "numerics": describe_arithmetic(),
        }
        if code := self._describe_code():
            identity["code of the base's layers"] = code
        self._journal.begin(identity)
        done = self._journal.read()
        total = count_trials(self.recipe)
        if total is None or len(done) < total:
            self._chooser = self._replay(done)
        return done

    def _describe_code(self) -> str:
        """Returns a digest of the code of a base's own layers; "" for none, or where no one can."""
        path = self.recipe.model.own_file
        if path is None:
            return ""
        try:
            return describe_own_code(open_own_bases().load_own_model(path))
        except OSError as error:
            self._progress(warning(f"a resumed search cannot tell whether code changed: {error}"))
            return ""

    def run(self, done: Sequence[Trial]) -> Iterator[Trial]:
        """Yields the new trials, each when it is over and written.

        Args:
            done: The earlier trials, as `begin` returns them.

        Raises:
            OutputError: The folder cannot be written.
            WeightsError: The base cannot be loaded, and the search tries no other base.
        """
        chooser = self._chooser
        if chooser is None:
            return
        total = count_trials(self.recipe)
        started = time.perf_counter() - (done[-1].elapsed if done else 0.0)
        try:
            while (proposal := chooser.propose()) is not None:
                facts = {"number": proposal.number, "values": proposal.values}
                self._progress(Event("trial_began", total=total, facts=facts))
                trial = self._run_trial(proposal, started)
                self._journal.add(trial)
                self._known[trial.number] = trial
                chooser.report(proposal, trial.score)
                yield trial
            self._report_exhausted(chooser)
        finally:
            chooser.close()

    def close(self) -> None:
        """Ends a search of which `run` has yielded nothing, or not everything."""
        if self._chooser is not None:
            self._chooser.close()

    def _report_exhausted(self, chooser: Chooser) -> None:
        """Says that a search ended before its trials, as its space has no other values."""
        count = len(self._known)
        if chooser.is_exhausted and count < (self.search.count or 0):
            text = f"all {count} combinations of the space were tried: "
            text += f"the search ends before its {self.search.count} trials"
            self._progress(message(text))

    def refit(self, best: Trial) -> Iterator[Refit]:
        """Trains the winner with the seeds after the recipe's, as often as `search.refit` says.

        Args:
            best: The winner.
        """
        for count in range(1, self.search.refit + 1):
            seed = self.recipe.seed + count
            score = None
            errors: list[str] = []
            with self._outliving(errors, OutputError):
                plan = plan_trial(self._plan, best.values, seed=seed)
                score = self._score(self._trainers.find(plan).train(training_settings(plan)))
            for error in errors:
                self._progress(warning(f"the winner with seed {seed} failed: {error}"))
            yield Refit(seed, score)

    def is_better(self, trial: Trial, than: Trial | None) -> bool:
        """Returns whether a trial beats another; the first of equals wins, a paused one never.

        Args:
            trial: The later one.
            than: The best so far; None if there is none.
        """
        if trial.score is None or trial.state == "paused":
            return False
        if than is None or than.score is None:
            return True
        if self.search.objective.is_max:
            return trial.score > than.score
        return trial.score < than.score

    def _replay(self, done: Sequence[Trial]) -> Chooser:
        """Returns an oracle that has proposed the trials that are done, and knows their scores."""
        phases = self.recipe.phases  # a solved head alone has none
        chooser = Chooser(self.search, self.space, epochs=phases[-1].epochs if phases else 1)
        for trial in done:
            proposal = chooser.propose()
            recorded = (trial.values, trial.budget, trial.continues)
            if proposal is None or as_text(recorded) != as_text(
                (proposal.values, proposal.budget, proposal.continues)
            ):
                chooser.close()
                raise RecipeError(
                    f"{self._folder.path}: trial {trial.number} is not the one that this version "
                    "of KerasTuner chooses: the search cannot be resumed. Try: a new search"
                )
            chooser.report(proposal, trial.score)
            self._known[trial.number] = trial
        return chooser

    def _run_trial(self, proposal: Proposal, started: float) -> Trial:
        began = time.perf_counter()
        before = self._known.get(proposal.continues or 0)
        if before is not None and before.state == "completed":  # it stopped early: none are left
            return replace(
                before, number=proposal.number, budget=proposal.budget, seconds=0.0,
                continues=before.number, elapsed=round(began - started, 3),
            )  # fmt: skip
        seed = self._choose_seed(proposal)
        training: Training | FoldTrainings | None = None
        trainer: Trainer | FoldTrainer | None = None
        errors: list[str] = []
        widest: Mapping[str, Any] = {"trains": "", "parameters": 0}
        with self._outliving(errors, *self._fatal):
            plan = plan_trial(self._plan, proposal.values, seed=seed)
            trainer = self._trainers.find(plan)
            settings = training_settings(plan)
            widest = max(trainer.plan(settings), key=lambda phase: phase["parameters"])
            _, paused = self._paused.pop(proposal.continues or 0, (0.0, None))
            training = _train(trainer, settings, proposal.budget, paused)
        if training is not None and training.paused is not None:
            self._keep(proposal.number, self._score(training), training.paused)
        now = time.perf_counter()
        trial = Trial(
            number=proposal.number,
            values=dict(proposal.values),
            state=_name_state(training),
            score=None if training is None else self._score(training),
            best=None if training is None else training.best.as_row(),
            weights_sha256=None if training is None else training.weights_sha256,
            seconds=round(now - began, 3),
            elapsed=round(now - started, 3),
            trains=widest["trains"],
            parameters=widest["parameters"],
            error="".join(errors),
            budget=proposal.budget,
            continues=proposal.continues,
            seed=seed,
        )
        if self._candidates and trial.state == "completed" and isinstance(trainer, Trainer):
            weights = trainer.take_state().arrays
            self._candidates.keep(trial, weights, list(self._known.values()))
        return trial

    def average(self, trials: Sequence[Trial], folder: RunFolder) -> Averaged | None:
        """Averages the weights of the best trials greedily, as `search.soup` asks for.

        Args:
            trials: All trials.
            folder: The run that is made of them, which receives the receipt.

        Returns:
            The mean, whose weights the trainer's model has; None where no weights are kept.

        Raises:
            ReceiptError: A tensor moved that no trial trained.
        """
        if self._candidates is None:
            return None
        ranked = self._candidates.rank(trials)
        if not ranked:
            return None
        plans = [plan_trial(self._plan, trial.values) for trial in ranked]
        trainer = self._trainers.find(plans[0])
        if not isinstance(trainer, Trainer):
            raise ValueError("Folds have no weights to average.")
        soup = trainer.average(
            [training_settings(plan) for plan in plans],
            map(self._candidates.read, ranked),
            falls=self._falls,
            path=folder.phase(0, SOUP),
        )
        return Averaged(plans[0], trainer, soup, tuple(ranked), self.search.objective.name)

    def _falls(self, epoch: Epoch, best: Epoch) -> bool:
        """Returns whether the objective of one epoch is worse than that of another."""
        name = self.search.objective.name
        new, old = (float(row.as_row()[name]) for row in (epoch, best))
        return new < old if self.search.objective.is_max else new > old

    def _choose_seed(self, proposal: Proposal) -> int | None:
        """Chooses the own seed of a trial; a resumed trial keeps its seed."""
        if not self.search.vary_seed:
            return None
        if proposal.continues is not None:
            return self._known[proposal.continues].seed
        return derive_seed(self.recipe.seed, "trial", proposal.number)

    @property
    def _fatal(self) -> tuple[type[ToolkitError], ...]:
        """Errors that every further trial would raise too."""
        base = ("model.base", "model.weights", "model.arguments")
        if any(field.startswith(base) for field in self.space):
            return (OutputError,)
        return OutputError, WeightsError

    @contextlib.contextmanager
    def _outliving(self, errors: list[str], *fatal: type[ToolkitError]) -> Iterator[None]:
        """Notes why training failed and continues the search, unless the failure is fatal."""
        try:
            yield
        except fatal:
            raise
        except NonFiniteError as failure:
            errors.append(str(failure))
        except ToolkitError as failure:
            errors.append(str(failure))
            self._trainers.clear()  # a trainer that failed a check must not affect later trials
            self._paused.clear()
        except (
            Exception
        ) as failure:  # a trial may run out of memory, or hit a bug; the search continues
            errors.append(f"{type(failure).__name__}: {failure}")
            self._trainers.clear()
            self._paused.clear()

    def _keep(self, number: int, score: float, paused: Paused | PausedFolds) -> None:
        """Keeps a paused trial; the worst trials, which will hardly resume, are dropped for it."""
        self._paused[number] = (score if self.search.objective.is_max else -score, paused)
        while sum(state.size for _, state in self._paused.values()) > _PAUSED_BYTES:
            del self._paused[min(self._paused, key=lambda number: self._paused[number][0])]

    def _score(self, training: Training | FoldTrainings) -> float:
        return float(training.best.as_row()[self.search.objective.name])

    def _report_work(self, event: Event) -> None:
        """Reports work that takes time and happens once, not the epochs of each trial."""
        self._watch(event)
        if event.kind in ("phase_began", "step_ended", "epoch_ended"):
            return
        if event.kind == "message":  # each trial would say the same of itself
            about = event.text.partition(":")[0]
            if about in self._said:
                return
            self._said.add(about)
        self._progress(event)


def _train(
    trainer: Trainer | FoldTrainer,
    settings: TrainingSettings,
    budget: int | None,
    paused: Paused | PausedFolds | None,
) -> Training | FoldTrainings:
    """Trains until a budget of epochs, from where it was paused."""
    if isinstance(trainer, FoldTrainer):
        resumed = paused if isinstance(paused, PausedFolds) else None
        return trainer.train(settings, pause_after=budget, paused=resumed)
    before = paused if isinstance(paused, Paused) else None
    return trainer.train(settings, pause_after=budget, paused=before)


def _name_state(training: Training | FoldTrainings | None) -> str:
    if training is None:
        return "failed"
    return "completed" if training.paused is None else "paused"
