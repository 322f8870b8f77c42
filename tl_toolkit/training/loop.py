"""Training in phases: each fits a suffix on prefix outputs; the best state over all is kept."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.catalog import resolve_unfreeze
from tl_toolkit.data.augment import build_augment
from tl_toolkit.data.pipeline import Images
from tl_toolkit.errors import NonFiniteError, Problem
from tl_toolkit.features import Augmentation, LiveFeatures
from tl_toolkit.progress import Progress
from tl_toolkit.recipe.schema import Augment, EarlyStopping, Phase, Recipe
from tl_toolkit.runs import RunFolder, write_atomically, write_json
from tl_toolkit.runtime import derive_seed
from tl_toolkit.training.checkpoint import BestState, Epoch, is_better
from tl_toolkit.training.logs import TensorBoardLog
from tl_toolkit.training.optimizers import build_optimizer
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.batches import PREFIX_BATCH
from tl_toolkit.transfer.freezing import (
    Split,
    check_receipt,
    check_whole,
    digest_variables,
    split_at,
    write_receipt,
)


@dataclass(frozen=True)
class Training:
    """The outcome of all phases; the model holds the best state.

    Attributes:
        best: The epoch whose weights are kept.
        history: Every epoch of every phase, epoch 0 of each included.
        receipts: One for each phase.
    """

    best: Epoch
    history: tuple[Epoch, ...]
    receipts: tuple[dict[str, Any], ...]


def plan_phases(transfer: TransferModel, phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Says of each phase what it trains, before anything is trained.

    Returns:
        Rows with name, epochs, trains, parameters (trainable), total_parameters, optimizer and
        learning_rate.
    """
    total = sum(math.prod(variable.shape) for _, _, variable in transfer.variables())
    rows = []
    for phase in phases:
        split = _split_for(transfer, phase)
        rows.append(
            {
                "name": phase.name,
                "epochs": phase.epochs,
                "trains": "head" if split.cut == "head" else f"{split.cut} to head",
                "parameters": sum(math.prod(variable.shape) for variable in split.trainable),
                "total_parameters": total,
                "optimizer": phase.optimizer,
                "learning_rate": phase.learning_rate,
            }
        )
    return rows


def train_phases(
    transfer: TransferModel,
    recipe: Recipe,
    images: Mapping[str, Images],
    folder: RunFolder,
    *,
    progress: Progress | None = None,
) -> Training:
    """Trains all phases of a recipe and leaves the model in its best state.

    A phase starts from the best state so far: what an earlier phase overtrained is not carried on.

    Args:
        transfer: The assembled model; its weights are changed.
        recipe: The recipe.
        images: Splits `train` and `validation`.
        folder: Receives phases/*/history.csv and receipt.json, the checkpoint and the logs.
        progress: Is told of each step and epoch.

    Raises:
        CheckFailedError: Prefix and suffix are not the whole model; before the first step.
        NonFiniteError: The loss became infinite or not a number. The best state is restored first.
        ReceiptError: A frozen tensor moved. Likewise.
    """
    best = BestState(folder.checkpoint)
    history: list[Epoch] = []
    receipts = []
    log = TensorBoardLog(folder.tensorboard)
    sample = images["validation"].load(np.arange(min(PREFIX_BATCH, len(images["validation"]))))
    try:
        for index, phase in enumerate(recipe.phases):
            best.restore(transfer)
            run = _PhaseRun(transfer, recipe, phase, images, progress or Progress())
            check_whole(transfer, run.split, sample)
            best.watch(transfer, run.split)
            path = folder.phase(index, phase.name)
            for epoch in _run_epochs(run, transfer, recipe, best, path):
                log.write(len(history), epoch)
                history.append(epoch)
            receipts.append(run.receipt())
            write_json(path / "receipt.json", receipts[-1])
            check_receipt(receipts[-1], where=str(path / "receipt.json"))
            for warning in receipts[-1]["warnings"]:
                run.progress.said(f"{phase.name}: {warning}")
    finally:
        best.restore(transfer)
        log.close()
    if best.epoch is None:  # no phase took place: a validated recipe has one
        raise ValueError("A recipe needs at least one phase.")
    return Training(best.epoch, tuple(history), tuple(receipts))


def _run_epochs(
    run: _PhaseRun, transfer: TransferModel, recipe: Recipe, best: BestState, path: Path
) -> Iterator[Epoch]:
    """Yields the epochs of a phase, after the best state and the history have taken them in."""
    rows: list[Epoch] = []
    for epoch in run.epochs(recipe.early_stopping):
        rows.append(epoch)
        # Epoch 0 of a later phase is the best state itself, computed through another cut.
        is_new = epoch.epoch > 0 or best.epoch is None
        kept = is_new and is_better(epoch, best.epoch, recipe.early_stopping)
        if kept:
            best.keep(transfer, epoch)
        _write_history(path / "history.csv", rows)
        run.progress.epoch_ended(epoch.as_row(), best=kept)
        yield epoch


