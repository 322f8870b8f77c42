"""A training as it goes: what is done, what is best, and the files that keep both."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.plan.training import TrainingSettings
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.checkpoint import BestState, Epoch
from tl_toolkit.training.logs import TensorBoardLog
from tl_toolkit.training.outcome import FinishedPhase, Paused, join_epochs
from tl_toolkit.training.phase import PhaseRun
from tl_toolkit.training.resume import Checkpoints
from tl_toolkit.training.state import PhaseState

__all__ = ["Course"]


class Course:
    """The phases of one training, from the first or from where it was paused.

    Args:
        settings: All phases.
        folder: Receives the best state and the logs; None for no files.
        paused: What the training goes on from; None from the beginning.
        checkpoints: Receive states; None for none.
        keep_start: As in `BestState`.

    Attributes:
        settings: As in the arguments.
        folder: As in the arguments.
        checkpoints: As in the arguments.
        best: The best state so far.
        done: The finished phases.
        run: The phase that trains; None while one is prepared.
        pause: Where the training was paused, if it was.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        folder: RunFolder | None,
        *,
        paused: Paused | None,
        checkpoints: Checkpoints | None,
        keep_start: bool,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.checkpoints = checkpoints
        self._paused = paused
        path = folder.checkpoint if folder else None
        self.best = BestState(path, keep_start=keep_start)
        self.done: list[FinishedPhase] = []
        if paused is not None:
            self.best, self.done = paused.best.copy(path), list(paused.done)
            if checkpoints is not None:
                checkpoints.done = paused.done
        self.run: PhaseRun | None = None
        self.pause: Paused | None = None
        before = paused.epochs if paused else ()
        self._log = TensorBoardLog(folder.tensorboard, before) if folder else None

    @property
    def left(self) -> range:
        """Places of the phases that are not finished."""
        return range(len(self.done), len(self.settings.phases))

    @property
    def epochs(self) -> list[Epoch]:
        """All epochs of the phases that are finished, and of one that was paused."""
        return self.pause.epochs if self.pause else join_epochs(self.done)

    def is_last(self, index: int) -> bool:
        """Returns whether no phase comes after one.

        Args:
            index: Its place.
        """
        return index + 1 == len(self.settings.phases)

    def find_path(self, index: int) -> Path | None:
        """Returns the folder of a phase.

        Args:
            index: Its place.
        """
        return self.folder.phase(index, self.settings.phases[index].name) if self.folder else None

    def find_state(self, index: int) -> PhaseState | None:
        """Returns the state in which a phase was paused, None for one that begins.

        Args:
            index: Its place.
        """
        paused = self._paused
        return paused.phase if paused is not None and index == len(paused.done) else None

    def begin(self, run: PhaseRun, state: PhaseState | None) -> list[Epoch]:
        """Takes a phase that trains from now on, and returns its epochs so far.

        Args:
            run: The phase, prepared.
            state: Where it was paused, if it was.
        """
        if state is not None:
            run.resume(state)
        if self.checkpoints is not None:
            self.checkpoints.done = tuple(self.done)
        self.run = run
        return list(state.epochs) if state is not None else []

    def log(self, number: int, epoch: Epoch) -> None:
        """Adds an epoch to the logs.

        Args:
            number: Its number among all epochs of all phases.
            epoch: The epoch.
        """
        if self._log:
            self._log.write(number, epoch)

    def finish(self, run: PhaseRun, index: int, epochs: list[Epoch]) -> FinishedPhase:
        """Writes the receipt of a phase that is over, and keeps it among the finished ones.

        Args:
            run: The phase.
            index: Its place.
            epochs: Its epochs.
        """
        checkpoints = self.checkpoints if self.is_last(index) else None
        if checkpoints is not None and checkpoints.may_lengthen:
            checkpoints.write(self.best, run.save(self.best.names))
        receipt = run.receipt(self.find_path(index))
        self.done.append(FinishedPhase(tuple(epochs), receipt, self.best.copy(), run.failure))
        if checkpoints is not None and not checkpoints.may_lengthen:
            checkpoints.done = tuple(self.done)
            checkpoints.write_outcome(self.best)
        return self.done[-1]

    def write_interrupted(self) -> None:
        """Writes the state of a training that is interrupted in a phase, or between two of them."""
        if self.checkpoints is None or not self.left:  # the state at the end was written
            return
        is_new = len(self.done) > len(self.checkpoints.done)
        if not is_new and (self.run is None or not self.run.may_pause):
            return  # the last state is the newest that is whole
        self.checkpoints.done = tuple(self.done)
        phase = None if is_new or self.run is None else self.run.save(self.best.names)
        self.checkpoints.write(self.best, phase)

    def close(self) -> None:
        """Closes the logs."""
        if self._log:
            self._log.close()
