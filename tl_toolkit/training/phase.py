"""One phase of training: its epochs, who listens to them, and its receipt."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.errors import NonFiniteError, Problem
from tl_toolkit.events import Event, Handler, message, warning
from tl_toolkit.recipe.schema import EarlyStopping, Phase, Recipe
from tl_toolkit.runs.files import write_atomically, write_json
from tl_toolkit.tasks.base import ExampleSource
from tl_toolkit.training.checkpoint import BestState, Epoch, is_better
from tl_toolkit.training.optimizers import first_rate, name_rate
from tl_toolkit.training.pausing import PhaseState, save_phase
from tl_toolkit.training.steps import Steps, wide_type
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Split, check_receipt, write_receipt


class PhaseRun:
    """One phase: its epochs, and what its receipt compares with."""

    def __init__(
        self,
        transfer: TransferModel,
        phase: Phase,
        split: Split,
        steps: Steps,
        features: Mapping[str, ExampleSource],
        digests: Mapping[tuple[str, str], str],
        *,
        sizes: Mapping[str, int],
        order_seed: int,
        batch_size: int,
        progress: Handler,
    ) -> None:
        self.split = split
        self.steps = steps
        self._transfer = transfer
        self._phase = phase
        self._features = features
        self._digests = digests
        self._sizes = sizes
        self._order_seed = order_seed
        self._batch_size = batch_size
        self._progress = progress
        self._steps_taken = 0
        self._rows: list[Epoch] = []
        self._is_over = False

    @property
    def is_paused(self) -> bool:
        """Whether epochs are left that nothing but a pause kept back."""
        return not self._is_over and len(self._rows) <= self._phase.epochs

    def save(self, names: Set[str]) -> PhaseState:
        """Returns the state after the last epoch, with the weights of these canonical names."""
        return save_phase(
            self._transfer, self.steps, names, epochs=self._rows, digests=self._digests,
            steps_taken=self._steps_taken,
        )  # fmt: skip

    def go_on(self, state: PhaseState) -> None:
        """Takes up a state: the first epoch to come is the one after its last."""
        state.restore(self._transfer, self.steps)
        self._rows = list(state.epochs)
        self._digests = state.digests
        self._steps_taken = state.steps_taken

    def epochs(
        self,
        recipe: Recipe,
        best: BestState,
        path: Path | None,
        callbacks: Sequence[keras.callbacks.Callback],
        pause_after: int | None = None,
    ) -> Iterator[Epoch]:
        """Yields the epochs, after the best state, the history and callbacks have taken them in.

        After epoch `pause_after` no more come, though they may be left.
        """
        steps = math.ceil(self._sizes["train"] / self._batch_size)
        facts = {"phase": self._phase.name, "epochs": self._phase.epochs, "steps": steps}
        self._progress(Event("phase_began", facts=facts))
        rows = self._rows
        patience = _Patience(recipe.early_stopping)
        for epoch in rows:
            patience.is_over(epoch)
        last = self._phase.epochs if pause_after is None else pause_after
        listeners = _Listeners(callbacks, self.steps, self._phase.epochs)
        for epoch in self._run(listeners, range(len(rows), min(last, self._phase.epochs) + 1)):
            rows.append(epoch)
            # Epoch 0 of a later phase is the best state itself, computed through another cut.
            is_new = epoch.epoch > 0 or best.epoch is None
            kept = is_new and is_better(epoch, best.epoch, recipe.early_stopping)
            if kept:
                best.keep(self._transfer, epoch)
            if path is not None:
                _write_history(path / "history.csv", rows)
            self._progress(Event("epoch_ended", facts=epoch.as_row(), is_best=kept))
            listeners.epoch_ended(epoch)
            yield epoch
            if patience.is_over(epoch):
                self._is_over = True
                self._progress(
                    message(
                        f"{self._phase.name}: stopped early after epoch {epoch.epoch}, no better "
                        f"{patience.rule.monitor} for {patience.rule.patience} epochs"
                    )
                )
                break
            if listeners.want_to_stop:
                self._is_over = True
                self._progress(message(f"{self._phase.name}: a callback stopped it"))
                break
        listeners.phase_ended()

    def _run(self, listeners: _Listeners, numbers: Iterable[int]) -> Iterator[Epoch]:
        """Yields epoch 0, the state as it is, and then each trained epoch."""
        for number in numbers:
            if number:
                listeners.epoch_began(number)
            loss, score = self._train_epoch(number) if number else (None, None)
            val_loss, val_score = self._evaluate(number)
            penalty = self.steps.penalty()
            rate = self.steps.learning_rate
            yield Epoch(
                self._phase.name, number, rate, loss, score, val_loss, val_score, penalty,
                score_name=self.steps.task.score,
            )  # fmt: skip

    def receipt(self, path: Path | None) -> dict[str, Any]:
        """Compares every tensor with what it was before the first step.

        Raises:
            ReceiptError: The receipt, which is written before, does not hold.
        """
        receipt = write_receipt(
            self._transfer,
            self.split,
            self._digests,
            phase=self._phase.name,
            steps=self._steps_taken,
            learning_rate=first_rate(self._phase.learning_rate),
        )
        where = f"phase {self._phase.name!r}"
        if path is not None:
            where = str(path / "receipt.json")
            write_json(path / "receipt.json", receipt)
        check_receipt(receipt, where=where)
        for text in receipt["warnings"]:
            self._progress(warning(f"{self._phase.name}: {text}"))
        return receipt

    def _train_epoch(self, number: int) -> tuple[float, float]:
        order = np.random.default_rng((self._order_seed, number)).permutation(self._sizes["train"])
        chunks = self._features["train"].chunks(order, self._batch_size, epoch=number)
        step = 0
        total = 0.0
        tally: Any = 0
        for features, targets in chunks:
            losses, tallies = self.steps.train(features, targets)
            for loss, start in zip(losses, range(0, len(targets), self._batch_size), strict=True):
                step += 1
                if not math.isfinite(loss):
                    raise _not_finite(self._phase, number, f"the loss of step {step} is {loss}")
                total += float(loss) * min(self._batch_size, len(targets) - start)
                self._progress(Event("step_ended", done=step, facts={"loss": float(loss)}))
            self._steps_taken += len(losses)
            tally = tally + tallies.sum(axis=0, dtype=wide_type(tallies))
        return total / self._sizes["train"], self.steps.task.score_of(tally)

    def _evaluate(self, number: int) -> tuple[float, float]:
        order = np.arange(self._sizes["validation"])
        # Whole compiled batches: the suffix would pad shorter ones.
        chunks = self._features["validation"].chunks(order, self.split.suffix.batch_size)
        loss, score = self.steps.evaluate(chunks)
        if not math.isfinite(loss):
            raise _not_finite(self._phase, number, f"the validation loss is {loss}")
        return loss, score


class _Listeners:
    """Keras callbacks, to whom a phase looks like a call of `fit` on its suffix.

    They are called one by one: Keras's own CallbackList swallows an interrupt that comes while it
    looks at the logs.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], steps: Steps, epochs: int
    ) -> None:
        self._callbacks = callbacks
        self._model = steps.model
        self._model.stop_training = False
        self._model.optimizer = steps.optimizer  # schedulers look for it there
        for callback in callbacks:
            callback.set_params({"epochs": epochs, "verbose": 0})
            callback.set_model(self._model)
            callback.on_train_begin({})

    @property
    def want_to_stop(self) -> bool:
        return bool(self._model.stop_training)

    def epoch_began(self, number: int) -> None:
        for callback in self._callbacks:
            callback.on_epoch_begin(number - 1, {})

    def epoch_ended(self, epoch: Epoch) -> None:
        logs = epoch.as_logs()
        for callback in self._callbacks if epoch.epoch else ():
            callback.on_epoch_end(epoch.epoch - 1, dict(logs))

    def phase_ended(self) -> None:
        for callback in self._callbacks:
            callback.on_train_end({})


