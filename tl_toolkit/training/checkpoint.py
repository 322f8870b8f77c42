"""Epochs: their history, which one is better, when to stop; and the best state of the weights."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.plan.training import StoppingRule
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Split


@dataclass(frozen=True)
class Epoch:
    """One row of a phase's history; epoch 0 is the state before its first step.

    Attributes:
        phase: Name of the phase.
        epoch: 0 before the first step, then 1, 2, ...
        learning_rate: The optimizer's rate.
        loss: Mean training loss without the regularization loss; None at epoch 0.
        score: The task's score on training images, as accuracy or R2: at most 1, and not always
            above 0; None at epoch 0.
        val_loss: Validation loss without the regularization loss, so that phases can be compared:
            what trains, and with it what is regularized, differs between them.
        val_score: The score on validation images.
        regularization_loss: L1, L2 and L2-SP loss of the trainable weights, which their gradients
            include; 0 without any.
        score_name: What the task calls its score.
        mixture: Part of the tuned weights, above 0 and below 1, in a mixture with those from
            before; None where no weights are mixed.
    """

    phase: str
    epoch: int
    learning_rate: float
    loss: float | None
    score: float | None
    val_loss: float
    val_score: float
    regularization_loss: float = 0.0
    score_name: str = "accuracy"
    mixture: float | None = None

    def as_row(self) -> dict[str, Any]:
        """Returns the columns of history.csv, in order; scores by the task's name for them."""
        names = {"score": self.score_name, "val_score": f"val_{self.score_name}"}
        row = {names.get(column, column): value for column, value in asdict(self).items()}
        del row["score_name"]
        if self.mixture is None:
            del row["mixture"]
        return row

    def as_logs(self) -> dict[str, Any]:
        """Returns the logs that a Keras callback receives at the end of the epoch."""
        row = self.as_row()
        hidden = ("phase", "epoch", "regularization_loss")
        return {key: row[key] for key in row if key not in hidden}


def is_better(epoch: Epoch, best: Epoch, rule: StoppingRule | None) -> bool:
    """Returns whether an epoch is better than the best epoch so far.

    The rule's monitor decides (without a rule, the score on validation images). If the monitor is
    equal, the other of score and loss decides.

    Args:
        epoch: The later epoch.
        best: The best epoch so far.
        rule: The rule with the monitor.
    """
    by_score = epoch.val_score - best.val_score
    by_loss = best.val_loss - epoch.val_loss
    if rule is not None and rule.monitor == "val_loss":
        return by_loss > 0 or (by_loss == 0 and by_score > 0)
    return by_score > 0 or (by_score == 0 and by_loss > 0)


def monitored(epoch: Epoch, rule: StoppingRule | None) -> float:
    """Returns the result of an epoch that is watched; greater is better.

    Args:
        epoch: The epoch.
        rule: The rule with the monitor; without one the score on validation images counts.
    """
    is_loss = rule is not None and rule.monitor == "val_loss"
    return -epoch.val_loss if is_loss else epoch.val_score


def replaces(
    epoch: Epoch, best: Epoch | None, rule: StoppingRule | None, *, keep_start: bool = False
) -> bool:
    """Returns whether an epoch must replace the best one so far.

    Args:
        epoch: The later epoch.
        best: The best epoch so far; None if there is none.
        rule: The rule with the monitor.
        keep_start: Let epoch 0 be the best, as of a head that was trained before.
    """
    if best is None:
        return True
    if epoch.epoch == 0:  # the best state itself, computed through another cut
        return False
    return (best.epoch == 0 and not keep_start) or is_better(epoch, best, rule)


class Patience:
    """Counts the epochs of a phase without an improvement.

    Args:
        rule: When to stop; None for never.
    """

    def __init__(self, rule: StoppingRule | None) -> None:
        self.rule = rule or StoppingRule()
        self._active = rule is not None
        self._best = -math.inf
        self._waited = 0

    def is_over(self, epoch: Epoch) -> bool:
        """Counts an epoch, and returns whether the phase must stop.

        Args:
            epoch: The latest epoch.
        """
        score = monitored(epoch, self.rule)
        if score > self._best + self.rule.min_delta:
            self._best = score
            self._waited = 0
        else:
            self._waited += 1
        return self._active and self._waited >= self.rule.patience


