"""Trains single trials, in whichever process, and shares work between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tl_toolkit.errors import NonFiniteError, OutputError, ToolkitError, WeightsError
from tl_toolkit.events import Event, Handler, ignore
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.check import plan_trial
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import Space
from tl_toolkit.plan.training import TrainingSettings, training_settings
from tl_toolkit.recipe.search_schema import Search
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.folds import FoldTrainer, FoldTrainings, PausedFolds
from tl_toolkit.training.loop import Paused, Trainer, Training
from tl_toolkit.tuning.jobs import Job, Outcome
from tl_toolkit.tuning.trainers import FirstModel, Trainers

__all__ = ["TrialRunner"]

_PAUSED_BYTES = 1 << 30
"""Bytes of the states of paused trials that are kept; other trials are trained again, with the same
outcome."""


class TrialRunner:
    """Trains the trials of one search.

    Args:
        plan: Plan of the recipe that is searched.
        search: Its section, or the default one.
        space: The fields that trials differ in.
        folder: The search's folder.
        progress: Receives the events of building a trainer, and of other work that takes time.
        images: Images by split, at the recipe's size.
        watch: Receives every event; what it raises that is no `Exception` ends the search.
        first: As `Trainers` takes it.
    """

    def __init__(
        self,
        plan: Plan,
        search: Search,
        space: Space,
        folder: RunFolder,
        *,
        progress: Handler,
        images: Mapping[str, Images],
        watch: Handler = ignore,
        first: FirstModel | None = None,
    ) -> None:
        self._watch = watch
        self._plan = plan
        self._search = search
        self._space = space
        self._progress = progress
        self.trainers = Trainers(
            plan, space, folder,
            progress=progress, quiet=self._report_work, images=images, first=first,
        )  # fmt: skip
        self._paused: dict[int, tuple[float, Paused | PausedFolds]] = {}
        self._reported: set[str] = set()

    def run(self, job: Job) -> Outcome:
        """Trains a trial.

        Args:
            job: The trial.

        Raises:
            OutputError: The folder cannot be written.
            WeightsError: The base cannot be loaded, and the search tries no other base.
        """
        began = time.perf_counter()
        training: Training | FoldTrainings | None = None
        trainer: Trainer | FoldTrainer | None = None
        errors: list[str] = []
        widest: Mapping[str, Any] = {"trains": "", "parameters": 0}
        with self._outliving(errors, *self._fatal):
            plan = plan_trial(self._plan, job.values, seed=job.seed)
            trainer = self.trainers.find(plan)
            settings = training_settings(plan)
            widest = max(trainer.plan(settings), key=lambda phase: phase["parameters"])
            _, paused = self._paused.pop(job.continues or 0, (0.0, None))
            training = _train(trainer, settings, job.budget, paused)
        if training is not None and training.paused is not None:
            self._keep(job.number, self._score(training), training.paused)
        state = _name_state(training)
        weights = None
        is_candidate = bool(self._search.soup) and state == "completed" and job.number > 0
        if is_candidate and isinstance(trainer, Trainer):
            weights = trainer.take_state().arrays
        return Outcome(
            number=job.number,
            state=state,
            score=None if training is None else self._score(training),
            best=None if training is None else training.best.as_row(),
            weights_sha256=None if training is None else training.weights_sha256,
            seconds=round(time.perf_counter() - began, 3),
            trains=widest["trains"],
            parameters=widest["parameters"],
            error="".join(errors),
            weights=weights,
        )

    @property
    def _fatal(self) -> tuple[type[ToolkitError], ...]:
        """Errors that every further trial would raise too."""
        base = ("model.base", "model.weights", "model.arguments")
        if any(field.startswith(base) for field in self._space):
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
            self.trainers.clear()  # a trainer that failed a check must not affect later trials
            self._paused.clear()
        except (
            Exception
        ) as failure:  # a trial may run out of memory, or hit a bug; the search continues
            errors.append(f"{type(failure).__name__}: {failure}")
            self.trainers.clear()
            self._paused.clear()

    def _keep(self, number: int, score: float, paused: Paused | PausedFolds) -> None:
        """Keeps a paused trial; the worst trials, which will hardly resume, are dropped for it."""
        self._paused[number] = (score if self._search.objective.is_max else -score, paused)
        while sum(state.size for _, state in self._paused.values()) > _PAUSED_BYTES:
            del self._paused[min(self._paused, key=lambda number: self._paused[number][0])]

    def _score(self, training: Training | FoldTrainings) -> float:
        return float(training.best.as_row()[self._search.objective.name])

    def _report_work(self, event: Event) -> None:
        """Reports work that takes time and happens once, not the epochs of each trial."""
        self._watch(event)
        if event.kind in ("phase_began", "step_ended", "epoch_ended"):
            return
        if event.kind == "message":  # each trial would report the same of itself
            about = event.text.partition(":")[0]
            if about in self._reported:
                return
            self._reported.add(about)
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