class _PhaseRun:
    """One phase: its split, its steps, and what its receipt compares with."""

    def __init__(
        self,
        transfer: TransferModel,
        recipe: Recipe,
        phase: Phase,
        images: Mapping[str, Images],
        progress: Progress,
    ) -> None:
        self.phase = phase
        self.progress = progress
        self.split = _split_for(transfer, phase)
        self._transfer = transfer
        self._batch_size = recipe.data.batch_size
        # Seeds belong to phases, so that a phase is the same whatever stands behind it.
        self._seed = derive_seed(recipe.seed, phase.name)
        _reset_dropout(transfer.model, self._seed)
        self._digests = digest_variables(transfer)
        self._steps = Steps(self.split, build_optimizer(phase))
        self._train = LiveFeatures(images["train"], self.split.prefix)
        self._validation = LiveFeatures(images["validation"], self.split.prefix)
        self._sizes = (len(images["train"]), len(images["validation"]))
        self._augment = _Augmentations(recipe.augment, recipe.seed, images["train"])
        self._steps_taken = 0

    def epochs(self, rule: EarlyStopping | None) -> Iterator[Epoch]:
        """Yields epoch 0, the state as it is, and then each trained epoch until the last."""
        steps = math.ceil(self._sizes[0] / self._batch_size)
        self.progress.phase_began(self.phase.name, self.phase.epochs, steps)
        patience = _Patience(rule)
        for number in range(self.phase.epochs + 1):
            loss, accuracy = self._train_epoch(number) if number else (None, None)
            val_loss, val_accuracy = self._evaluate(number)
            rate = self.phase.learning_rate
            epoch = Epoch(self.phase.name, number, rate, loss, accuracy, val_loss, val_accuracy)
            yield epoch
            if patience.is_over(epoch):
                self.progress.said(
                    f"{self.phase.name}: stopped early after epoch {number}, no better "
                    f"{patience.rule.monitor} for {patience.rule.patience} epochs"
                )
                return

    def receipt(self) -> dict[str, Any]:
        """Compares every tensor with what it was before the first step."""
        return write_receipt(
            self._transfer,
            self.split,
            self._digests,
            phase=self.phase.name,
            steps=self._steps_taken,
            learning_rate=self.phase.learning_rate,
        )

    def _train_epoch(self, number: int) -> tuple[float, float]:
        order = np.random.default_rng((self._seed, number)).permutation(self._sizes[0])
        batches = self._train.batches(
            order, self._batch_size, augment=self._augment.for_epoch(number)
        )
        total = correct = 0.0
        for step, (features, labels) in enumerate(batches, start=1):
            loss, hits = self._steps.train(features, labels)
            if not math.isfinite(loss):
                raise _not_finite(self.phase, number, f"the loss of step {step} is {loss}")
            self._steps_taken += 1
            total += loss * len(labels)
            correct += hits
            self.progress.stepped(step, loss)
        return total / self._sizes[0], correct / self._sizes[0]

    def _evaluate(self, number: int) -> tuple[float, float]:
        order = np.arange(self._sizes[1])
        # Whole compiled batches: the suffix would pad shorter ones.
        loss, accuracy = self._steps.evaluate(self._validation.batches(order, PREFIX_BATCH))
        if not math.isfinite(loss):
            raise _not_finite(self.phase, number, f"the validation loss is {loss}")
        return loss, accuracy


class _Patience:
    """Counts the epochs of a phase without an improvement."""

    def __init__(self, rule: EarlyStopping | None) -> None:
        self.rule = rule or EarlyStopping()
        self._active = rule is not None
        self._best = -math.inf
        self._waited = 0

    def is_over(self, epoch: Epoch) -> bool:
        """Tells, after each epoch, whether to stop."""
        score = epoch.val_accuracy if self.rule.monitor == "val_accuracy" else -epoch.val_loss
        if score > self._best + self.rule.min_delta:
            self._best = score
            self._waited = 0
        else:
            self._waited += 1
        return self._active and self._waited >= self.rule.patience


class _Augmentations:
    """The augmentation of each epoch, keyed by image and not by position."""

    def __init__(self, augment: Augment | None, seed: int, images: Images) -> None:
        self._run = build_augment(augment) if augment is not None else None
        self._seed = seed
        self._keys = images.keys

    def for_epoch(self, epoch: int) -> Augmentation | None:
        """Returns the function for LiveFeatures, or None when nothing is augmented."""
        if self._run is None:
            return None
        run = self._run
        return lambda pixels, indices: run(pixels, self._seed, epoch, self._keys[indices])


def _split_for(transfer: TransferModel, phase: Phase) -> Split:
    units = resolve_unfreeze(transfer.architecture, phase.unfreeze)
    return split_at(transfer, units, train_batch_norm=phase.batch_norm == "train")


def _reset_dropout(model: keras.Model, seed: int) -> None:
    """Starts every dropout's random stream anew, so that it does not hang on earlier phases."""
    for index, layer in enumerate(model.layers):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            generator.state.assign([derive_seed(seed, index), 0])


def _not_finite(phase: Phase, epoch: int, what: str) -> NonFiniteError:
    return NonFiniteError(
        Problem(
            where=f"phase {phase.name!r}, epoch {epoch}",
            what=what,
            expected="Training stopped there; the run holds the best weights from before.",
            hint=f"phases.{phase.name}.learning_rate={phase.learning_rate / 10:g}",
        )
    )


def _write_history(path: Path, rows: Sequence[Epoch]) -> None:
    """Writes epochs as CSV; floats with all their digits, so that equal files mean equal bits."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0].as_row()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_row() for row in rows)
    write_atomically(path, buffer.getvalue())
