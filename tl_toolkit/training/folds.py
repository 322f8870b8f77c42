"""Cross-validation: one model, trained once for each fold on the images of the others."""

from __future__ import annotations

import contextlib
import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tl_toolkit.errors import ToolkitError
from tl_toolkit.events import Event, Handler, ignore, message
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.training import StoppingRule, TrainingSettings
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.checkpoint import BestState, Epoch, replaces
from tl_toolkit.training.loop import Trainer
from tl_toolkit.training.outcome import Paused, Training
from tl_toolkit.training.resume import Checkpoints, StateSettings, find_paused

__all__ = ["FoldTrainer", "FoldTrainings", "PausedFolds", "average_histories"]


@dataclass(frozen=True)
class PausedFolds:
    """The trainings of all folds, of which some were paused; `FoldTrainer` resumes them.

    Attributes:
        trainings: One for each fold.
    """

    trainings: tuple[Training, ...]

    @property
    def size(self) -> int:
        """Bytes that only these trainings need, roughly."""
        return sum(training.paused.size for training in self.trainings if training.paused)


@dataclass(frozen=True)
class FoldTrainings:
    """The trainings of all folds.

    Attributes:
        trainings: One for each fold, each with its own best epoch.
        stopping: The rule by which epochs are compared.
        keep_start: Whether epoch 0 may be the best, as of a head that was trained before.
    """

    trainings: tuple[Training, ...]
    stopping: StoppingRule | None = None
    keep_start: bool = False

    @cached_property
    def history(self) -> tuple[Epoch, ...]:
        """The epochs of all phases that every fold reached, with the means of their figures."""
        return average_histories([training.history for training in self.trainings])

    @cached_property
    def best(self) -> Epoch:
        """The epoch that is best in the mean of the folds."""
        best: Epoch | None = None
        for epoch in self.history:
            if replaces(epoch, best, self.stopping, keep_start=self.keep_start):
                best = epoch
        if best is None:
            raise ValueError("A phase has at least its epoch 0.")
        return best

    @property
    def weights_sha256(self) -> str:
        """SHA-256 over those of all folds."""
        lines = "\n".join(training.weights_sha256 for training in self.trainings)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def paused(self) -> PausedFolds | None:
        """The state from which they resume; None if all were completed."""
        is_paused = any(training.paused for training in self.trainings)
        return PausedFolds(self.trainings) if is_paused else None

    def judge(self, settings: TrainingSettings) -> list[list[tuple[float, float]]]:
        """Returns the mean validation loss and score of each epoch of each phase.

        Args:
            settings: The phases.
        """
        return [
            [(row.val_loss, row.val_score) for row in self.history if row.phase == phase.name]
            for phase in settings.phases
        ]


def average_histories(histories: Sequence[Sequence[Epoch]]) -> tuple[Epoch, ...]:
    """Returns the epochs that are in all histories, with the means of their figures.

    Args:
        histories: Epochs of several trainings of the same phases.
    """
    by_place = [{(epoch.phase, epoch.epoch): epoch for epoch in history} for history in histories]
    shared = [place for place in by_place[0] if all(place in epochs for epochs in by_place)]
    return tuple(_average([epochs[place] for epochs in by_place]) for place in shared)


def _average(epochs: Sequence[Epoch]) -> Epoch:
    def mean(name: str) -> Any:
        values = [getattr(epoch, name) for epoch in epochs]
        return None if None in values else statistics.fmean(values)

    names = ("loss", "score", "val_loss", "val_score", "regularization_loss")
    return replace(epochs[0], **{name: mean(name) for name in names})


@contextlib.contextmanager
def _naming(fold: str) -> Iterator[None]:
    """Names a fold in the errors of a block."""
    try:
        yield
    except ToolkitError as error:
        problems = [replace(entry, where=f"{fold}, {entry.where}") for entry in error.problems]
        raise type(error)(problems) from error


class FoldTrainer:
    """Trains one model once for each fold, and shares steps and stored features between them.

    The folds take turns as validation images, so that the frozen part runs once for each image
    where its outputs are stored.

    Args:
        trainer: A trainer of the model on all images.
        settings: How images are augmented, and which features are stored.
        folds: For each fold its images, as `split_folds` returns them.
        progress: Receives the work that takes time, and a message for each fold of a run.
    """

    def __init__(
        self,
        trainer: Trainer,
        settings: FeatureSettings,
        folds: Sequence[Mapping[str, Images]],
        *,
        progress: Handler = ignore,
    ) -> None:
        self._trainer = trainer
        self._progress = progress
        self.images = list(folds)
        self._has_said = False
        self._number = 0  # of the fold that trains
        self.trainers = [
            trainer.with_images(
                FeatureSource(trainer.transfer, settings, images, self._report),
                images,
                self._report,
            )
            for images in folds
        ]

    def train(
        self,
        settings: TrainingSettings,
        folder: RunFolder | None = None,
        *,
        pause_after: int | None = None,
        paused: PausedFolds | None = None,
        kept: StateSettings | None = None,
        states: list[BestState] | None = None,
    ) -> FoldTrainings:
        """Trains all phases on each fold.

        Args:
            settings: As in `Trainer.train`.
            folder: Receives a folder for each fold, with its phases.
            pause_after: As in `Trainer.train`.
            paused: What an earlier call was paused with.
            kept: How each fold keeps its state in its folder. One that it holds already goes on.
            states: Receives the best state of each fold.

        Raises:
            CheckFailedError: As in `Trainer.train`, and all other errors of it.
        """
        trainings: list[Training] = []
        for index, trainer in enumerate(self.trainers):
            before = paused.trainings[index] if paused else None
            if before is not None and before.paused is None:  # it ended early, before its pause
                trainings.append(before)
                continue
            self._number = index + 1
            place = RunFolder(folder.folds / str(index + 1)) if folder else None
            checkpoints = kept.open(place) if kept and place else None
            state = before.paused if before else self._read(checkpoints, settings)
            with _naming(f"fold {index + 1}"):
                training = trainer.train(
                    settings, place, pause_after=pause_after, paused=state, checkpoints=checkpoints
                )
            trainings.append(training)
            if states is not None:
                states.append(trainer.take_state())
            if folder:
                self._progress(message(self._describe(index, training.best)))
        is_carried = settings.carried is not None
        return FoldTrainings(tuple(trainings), settings.stopping, keep_start=is_carried)

    def _read(self, checkpoints: Checkpoints | None, settings: TrainingSettings) -> Paused | None:
        """Returns the state that a fold goes on from, and says what it is."""
        if checkpoints is None:
            return None
        paused, texts = find_paused(checkpoints, settings.phases)
        for text in texts:
            self._progress(message(f"fold {self._number}: {text}"))
        return paused

    def _describe(self, index: int, best: Epoch) -> str:
        return (
            f"fold {index + 1} of {len(self.trainers)}: best epoch {best.epoch} of {best.phase}, "
            f"val_{best.score_name} {best.val_score:.4f}, val_loss {best.val_loss:.4f}"
        )

    def plan(self, settings: TrainingSettings) -> list[dict[str, Any]]:
        """Describes what each phase trains, as `plan_phases` does.

        Args:
            settings: The phases.
        """
        return self._trainer.plan(settings)

    def _report(self, event: Event) -> None:
        """Passes on work that takes time, and where features come from once, not of each fold."""
        if event.kind in ("phase_began", "step_ended", "epoch_ended"):
            return
        if event.kind == "message":
            if not event.text.startswith("features:") or self._has_said:
                return
            self._has_said = True
        if event.kind == "warning":
            event = replace(event, text=f"fold {self._number}: {event.text}")
        self._progress(event)