class _Patience:
    """Counts the epochs of a phase without an improvement."""

    def __init__(self, rule: EarlyStopping | None) -> None:
        self.rule = rule or EarlyStopping()
        self._active = rule is not None
        self._best = -math.inf
        self._waited = 0

    def is_over(self, epoch: Epoch) -> bool:
        """Tells, after each epoch, whether to stop."""
        score = -epoch.val_loss if self.rule.monitor == "val_loss" else epoch.val_score
        if score > self._best + self.rule.min_delta:
            self._best = score
            self._waited = 0
        else:
            self._waited += 1
        return self._active and self._waited >= self.rule.patience


def _not_finite(phase: Phase, epoch: int, what: str) -> NonFiniteError:
    return NonFiniteError(
        Problem(
            where=f"phase {phase.name!r}, epoch {epoch}",
            what=what,
            expected="Training stopped there; the run holds the best weights from before.",
            hint=f"phases.{phase.name}.{name_rate(phase.learning_rate)}"
            f"={first_rate(phase.learning_rate) / 10:g}",
        )
    )


def _write_history(path: Path, rows: Sequence[Epoch]) -> None:
    """Writes epochs as CSV; floats with all their digits, so that equal files mean equal bits."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0].as_row()), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_row() for row in rows)
    write_atomically(path, buffer.getvalue())
