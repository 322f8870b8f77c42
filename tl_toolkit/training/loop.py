"""Training in phases: each fits a suffix on prefix outputs; the best state over all is kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tl_toolkit.events import Handler, ignore
from tl_toolkit.features.source import FeatureSet, FeatureSource
from tl_toolkit.images.pipeline import Images
from tl_toolkit.recipe.schema import Phase, Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import derive_seed
from tl_toolkit.tasks.base import ExampleSource
from tl_toolkit.training.checkpoint import BestState, Epoch
from tl_toolkit.training.compiled import CompiledPhases, what_trains
from tl_toolkit.training.logs import TensorBoardLog
from tl_toolkit.training.optimizers import describe_rate
from tl_toolkit.training.pausing import PhaseState, random_streams
from tl_toolkit.training.phase import PhaseRun
from tl_toolkit.training.seeds import describe_phases, phase_seed
from tl_toolkit.transfer.assemble import HEAD, TransferModel
from tl_toolkit.transfer.freezing import Cut, digest_variables, find_cut, set_trainable
from tl_toolkit.transfer.heads import initialize_head, set_dropout

_SHARED_BYTES = 512 << 20
"""Weights of finished phases that are kept for recipes that begin with the same phases."""


@dataclass(frozen=True)
class Training:
    """The outcome of all phases; the model holds the best state.

    Attributes:
        best: The epoch whose weights are kept.
        history: Every epoch of every phase, epoch 0 of each included.
        receipts: One for each phase.
        weights_sha256: Of all weights and moving statistics as they are kept.
        paused: Where it goes on; None if it came to its end.
    """

    best: Epoch
    history: tuple[Epoch, ...]
    receipts: tuple[dict[str, Any], ...]
    weights_sha256: str
    paused: Paused | None = None


@dataclass(frozen=True)
class _Finished:
    """A phase that was trained to its end."""

    epochs: tuple[Epoch, ...]
    receipt: dict[str, Any]
    best: BestState


@dataclass(frozen=True)
class Paused:
    """A training that was paused in its last phase; of use to any trainer of the same model.

    Attributes:
        done: The phases before.
        best: The best state so far.
        phase: The last phase.
    """

    done: tuple[_Finished, ...]
    best: BestState
    phase: PhaseState

    @property
    def size(self) -> int:
        """Bytes that it alone keeps, roughly: phases before it may be shared."""
        return self.best.size + self.phase.size


def plan_phases(transfer: TransferModel, phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Says of each phase what it trains, before anything is trained.

    Returns:
        Batch with name, epochs, trains, parameters (trainable), total_parameters, optimizer and
        learning_rate.
    """
    total = sum(math.prod(variable.shape) for _, _, variable in transfer.variables())
    rows = []
    for phase in phases:
        units, train_batch_norm = what_trains(transfer, phase)
        trained = set_trainable(transfer, units, train_batch_norm=train_batch_norm)
        first = find_cut(transfer, units).name
        weights = [weight for part in trained for one in part.layers for weight in one.weights]
        rows.append(
            {
                "name": phase.name,
                "epochs": phase.epochs,
                "trains": "head" if first == HEAD else f"{first} to head",
                "parameters": sum(math.prod(one.shape) for one in weights if one.trainable),
                "total_parameters": total,
                "optimizer": phase.optimizer.kind,
                "learning_rate": describe_rate(phase.learning_rate),
            }
        )
    return rows