def write_history(path: Path, rows: Sequence[Epoch]) -> None:
    """Writes epochs as CSV; floats with all their digits, so that equal files mean equal bits.

    Args:
        path: The file.
        rows: At least one epoch.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0].as_row()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_row() for row in rows)
    write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class _Kept:
    """An epoch and its weights, in one piece: an interrupt leaves this one or the next."""

    epoch: Epoch | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class BestState:
    """Keeps the weights of the best epoch so far.

    An interrupt leaves the state as it was or as it was to become, and never a part of each.

    Args:
        path: File that holds the weights too, by canonical name, so that a killed run keeps them.
        keep_start: Let epoch 0 be the best, as of a head that was trained before.
    """

    def __init__(self, path: Path | None = None, *, keep_start: bool = False) -> None:
        self._path = path
        self._keep_start = keep_start
        self._kept = _Kept()

    @classmethod
    def of(
        cls, epoch: Epoch | None, arrays: Mapping[str, np.ndarray], *, keep_start: bool
    ) -> BestState:
        """Returns the state of weights that were kept before.

        Args:
            epoch: The epoch that they belong to, if there was any.
            arrays: The weights, by canonical name.
            keep_start: As in the class.
        """
        state = cls(keep_start=keep_start)
        state._kept = _Kept(epoch, arrays)
        return state

    @property
    def keeps_start(self) -> bool:
        """Whether epoch 0 may be the best."""
        return self._keep_start

    @property
    def epoch(self) -> Epoch | None:
        """The epoch that the weights are from.

        Epoch 0 is kept only until one was trained, which always takes its place: a head that was
        never trained may score well by luck alone. That of a trained head may stay.
        """
        return self._kept.epoch

    def copy(self, path: Path | None = None) -> BestState:
        """Returns the state as it is now; what is kept later does not change it.

        Args:
            path: File of the copy, as in the class; it is not written yet.
        """
        state = BestState(path, keep_start=self._keep_start)
        state._kept = self._kept
        return state

    @property
    def names(self) -> set[str]:
        """Canonical names of the weights that it holds."""
        return set(self._kept.arrays)

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The weights, by canonical name."""
        return self._kept.arrays

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(array.nbytes for array in self._kept.arrays.values())

    def watch(self, transfer: TransferModel, split: Split) -> None:
        """Stores the weights that the coming phase may change, before its first step.

        Otherwise weights that only later phases train would have no best state to return to.

        Args:
            transfer: The model.
            split: The split of the phase.
        """
        changing = {id(variable) for variable in split.suffix.model.variables}
        self.watch_named(
            transfer,
            {name for _, name, variable in transfer.variables() if id(variable) in changing},
        )

    def watch_named(self, transfer: TransferModel, names: Set[str]) -> None:
        """Stores the current weights of these names, unless the state holds them already.

        Args:
            transfer: The model.
            names: Canonical names.
        """
        held = self._kept.arrays
        new = read_weights(transfer, names - held.keys())
        self._kept = _Kept(self._kept.epoch, {**held, **new})

    def is_beaten_by(self, epoch: Epoch, rule: StoppingRule | None) -> bool:
        """Returns whether an epoch must replace the best one.

        Args:
            epoch: An epoch whose weights the model has.
            rule: The rule with the monitor.
        """
        return replaces(epoch, self.epoch, rule, keep_start=self._keep_start)

    def keep(self, transfer: TransferModel, epoch: Epoch) -> None:
        """Stores the current weights as the best ones.

        Args:
            transfer: The model.
            epoch: The epoch that they belong to.
        """
        self._kept = _Kept(epoch, read_weights(transfer, self.names))
        if self._path is not None:
            buffer = io.BytesIO()
            named: Any = self._kept.arrays  # NumPy types every keyword as its one option
            np.savez(buffer, **named)
            write_atomically(self._path, buffer.getvalue())

    def restore(self, transfer: TransferModel) -> None:
        """Restores the best weights.

        Args:
            transfer: The model.

        Raises:
            KeyboardInterrupt: One came meanwhile; the weights are back all the same.
        """
        try:
            assign_weights(transfer, self._kept.arrays)
        except KeyboardInterrupt:  # the model is saved after it
            assign_weights(transfer, self._kept.arrays)
            raise


def read_weights(transfer: TransferModel, names: Set[str]) -> dict[str, np.ndarray]:
    """Returns weights and moving statistics of a model.

    Args:
        transfer: The model.
        names: Their canonical names.
    """
    return {name: variable.numpy() for _, name, variable in transfer.variables() if name in names}


def assign_weights(transfer: TransferModel, arrays: Mapping[str, np.ndarray]) -> None:
    """Gives a model weights and moving statistics; all others stay as they are.

    Args:
        transfer: The model.
        arrays: The values, by canonical name.
    """
    for _, name, variable in transfer.variables():
        if name in arrays:
            variable.assign(arrays[name])
