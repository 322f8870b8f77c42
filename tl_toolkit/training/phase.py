"""One phase of training: its epochs, the events that report them, and its receipt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.batches import Batch, in_batches, skip_examples
from tl_toolkit.errors import NonFiniteError, Problem
from tl_toolkit.events import Event, Handler, message, warning
from tl_toolkit.plan.training import PhaseSettings, StoppingRule
from tl_toolkit.runs.files import write_json
from tl_toolkit.tasks.types import ExampleSource
from tl_toolkit.training.callbacks import PhaseCallbacks
from tl_toolkit.training.checkpoint import BestState, Epoch, Patience, monitored, write_history
from tl_toolkit.training.interrupts import holding_interrupts
from tl_toolkit.training.optimizers import first_rate, lower_rate, name_rate, scale_rate
from tl_toolkit.training.rates import PartRates
from tl_toolkit.training.resume import Checkpoints
from tl_toolkit.training.solving import solve_head
from tl_toolkit.training.state import EpochProgress, PhaseState, take_state
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Split
from tl_toolkit.transfer.receipt import check_receipt, write_receipt

__all__ = ["PhaseRun"]

_SOLVED_BATCHES = 8  # of the features that a head was solved on, evaluated in a call


class PhaseRun:
    """Runs the epochs of one phase, and writes its receipt.

    Args:
        transfer: The model.
        phase: What is trained, and how.
        split: Where the model is cut for it.
        steps: Its compiled steps, restarted.
        features: Inputs of the steps, by split.
        digests: Digests of all weights before the first step.
        sizes: Images in each split.
        order_seed: Decides the order of images in each epoch.
        order: Returns the training images of an epoch, by index, from its generator.
        batch_size: Images in a step.
        progress: Receives an event for each step and epoch.
        is_new: Whether the head has never been trained when the phase begins.
        diverged: An earlier phase that left the loss far above what it found, if any.
        judged: Loss and score of each epoch, from 0, that stand for those on validation images,
            where there are none; the phase ends with them.
        checkpoints: Receive the state of the phase when one is due; None for no files.

    Attributes:
        split: As in the arguments.
        steps: As in the arguments.
        failure: The loss that was not finite, if a callback ended the phase for it; else None.
    """

    def __init__(
        self,
        transfer: TransferModel,
        phase: PhaseSettings,
        split: Split,
        steps: Steps,
        features: Mapping[str, ExampleSource],
        digests: Mapping[tuple[str, str], str],
        *,
        sizes: Mapping[str, int],
        order_seed: int,
        order: Callable[[np.random.Generator], np.ndarray],
        batch_size: int,
        progress: Handler,
        is_new: bool,
        diverged: PhaseSettings | None = None,
        judged: Sequence[tuple[float, float]] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.split = split
        self.steps = steps
        self._transfer = transfer
        self._phase = phase
        self._features = features
        self._digests = digests
        self._sizes = sizes
        self._order_seed = order_seed
        self._sample = order
        self._batch_size = batch_size
        self._progress = progress
        self._is_new = is_new
        self._diverged = diverged
        self._judged = judged
        self._checkpoints = checkpoints
        self._progress_of_epoch: EpochProgress | None = None
        self._is_whole = True
        self._steps_taken = 0
        self._rows: list[Epoch] = []
        self._is_over = False
        self._callbacks: list[str] = []
        self.failure: NonFiniteError | None = None

    @property
    def is_paused(self) -> bool:
        """Whether epochs are left only because of a pause."""
        return not self._is_over and len(self._rows) <= self._phase.epochs

    @property
    def may_pause(self) -> bool:
        """Whether the phase could go on from its state as it is now.

        The model must be between two steps; where gradients decide the rates of an epoch, between
        two epochs.
        """
        in_epoch = self._phase.weighs_gradients and self._find_progress() is not None
        return self._is_whole and not in_epoch

    def save(self, names: Set[str]) -> PhaseState:
        """Returns the state after the last step.

        Args:
            names: Canonical names of the weights that it holds.
        """
        has_averages = self.steps.uses_averages
        self.steps.use_weights()
        state = take_state(
            self._transfer, self.steps, names, epochs=self._rows, digests=self._digests,
            steps_taken=self._steps_taken, learning_rate=first_rate(self._phase.learning_rate),
            progress=self._find_progress(),
        )  # fmt: skip
        if has_averages:
            self.steps.use_averages()
        return state

    def _find_progress(self) -> EpochProgress | None:
        """Returns how far the next epoch is; None if none of its steps was taken."""
        progress = self._progress_of_epoch
        return progress if progress and progress.epoch == len(self._rows) else None

    def resume(self, state: PhaseState) -> None:
        """Restores a state; the next step is the one after its last.

        Args:
            state: State of the same phase.
        """
        state.restore(self._transfer, self.steps)
        self._rows = list(state.epochs)
        self._digests = state.digests
        self._steps_taken = state.steps_taken
        self._progress_of_epoch = state.progress

    def epochs(
        self,
        best: BestState,
        *,
        stopping: StoppingRule | None,
        path: Path | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        pause_after: int | None = None,
    ) -> Iterator[Epoch]:
        """Yields the epochs, each after the best state, the history and callbacks are updated.

        Of an optimizer with averages the model has these after each epoch, until the next step.

        Args:
            best: Updated by each better epoch.
            stopping: When the phase ends early.
            path: Folder that receives history.csv, and rates.json where parts have own rates.
            callbacks: Receive the hooks of a call of `fit` on the whole model, without epoch 0.
            pause_after: The last epoch before a pause; later epochs may be left.
        """
        steps = math.ceil(self._sizes["train"] / self._batch_size)
        facts = {"phase": self._phase.name, "epochs": self._phase.epochs, "steps": steps}
        rates = PartRates(
            self._transfer, self._phase, self.steps, self._features["train"],
            batch_size=self._batch_size, path=path,
        )  # fmt: skip
        following = max(1, len(self._rows))
        rates.resume(following)
        if following <= self._phase.epochs:
            rates.set(following, self._order(following))
        self._progress(Event("phase_began", facts={**facts, "rates": rates.rows}))
        self._callbacks = [type(callback).__name__ for callback in callbacks]
        patience = Patience(stopping)
        is_over = [self._is_out_of_patience(patience, row) for row in self._rows]
        last = self._phase.epochs if pause_after is None else pause_after
        if self._judged is not None:
            last = min(last, len(self._judged) - 1)
        numbers = range(len(self._rows), min(last, self._phase.epochs) + 1)
        if any(is_over):
            self._is_over, numbers = True, range(0)
        if self._rows and not numbers:
            self._return_to_last_epoch()
        listeners = PhaseCallbacks(
            callbacks, self._transfer.model, self.steps.optimizer,
            epochs=self._phase.epochs, steps=steps,
        )  # fmt: skip
        with listeners:
            for number in numbers:
                self._scale_rates(stopping)
                rates.set(number, self._order(number))
                epoch = self._run_epoch(number, best, listeners)
                if epoch is None:
                    self._end_early(_describe_stop(number, best))
                    break
                with holding_interrupts():  # a state holds both or neither
                    is_better = best.is_beaten_by(epoch, stopping)
                    if is_better:
                        best.keep(self._transfer, epoch)
                    self._rows.append(epoch)
                    self._is_whole = True
                if path is not None:
                    write_history(path / "history.csv", self._rows)
                is_best = is_better and number > 0
                self._progress(Event("epoch_ended", facts=epoch.as_row(), is_best=is_best))
                if number:
                    listeners.call("on_epoch_end", number - 1, epoch.as_logs())
                yield epoch
                self._keep(best, epochs=min(number, 1))
                if self._is_out_of_patience(patience, epoch):
                    self._end_early(
                        f"stopped early after epoch {number}, no better {patience.rule.monitor} "
                        f"for {patience.rule.patience} epochs"
                    )
                elif listeners.want_to_stop:
                    self._end_early("a callback stopped it")
                if self._is_over:
                    break
            listeners.call("on_train_end", self._rows[-1].as_logs() if self._rows else None)

    def _return_to_last_epoch(self) -> None:
        """Gives a phase that is over what its last evaluation left, for the receipt."""
        if len(self._rows) > 1:
            self.steps.use_averages()
            self._evaluate(len(self._rows) - 1, None)

    def _keep(self, best: BestState, **passed: int) -> None:
        """Writes the state of the phase, if one is due."""
        if self._checkpoints is not None and self._checkpoints.is_due(**passed):
            self._checkpoints.write(best, self.save(best.names))

    def _end_early(self, reason: str) -> None:
        self._is_over = True
        self._progress(message(f"{self._phase.name}: {reason}"))

    def _is_out_of_patience(self, patience: Patience, epoch: Epoch) -> bool:
        """Returns whether to stop; patience does not count the epoch of an untrained head."""
        return self._counts(epoch) and patience.is_over(epoch)

    def _counts(self, epoch: Epoch) -> bool:
        return epoch.epoch > 0 or not self._is_new

    def _scale_rates(self, stopping: StoppingRule | None) -> None:
        """Scales the rates of the coming epoch by the results of those before it."""
        results = [monitored(epoch, stopping) for epoch in self._rows if self._counts(epoch)]
        self.steps.scale_rates(scale_rate(self._phase.learning_rate, results))

    def _run_epoch(self, number: int, best: BestState, listeners: PhaseCallbacks) -> Epoch | None:
        """Trains and evaluates an epoch; epoch 0 is evaluated without training.

        Returns None if a callback ended the phase at a loss that is not finite.
        """
        loss = score = None
        if number:
            listeners.call("on_epoch_begin", number - 1)
        if number and self._phase.solver:
            loss, score = self._solve(self._phase.solver)
        elif number:
            trained = self._train_epoch(number, best, listeners)
            if trained is None:
                return None
            loss, score = trained
            self.steps.use_averages()
        val_loss, val_score = self._evaluate(number, listeners if number else None)
        if number and (name := self.steps.find_non_finite()):
            raise self._not_finite(number, f"{name} holds a number that is not finite")
        rate = 0.0 if self._phase.solver else self.steps.learning_rate
        return Epoch(
            self._phase.name, number, rate, loss, score, val_loss, val_score,
            self.steps.regularization_loss(), score_name=self.steps.task.score,
        )  # fmt: skip

    def _solve(self, solver: str) -> tuple[float, float]:
        """Solves the head in place of steps; returns its loss and score on training images."""
        self._is_whole = False  # until the epoch is among the rows
        order, size = np.arange(self._sizes["train"]), self.split.suffix.batch_size
        chunks = list(self._features["train"].chunks(order, size, epoch=1))
        features, targets = (np.concatenate(each) for each in zip(*chunks, strict=True))
        del chunks  # as large as the features, which may take a gigabyte
        solution = solve_head(self._transfer, features, targets, solver)
        self._steps_taken += 1
        self._progress(message(f"{self._phase.name}: {solution.describe()}"))
        whole = iter([(features, targets)])
        return self.steps.evaluate(in_batches(whole, _SOLVED_BATCHES * size))

    def _order(self, number: int) -> np.ndarray:
        """Returns the order of training images in an epoch."""
        return self._sample(np.random.default_rng((self._order_seed, number)))

    def _open_steps(
        self, number: int, done: EpochProgress, *, wants_batches: bool
    ) -> Iterator[tuple[Batch, Any]]:
        """Returns the examples of an epoch that are left, for so many steps in a call as can be."""
        chunks = self._features["train"].chunks(self._order(number), self._batch_size, epoch=number)
        chunks = skip_examples(chunks, done.examples)
        most = self._checkpoints.most_steps if self._checkpoints is not None else None
        # One batch a call: the steps are the same, bit for bit.
        if wants_batches or self.steps.devices.takes_single_steps:
            most = 1
        return chunks if most is None else in_batches(chunks, most * self._batch_size)

    def _train_epoch(
        self, number: int, best: BestState, listeners: PhaseCallbacks
    ) -> tuple[float, float] | None:
        self.steps.use_weights()
        done = self._find_progress() or EpochProgress(number)
        chunks = self._open_steps(number, done, wants_batches=listeners.wants_batches)
        for features, targets in chunks:
            if listeners.wants_batches:
                listeners.call("on_train_batch_begin", done.steps)
            before = done.steps
            with holding_interrupts():  # weights and progress belong to the same step
                self._is_whole = False
                losses, score = self.steps.train(features, targets, done.score)
                done = done.add(losses, len(targets), self._batch_size, score)
                self._progress_of_epoch = done
                self._steps_taken += len(losses)
                self._is_whole = True
            finite = np.isfinite(losses)
            count = len(losses) if finite.all() else int(finite.argmin())
            for step, loss in enumerate(losses[:count], before + 1):
                self._progress(Event("step_ended", done=step, facts={"loss": float(loss)}))
            if listeners.wants_batches:
                logs = self._as_logs(done.loss / done.examples, self._score_of(done))
                listeners.call("on_train_batch_end", done.steps - 1, logs)
            if count < len(losses):
                fault = f"the loss of step {before + count + 1} is {losses[count]}"
                failure = self._not_finite(number, fault)
                if listeners.want_to_stop:  # as TerminateOnNaN asks for
                    self.failure = failure
                    return None
                raise failure
            if listeners.want_to_stop:
                break
            if not self._phase.weighs_gradients:  # else the rates of the epoch would be others
                self._keep(best, steps=len(losses))
        return done.loss / done.examples, self._score_of(done)

    def _score_of(self, done: EpochProgress) -> float:
        return self.steps.task.score_of(np.asarray(done.score))

    def _evaluate(self, number: int, listeners: PhaseCallbacks | None) -> tuple[float, float]:
        if self._judged is not None:
            return self._judged[number]
        order = np.arange(self._sizes["validation"])
        # Whole compiled batches: the suffix would pad shorter ones.
        size = self.split.suffix.batch_size
        chunks = self._features["validation"].chunks(order, size)
        if listeners is None:
            loss, score = self.steps.evaluate(chunks)
        else:
            loss, score = self._evaluate_with_hooks(chunks, size, listeners)
        loss, score = self.steps.agree(loss, score)  # else hosts might stop at different epochs
        if not math.isfinite(loss):
            raise self._not_finite(number, f"the validation loss is {loss}")
        return loss, score

    def _evaluate_with_hooks(
        self,
        chunks: Iterator[tuple[Batch, np.ndarray]],
        size: int,
        listeners: PhaseCallbacks,
    ) -> tuple[float, float]:
        """Evaluates with the hooks of `evaluate`; batches one by one if a callback wants them."""
        listeners.call("on_test_begin")
        if not listeners.wants_test_batches:
            loss, score = self.steps.evaluate(chunks)
        else:
            batch = -1

            def call_hooks() -> Iterator[tuple[Batch, np.ndarray]]:
                nonlocal batch
                for inputs in in_batches(chunks, size):
                    batch += 1
                    listeners.call("on_test_batch_begin", batch)
                    yield inputs

            loss, score = self.steps.evaluate(
                call_hooks(),
                report=lambda loss, score: listeners.call(
                    "on_test_batch_end", batch, self._as_logs(loss, score)
                ),
            )
        listeners.call("on_test_end", self._as_logs(loss, score))
        return loss, score

    def _not_finite(self, number: int, what: str) -> NonFiniteError:
        at_fault = self._diverged or self._phase
        expected = "Training stopped there; the run holds the best weights from before."
        if self._is_new and number <= 1:
            expected = "No epoch was completed before: the head is untrained."
        if self._diverged:
            expected = f"The loss grew without bound in phase {at_fault.name!r} before."
        field = name_rate(at_fault.learning_rate)
        return NonFiniteError(
            Problem(
                where=f"phase {self._phase.name!r}, epoch {number}",
                what=what,
                expected=expected,
                hint=f"{at_fault.field}.{field}={lower_rate(at_fault.learning_rate):g}",
            )
        )

    def _as_logs(self, loss: float, score: float) -> dict[str, float]:
        return {"loss": loss, self.steps.task.score: score}

    def receipt(self, path: Path | None) -> dict[str, Any]:
        """Compares every tensor with what it was before the first step.

        Args:
            path: Folder that receives receipt.json.

        Raises:
            ReceiptError: The receipt does not hold; it is written first.
        """
        receipt = write_receipt(
            self._transfer,
            self.split,
            self._digests,
            phase=self._phase.name,
            steps=self._steps_taken,
            # Nothing has to move: a head that is solved again may be what it was.
            learning_rate=0.0 if self._phase.solver else first_rate(self._phase.learning_rate),
            outputs=self.steps.last_outputs if self._steps_taken and self._judged is None else None,
            accumulate=self._phase.optimizer.accumulate,
        )
        where = f"phase {self._phase.name!r}"
        if path is not None:
            where = str(path / "receipt.json")
            write_json(path / "receipt.json", receipt)
        check_receipt(receipt, where=where, field=self._phase.field, callbacks=self._callbacks)
        for text in receipt["warnings"]:
            self._progress(warning(f"{self._phase.name}: {text}"))
        return receipt


def _describe_stop(number: int, best: BestState) -> str:
    kept = "no epoch was completed"
    if best.epoch is not None and best.epoch.epoch:
        kept = f"kept is epoch {best.epoch.epoch} of phase {best.epoch.phase}"
    return f"a callback stopped it in epoch {number}, at a loss not finite: {kept}"