class Trainer:
    """Trains recipes on one model, one after the other; what they have in common is done once.

    Compiled steps serve every recipe that trains the same units; a phase that begins a recipe as it
    began an earlier one is not trained again. The outcome of a recipe does not depend on those
    before it.

    Args:
        compiled: The assembled model, whose weights are changed, and its steps.
        recipe: Says which features are kept. Recipes that are trained may differ from it in seed,
            phases, batch size, early stopping, and the rates of dropouts that its head has.
        images: Splits `train` and `validation`; perhaps `test`.
        progress: Is told of each step and epoch.
        ahead: Units that later recipes will train, so that their features are computed at once.
    """

    def __init__(
        self,
        compiled: CompiledPhases,
        recipe: Recipe,
        images: Mapping[str, Images],
        *,
        progress: Handler = ignore,
        ahead: Sequence[Sequence[str]] = (),
    ) -> None:
        transfer = compiled.transfer
        self._compiled = compiled
        self._transfer = transfer
        self._images = images
        self._progress = progress
        self._source = FeatureSource(transfer, recipe, images, self._progress)
        self._ahead = [find_cut(transfer, units) for units in ahead]
        self._finished: dict[str, _Finished] = {}
        transfer.task.prepare(images["train"].targets)
        self._digests = digest_variables(transfer)
        self._initial = BestState()
        self._last: PhaseRun | None = None

    def train(
        self,
        recipe: Recipe,
        folder: RunFolder | None = None,
        *,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        pause_after: int | None = None,
        paused: Paused | None = None,
    ) -> Training:
        """Trains all phases of a recipe and leaves the model in its best state.

        A phase starts from the best state so far: what an earlier phase overtrained is not carried
        on.

        Args:
            recipe: The recipe.
            folder: Receives phases/*/history.csv and receipt.json, the checkpoint and the logs.
            callbacks: See each phase as one call of `fit` on the suffix. Their `model` is the
                suffix; what they do to its weights or rate is not part of the recipe.
            pause_after: Epochs of the last phase after which it pauses, unless it is over by then.
            paused: Goes on from there, with the same recipe, bit for bit as if without a pause.

        Raises:
            CheckFailedError: Prefix and suffix are not the whole model; before the first step.
            NonFiniteError: The loss became infinite or not a number. The best state is restored
                first.
            ReceiptError: A frozen tensor moved. Likewise.
        """
        self._begin(recipe)
        best = BestState(folder.checkpoint if folder else None)
        done: list[_Finished] = []
        pause: Paused | None = None
        if paused is not None:
            best, done = paused.best.copy(), list(paused.done)
            # A trainer that never trained them goes back to them as they are now.
            self._initial.watch_named(self._transfer, best.names)
        log = TensorBoardLog(folder.tensorboard) if folder else None
        try:
            for index in range(len(done), len(recipe.phases)):
                phase, is_last = recipe.phases[index], index + 1 == len(recipe.phases)
                best.restore(self._transfer)
                path = folder.phase(index, phase.name) if folder else None
                known = self._finished.get(describe_phases(recipe, index))
                if known is not None and not folder:
                    best = known.best.copy()
                    done.append(known)
                    continue
                run = self._prepare(recipe, index, best)
                epochs: list[Epoch] = []
                if paused is not None:
                    run.go_on(paused.phase)
                    epochs += paused.phase.epochs
                until = pause_after if is_last else None
                for epoch in run.epochs(recipe, best, path, callbacks, until):
                    if log:
                        log.write(sum(len(one.epochs) for one in done) + len(epochs), epoch)
                    epochs.append(epoch)
                if until is not None and run.is_paused:
                    pause = Paused(tuple(done), best.copy(), run.save(best.names))
                    break
                done.append(_Finished(tuple(epochs), run.receipt(path), best.copy()))
                if not is_last and not folder:
                    self._share(describe_phases(recipe, index), done[-1])
        finally:
            best.restore(self._transfer)
            if log:
                log.close()
        if best.epoch is None:  # no phase took place: a validated recipe has one
            raise ValueError("A recipe needs at least one phase.")
        history = [epoch for one in done for epoch in one.epochs]
        return Training(
            best.epoch,
            tuple(history if pause is None else [*history, *pause.phase.epochs]),
            tuple(one.receipt for one in done),
            self._digest(),
            pause,
        )

    @property
    def model(self) -> keras.Model:
        """The model that is trained."""
        return self._transfer.model

    def plan(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Says of each phase of a recipe what it trains; as `plan_phases`."""
        return plan_phases(self._transfer, recipe.phases)

    def assess(self, inputs: ExampleSource, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Runs the suffix of the last phase, with the weights that were kept.

        Args:
            inputs: Features of `features`, joined with targets.
            count: Number of examples.

        Returns:
            The loss of each, float32 (count,), and its outputs, float32 (count, ...).
        """
        if self._last is None:
            raise ValueError("Nothing has been trained.")
        return self._last.steps.assess(inputs.chunks(np.arange(count), self._transfer.batch_size))

    def features(self, split: str) -> tuple[Cut, FeatureSet]:
        """Returns what the last phase was trained on, for a split: where it is cut, and the rows.

        The model holds the weights that were kept.

        Args:
            split: As `validation`.
        """
        if self._last is None:
            raise ValueError("Nothing has been trained.")
        cut = self._last.split
        return cut.cut, self._source.at(cut, self._refresh_digests(), passes=1)[split]

    def _begin(self, recipe: Recipe) -> None:
        """Takes everything back to what it was before the first recipe, with a head of its own."""
        self._initial.restore(self._transfer)
        initialize_head(self._transfer.parts[-1].layers, phase_seed(recipe.seed, "head", 0))

    def _prepare(self, recipe: Recipe, index: int, best: BestState) -> PhaseRun:
        phase = recipe.phases[index]
        split, steps = self._compiled.get(phase, recipe.data.batch_size)
        rate = phase.learning_rate
        if not isinstance(rate, float):
            count = math.ceil(len(self._images["train"]) / recipe.data.batch_size)
            rate = rate.rates(epochs=phase.epochs, steps_per_epoch=count)
        steps.restart(rate)
        set_dropout(steps.dropouts, recipe.model.classifier)
        _reset_dropout(self._transfer.model, phase_seed(recipe.seed, "dropout", index))
        self._initial.watch(self._transfer, split)
        best.watch(self._transfer, split)
        digests = self._refresh_digests()
        features = self._source.at(
            split, digests, passes=phase.epochs + 1, also=self._settled_cuts(recipe, index)
        )
        sampling = phase_seed(recipe.seed, "sampling", index)
        self._last = PhaseRun(
            self._transfer, phase, split, steps, self._join_targets(features, sampling),
            digests, order_seed=phase_seed(recipe.seed, "order", index),
            batch_size=recipe.data.batch_size, progress=self._progress,
            sizes={name: len(images) for name, images in self._images.items()},
        )  # fmt: skip
        return self._last

    def _join_targets(
        self, features: Mapping[str, FeatureSet], seed: int
    ) -> dict[str, ExampleSource]:
        task = self._transfer.task
        return {
            split: task.join_targets(
                batches,
                self._images[split].targets,
                seed=seed,
                transform=self._source.movement if split == "train" else None,
            )
            for split, batches in features.items()
        }

    def _share(self, description: str, phase: _Finished) -> None:
        """Keeps a phase for recipes that begin as this one did; the oldest ones make room."""
        self._finished[description] = phase
        while sum(one.best.size for one in self._finished.values()) > _SHARED_BYTES:
            del self._finished[next(iter(self._finished))]

    def _settled_cuts(self, recipe: Recipe, index: int) -> list[Cut]:
        """Cuts that are needed later, and that nothing before then trains a part in front of."""
        cuts = [find_cut(self._transfer, what_trains(self._transfer, phase)[0])
                for phase in recipe.phases[index:]]  # fmt: skip
        reached = cuts[0].position
        # At the beginning nothing has been trained yet, as at that of every later recipe.
        settled = [cut for cut in self._ahead if index == 0 or cut.position <= reached]
        for cut in cuts[1:]:
            if cut.position <= reached:
                settled.append(cut)
            reached = min(reached, cut.position)
        return settled

    def _refresh_digests(self) -> dict[tuple[str, str], str]:
        """Digests of all weights as they are now; only what a phase has trained can have moved."""
        self._digests |= digest_variables(self._transfer, only=self._initial.names)
        return dict(self._digests)

    def _digest(self) -> str:
        lines = (f"{name} {sha256}" for (_, name), sha256 in self._refresh_digests().items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _reset_dropout(model: keras.Model, seed: int) -> None:
    """Starts every dropout's random stream anew, so that it does not hang on earlier phases."""
    for name, state in random_streams(model):
        state.assign([derive_seed(seed, name), 0])
