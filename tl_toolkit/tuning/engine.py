"""The search: proposes trials, has an executor train them, and keeps the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tl_toolkit.errors import RecipeError
from tl_toolkit.events import Event, Handler, ignore, message, warning
from tl_toolkit.features.own_code import describe_own_code
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.bases import open_own_bases
from tl_toolkit.plan.check import plan_trial
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import Space, count_trials, resolve_space
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import derive_seed, describe_arithmetic
from tl_toolkit.training.checkpoint import Epoch
from tl_toolkit.training.loop import Trainer
from tl_toolkit.training.soup import SOUP
from tl_toolkit.tuning.jobs import Executor, Job, Outcome, SerialExecutor
from tl_toolkit.tuning.journal import Journal, Trial
from tl_toolkit.tuning.oracle import Chooser, Proposal
from tl_toolkit.tuning.soup import Averaged, Candidates
from tl_toolkit.tuning.trainers import FirstModel, as_text
from tl_toolkit.tuning.trial_runner import TrialRunner


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
    """Chooses the trials of one recipe, and records what became of them.

    Trials are recorded and reported in the order of their numbers, whichever ended first, so that
    nothing depends on how many run at a time.

    Args:
        plan: Plan of a recipe; without a `search` section it has the default search.
        manifest: Its images.
        folder: The search's folder, new or of the search that is resumed.
        progress: Receives the events of trials, and of other work that takes time.
        images: The manifest's images by split, at the recipe's size.
        watch: Receives every event of trials that train in this process; what it raises that is no
            `Exception` ends the search.
        executor: Trains the trials; by default this process does, one after the other.
        first: The model of the first trial, if it is being built.
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
        executor: Executor | None = None,
        first: FirstModel | None = None,
    ) -> None:
        self.recipe = recipe = plan.recipe
        self.search = recipe.search or Search()
        self._plan = plan
        self.space: Space = resolve_space(recipe)
        self._folder = folder
        self._progress = progress
        self._journal = Journal(folder)
        self._manifest = manifest
        self._runner = TrialRunner(
            plan, self.search, self.space, folder,
            progress=progress, images=images, watch=watch, first=first,
        )  # fmt: skip
        self._executor = executor or SerialExecutor(self._runner.run)
        self._candidates: Candidates | None = None
        if self.search.soup:
            most, is_max = self.search.soup.candidates, self.search.objective.is_max
            self._candidates = Candidates(folder.candidates, most=most, is_max=is_max)
        self._known: dict[int, Trial] = {}
        self._chooser: Chooser | None = None
        self._reported: set[str] = set()

    def begin(self) -> list[Trial]:
        """Returns the trials that are done already; the oracle learns their scores.

        Raises:
            RecipeError: The search was begun with another recipe or other data, or trials that are
                done are not those that would be proposed now.
        """
        # The fields that are left out change no score.
        left_out: Any = {
            "search": True, "export": True, "baseline": True, "yardsticks": True,
            "features": {"store", "max_gb", "location", "part"},
        }  # fmt: skip
        if self.recipe.model.own_file is not None:
            left_out["model"] = {"base": {"model"}}  # the folder holds a copy of the model
        settings = self.recipe.model_dump(mode="json", by_alias=True, exclude=left_out)
        left_out_of_search = {"trials", "refit", "space", "resources"}
        if not self.search.soup:  # which older searches do not know
            left_out_of_search.add("soup")
        if self.search.batch == 1:  # likewise
            left_out_of_search.add("batch")
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
        if self._chooser is None:
            return
        started = time.perf_counter() - max((trial.elapsed for trial in done), default=0.0)
        ended: dict[int, tuple[Proposal, Trial, Outcome | None]] = {}
        number = len(done)
        try:
            for proposal, trial, outcome in self._run_trials(self._chooser, started):
                ended[trial.number] = proposal, trial, outcome
                while number + 1 in ended:
                    number += 1
                    proposal, trial, outcome = ended.pop(number)
                    self._keep_weights(trial, outcome)
                    self._known[number] = trial
                    self._chooser.report(proposal, trial.score)
                    yield trial
            self._report_exhausted(self._chooser)
        finally:
            self._chooser.close()

    def _run_trials(
        self, chooser: Chooser, started: float
    ) -> Iterator[tuple[Proposal, Trial, Outcome | None]]:
        """Yields trials as they end, and as many run at a time as the executor takes."""
        total = count_trials(self.recipe)
        running: dict[int, Proposal] = {}
        while True:
            while len(running) < self._executor.slots:
                proposal = chooser.propose()
                if proposal is None:
                    break
                facts = {"number": proposal.number, "values": proposal.values}
                self._progress(Event("trial_began", total=total, facts=facts))
                if trial := self._find_ended(proposal, started):
                    yield proposal, trial, None
                    continue
                self._executor.submit(self._as_job(proposal))
                running[proposal.number] = proposal
            if not running:
                return
            outcome = self._executor.next()
            trial = self._conclude(running[outcome.number], outcome, started)
            if self._candidates is None:  # else its weights are kept first
                self._journal.add(trial)
            yield running.pop(outcome.number), trial, outcome

    def _keep_weights(self, trial: Trial, outcome: Outcome | None) -> None:
        """Keeps the weights of a trial for a soup, in the order of the trials."""
        if self._candidates is None or outcome is None:
            return
        if outcome.weights is not None:
            self._candidates.keep(trial, outcome.weights, list(self._known.values()))
        self._journal.add(trial)

    def _as_job(self, proposal: Proposal) -> Job:
        return Job(
            proposal.number, dict(proposal.values), proposal.budget, proposal.continues,
            self._choose_seed(proposal),
        )  # fmt: skip

    def _find_ended(self, proposal: Proposal, started: float) -> Trial | None:
        """Returns a trial that need not train: no epochs are left, or it ended before a kill."""
        before = self._known.get(proposal.continues or 0)
        if before is not None and before.state == "completed":  # it stopped early: none are left
            elapsed = round(time.perf_counter() - started, 3)
            trial = replace(
                before, number=proposal.number, budget=proposal.budget, seconds=0.0,
                continues=before.number, elapsed=elapsed,
            )  # fmt: skip
            self._journal.add(trial)
            return trial
        recorded = self._journal.find(proposal.number)
        return recorded if recorded is not None and _is_of(recorded, proposal) else None

    def close(self) -> None:
        """Ends a search of which `run` has yielded nothing, or not everything."""
        if self._chooser is not None:
            self._chooser.close()

    def _report_exhausted(self, chooser: Chooser) -> None:
        """Reports that a search ended before its trials, as its space has no other values."""
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
        seeds = {-count: self.recipe.seed + count for count in range(1, self.search.refit + 1)}
        jobs = [Job(number, dict(best.values), seed=seed) for number, seed in seeds.items()]
        outcomes: dict[int, Outcome] = {}
        for outcome in _run_all(self._executor, jobs):
            outcomes[outcome.number] = outcome
        for number, seed in seeds.items():
            if error := outcomes[number].error:
                self._progress(warning(f"the winner with seed {seed} failed: {error}"))
            yield Refit(seed, outcomes[number].score)

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
            if proposal is None or not _is_of(trial, proposal):
                chooser.close()
                raise RecipeError(
                    f"{self._folder.path}: trial {trial.number} is not the one that this version "
                    f"of {self.search.library} chooses: the search cannot be resumed. Try: a new "
                    "search"
                )
            chooser.report(proposal, trial.score)
            self._known[trial.number] = trial
        return chooser

    def _conclude(self, proposal: Proposal, outcome: Outcome, started: float) -> Trial:
        """Returns the trial that an outcome makes."""
        for event in outcome.events:
            self._report_once(event)
        return Trial(
            number=proposal.number,
            values=dict(proposal.values),
            state=outcome.state,
            score=outcome.score,
            best=outcome.best,
            weights_sha256=outcome.weights_sha256,
            seconds=outcome.seconds,
            elapsed=round(time.perf_counter() - started, 3),
            trains=outcome.trains,
            parameters=outcome.parameters,
            error=outcome.error,
            budget=proposal.budget,
            continues=proposal.continues,
            seed=self._choose_seed(proposal),
        )

    def _report_once(self, event: Event) -> None:
        """Reports an event once, which several workers report of themselves."""
        if event.text not in self._reported:
            self._reported.add(event.text)
            self._progress(event)

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
        trainer = self._runner.trainers.find(plans[0])
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


def _is_of(trial: Trial, proposal: Proposal) -> bool:
    """Returns whether a recorded trial is the one that is proposed."""
    recorded = (trial.values, trial.budget, trial.continues)
    return as_text(recorded) == as_text((proposal.values, proposal.budget, proposal.continues))


def _run_all(executor: Executor, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Yields the outcomes of jobs, as they come."""
    waiting, running = list(jobs), 0
    while waiting or running:
        while waiting and running < executor.slots:
            executor.submit(waiting.pop(0))
            running += 1
        yield executor.next()
        running -= 1
