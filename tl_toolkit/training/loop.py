"""Training in phases: each fits a suffix on prefix outputs; the best state over all is kept."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.architectures.batches import as_list
from tl_toolkit.architectures.heads import OUTPUT_LAYER
from tl_toolkit.errors import RecipeError
from tl_toolkit.events import Handler, ignore, message
from tl_toolkit.features.fingerprint import Digests
from tl_toolkit.features.parts import Part
from tl_toolkit.features.source import FeatureSet, FeatureSource
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.check_phases import refuse_accumulation
from tl_toolkit.plan.training import INTERPOLATE, PhaseSettings, TrainingSettings
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import derive_seed
from tl_toolkit.tasks.types import ExampleSource, Transform
from tl_toolkit.training.changes import TaughtExamples, change_examples
from tl_toolkit.training.checkpoint import BestState, Epoch, read_weights
from tl_toolkit.training.compiled import CompiledPhases, plan_phases
from tl_toolkit.training.course import Course
from tl_toolkit.training.devices import random_streams
from tl_toolkit.training.finder import find_phase_rate, stream_batches
from tl_toolkit.training.interpolation import (
    find_ends,
    sweep_mixtures,
    widest_phase,
    write_mixture_receipt,
)
from tl_toolkit.training.optimizers import tabulate_rate
from tl_toolkit.training.outcome import (
    FinishedPhase,
    Paused,
    SharedPhases,
    Training,
    describe_start,
    describe_untrained,
    find_diverged,
    is_untrained,
    join_epochs,
)
from tl_toolkit.training.phase import PhaseRun
from tl_toolkit.training.rates import find_rate_factors
from tl_toolkit.training.resume import Checkpoints
from tl_toolkit.training.seeds import phase_seed
from tl_toolkit.training.solving import find_normalization, standardize
from tl_toolkit.training.soup import SOUP, Soup, Weights, average_greedily
from tl_toolkit.training.steps import Steps
from tl_toolkit.training.teaching import TeacherOutputs
from tl_toolkit.training.untrained import read_untrained
from tl_toolkit.transfer.assemble import HEAD, TransferModel
from tl_toolkit.transfer.carry import initialize_outputs
from tl_toolkit.transfer.freezing import Cut, Split, digest_variables, find_cut
from tl_toolkit.transfer.heads import initialize_head, set_dropout

__all__ = ["Paused", "Trainer", "Training", "plan_phases"]


class Trainer:
    """Trains one model, once or several times, and shares work between the trainings.

    All trainings of the same units share compiled steps. A phase is not trained again if an earlier
    training began with the same phases. The outcome does not depend on earlier trainings.

    Args:
        compiled: The assembled model, whose weights are changed, and its steps.
        source: Gives each phase the features of the images.
        images: Splits `train` and `validation`; perhaps `test`. Without `validation` it trains with
            `judged` alone.
        progress: Receives an event for each step and epoch.
        ahead: Units that later trainings will train, so that their features are computed at once.
    """

    def __init__(
        self,
        compiled: CompiledPhases,
        source: FeatureSource,
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
        self._source = source
        self._ahead = [find_cut(transfer, units) for units in ahead]
        self._finished = SharedPhases()
        transfer.task.prepare(images["train"].targets)
        self._digests = digest_variables(transfer)
        self._untrained = dict(self._digests)
        self._initial = BestState()
        self._is_alone = True
        self._teachers = TeacherOutputs(source, transfer.task)
        self._last: tuple[Split, Steps] | None = None  # of the last training

    def with_images(
        self, source: FeatureSource, images: Mapping[str, Images], progress: Handler
    ) -> Trainer:
        """Returns a trainer of the same model on other images.

        It begins as this one does, with the weights from before all trainings of either. Each
        changes the weights of the one model: what is read from it belongs to the last training.

        Args:
            source: Gives each phase the features of these images.
            images: Images by split.
            progress: Receives an event for each step and epoch.
        """
        trainer = copy.copy(self)
        trainer._images, trainer._source, trainer._progress = images, source, progress
        trainer._finished = SharedPhases()
        trainer._teachers = TeacherOutputs(source, self._transfer.task)
        trainer._digests = dict(self._digests)
        trainer._last = None
        self._is_alone = trainer._is_alone = False
        return trainer

    def take_state(self) -> BestState:
        """Returns the current weights of all that was ever trained, which it can restore."""
        state = BestState()
        state.watch_named(self._transfer, self._initial.names)
        return state

    def restore(self, state: BestState) -> None:
        """Gives the model the weights of a state, and the task what it takes from the images.

        Args:
            state: State of this trainer.
        """
        state.restore(self._transfer)
        self.prepare_task()

    def prepare_task(self) -> None:
        """Gives the task what it takes from this trainer's targets: another one may have its own.

        What it changes in the model are no weights that train.
        """
        self._transfer.task.prepare(self._images["train"].targets)

    def train(
        self,
        settings: TrainingSettings,
        folder: RunFolder | None = None,
        *,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        pause_after: int | None = None,
        paused: Paused | None = None,
        checkpoints: Checkpoints | None = None,
        keep_head: bool = False,
        judged: Sequence[Sequence[tuple[float, float]]] | None = None,
    ) -> Training:
        """Trains all phases and leaves the model in its best state.

        A phase starts from the best state so far, not from the end of an overtrained phase.

        Args:
            settings: Phases, seed, batch size, early stopping, and the rates of dropouts that the
                model's head has.
            folder: Receives phases/*/history.csv and receipt.json, the checkpoint and the logs.
                TensorBoard's logs hold no mixtures of weights, which are no epochs in a row.
            callbacks: Receive the hooks of each phase as of one call of `fit` on the whole model;
                changes that they make to weights or rate are not part of the recipe.
            pause_after: Number of epochs after which the last phase pauses, if it has more.
            paused: The paused training to resume, with the same settings; the result is the same,
                bit for bit, as without a pause.
            checkpoints: Receive the state of the training when one is due, at the end of the last
                phase, and at an interrupt.
            keep_head: Begin with the head as it is, trained before, and not with a new one, as
                settings with a carried head do.
            judged: For each phase, loss and score of each epoch that stand for those on validation
                images, as the means of a cross-validation.

        Raises:
            CheckFailedError: Prefix and suffix are not the whole model; before the first step.
            RecipeError: A phase ends before its accumulated gradients change anything.
            NonFiniteError: The loss became infinite or not a number, and no callback ended the
                phase for it, or no epoch was completed. The best state is restored first.
            ReceiptError: A frozen tensor changed. The best state is restored first.
        """
        if not settings.phases:
            raise ValueError("Training needs at least one phase.")
        count = math.ceil(len(self._images["train"]) / settings.batch_size)
        for phase in settings.phases:
            _refuse_accumulation(phase, count)
        is_carried = settings.carried is not None
        self._begin(settings, keep_head=keep_head or is_carried)
        if is_carried and not keep_head:
            self._initialize_outputs(settings)
        elif not keep_head and paused is None:
            self._standardize(settings)
        keep_head = keep_head or is_carried
        start = read_weights(self._transfer, self._head_names) if is_carried else {}
        course = Course(
            settings, folder, paused=paused, checkpoints=checkpoints, keep_start=is_carried
        )
        # A trainer that never trained these weights returns to their current values.
        self._initial.watch_named(self._transfer, course.best.names)
        if not course.left:
            self._reopen(settings)
        try:
            self._train_phases(course, callbacks, pause_after, judged, is_trained=keep_head)
            if course.pause is None and settings.mixtures:
                course.done += self._interpolate(settings, course.done, course.best, folder, start)
        except KeyboardInterrupt:
            course.write_interrupted()
            raise
        finally:
            course.best.restore(self._transfer)
            course.close()
        return self._conclude(course)

    def _reopen(self, settings: TrainingSettings) -> None:
        """Returns to the last phase of a training that is over, for what is measured after it."""
        split, steps = self._compiled.get(settings.phases[-1], settings.batch_size)
        set_dropout(steps.dropouts, settings.dropout)
        self._initial.watch(self._transfer, split)
        self._last = split, steps

    def _train_phases(
        self, course: Course, callbacks: Sequence[keras.callbacks.Callback],
        pause_after: int | None, judged: Sequence[Sequence[tuple[float, float]]] | None,
        *, is_trained: bool,
    ) -> None:  # fmt: skip
        """Trains the phases that are left, until a pause."""
        settings = course.settings
        for index in course.left:
            course.run = None
            course.best.restore(self._transfer)
            finished = None if course.folder else self._finished.get(settings.descriptions[index])
            if finished is not None:
                course.best = finished.best.copy()
                course.done.append(finished)
                continue
            before, state = join_epochs(course.done), course.find_state(index)
            run = self._prepare(
                settings, index, course.best, is_new=not is_trained and is_untrained(before),
                diverged=find_diverged(settings, course.done), path=course.find_path(index),
                found=state.learning_rate if state else None,
                judged=None if judged is None else judged[index], checkpoints=course.checkpoints,
            )  # fmt: skip
            epochs = course.begin(run, state)
            until = pause_after if course.is_last(index) else None
            for epoch in run.epochs(
                course.best, stopping=settings.stopping, path=course.find_path(index),
                callbacks=callbacks, pause_after=until,
            ):  # fmt: skip
                course.log(len(before) + len(epochs), epoch)
                epochs.append(epoch)
            if until is not None and run.is_paused:
                best = course.best.copy()
                course.pause = Paused(tuple(course.done), best, run.save(best.names))
                return
            finished = course.finish(run, index, epochs)
            if not course.folder and not course.is_last(index):
                self._finished.add(settings.descriptions[index], finished)

    def _conclude(self, course: Course) -> Training:
        """Returns the outcome, and reports a training that gained nothing."""
        settings, best, history = course.settings, course.best.epoch, course.epochs
        if best is None:
            raise ValueError("A phase has at least its epoch 0.")
        failures = [phase.failure for phase in course.done if phase.failure is not None]
        if failures and best.epoch == 0:
            raise failures[-1]  # a callback ended the phases, which trained nothing
        text = describe_untrained(history[0], best, settings)
        if settings.carried is not None:
            text = describe_start(best, settings)
        if text:
            self._progress(message(text))
        receipts = tuple(phase.receipt for phase in course.done)
        return Training(best, tuple(history), receipts, self._digest(), course.pause)

    @property
    def progress(self) -> Handler:
        """Receives the events of trainings."""
        return self._progress

    @property
    def splits(self) -> Set[str]:
        """Names of the splits whose features it has."""
        return self._images.keys()

    @property
    def precision(self) -> str:
        """What the layers of the base compute in while it trains: float32, bfloat16 or float16."""
        return self._compiled.precision

    @property
    def transfer(self) -> TransferModel:
        """The model that is trained, with its parts."""
        return self._transfer

    @property
    def model(self) -> keras.Model:
        """The model that is trained."""
        return self._transfer.model

    def plan(self, settings: TrainingSettings) -> list[dict[str, Any]]:
        """Describes what each phase trains, as `plan_phases` does.

        Args:
            settings: The phases.
        """
        return plan_phases(self._transfer, settings.phases)

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
        _, steps = self._last
        return steps.assess(inputs.chunks(np.arange(count), self._transfer.batch_size))

    def features(self, split: str) -> tuple[Cut, FeatureSet]:
        """Returns the cut of the last phase, and the features of a split at that cut.

        The model holds the weights that were kept.

        Args:
            split: Name of the split.
        """
        if self._last is None:
            raise ValueError("Nothing has been trained.")
        last, _ = self._last
        return last.cut, self._source.at(last, self._refresh_digests(), passes=1)[split]

    @property
    def _head_names(self) -> set[str]:
        """Canonical names of the head's weights."""
        return {name for part, name, _ in self._transfer.variables() if part.name == HEAD}

    def read_untrained(self, *, most_images: int) -> dict[str, np.ndarray] | None:
        """Returns the base's last map of each image before any training, pooled, by split.

        Args:
            most_images: Of how many images the base may run for it; None is returned for more.
        """
        return read_untrained(
            self._transfer, self._source, self._untrained, self._initial,
            sizes={name: len(images) for name, images in self._images.items()},
            most_images=most_images,
        )  # fmt: skip

    def fill(self, settings: TrainingSettings, part: Part | None = None) -> str | None:
        """Stores the features that a training reads of weights that nothing has trained yet.

        Args:
            settings: As in `train`.
            part: The one part of the images that is filled; None for all.

        Returns:
            Why they are not stored; None if they are.
        """
        self._begin(settings, keep_head=False)
        split, _ = self._compiled.get(settings.phases[0], settings.batch_size)
        self._initial.watch(self._transfer, split)
        return self._source.fill(
            split.cut, self._refresh_digests(), passes=settings.phases[0].epochs + 1,
            also=self._settled_cuts(settings, 0), part=part,
        )  # fmt: skip

    def _begin(self, settings: TrainingSettings, *, keep_head: bool) -> None:
        """Restores the state before the first training, with a new head unless it is kept."""
        self._initial.restore(self._transfer)
        if not self._is_alone:  # another trainer has prepared the task for its own images
            self.prepare_task()
            if self._transfer.task.prepare_changes_model:
                self._digests = digest_variables(self._transfer)
        if keep_head:
            return
        initialize_head(self._transfer.parts[-1].layers, phase_seed(settings.seed, "head", 0))

    def _standardize(self, settings: TrainingSettings) -> None:
        """Sets the statistics of a head that standardizes features, for the base as it is."""
        layer = find_normalization(self._transfer)
        if layer is None or settings.phases[0].solver:  # the solver sets them
            return
        standardize(layer, self._compute_inputs(layer, settings))

    def _initialize_outputs(self, settings: TrainingSettings) -> None:
        """Begins the outputs of classes that a carried head does not know."""
        if not settings.carried or settings.phases[0].solver:  # the solver finds all of them
            return
        layers = {layer.name: layer for layer in self._transfer.parts[-1].layers}
        output = layers[OUTPUT_LAYER]
        features = self._compute_inputs(output, settings)
        members = self._transfer.task.find_members(self._images["train"].targets)
        initialize_outputs(output, features, members, settings.carried)

    def _compute_inputs(self, layer: keras.layers.Layer, settings: TrainingSettings) -> np.ndarray:
        """Returns what enters a layer of the head for the training images, (n, features)."""
        probe = PhaseSettings.of_probe("ridge")
        split, _ = self._compiled.get(probe, settings.batch_size)
        self._initial.watch(self._transfer, split)
        features = self._source.at(
            split,
            self._refresh_digests(),
            passes=settings.phases[0].epochs + 1,  # the first phase will read them too
            also=self._settled_cuts(settings, 0),
        )["train"]
        order = np.arange(len(self._images["train"]))
        chunks = features.chunks(order, self._transfer.batch_size, epoch=1)
        enter = keras.Function(split.cut.tensors, layer.input)
        return np.concatenate([np.asarray(enter(batch)) for batch, _ in chunks])

    def _interpolate(
        self, settings: TrainingSettings, done: Sequence[FinishedPhase], best: BestState,
        folder: RunFolder | None, head: Mapping[str, np.ndarray],
    ) -> list[FinishedPhase]:  # fmt: skip
        """Mixes weights from before and after tuning, as a phase of its own; keeps the best."""
        initial = {**self._initial.arrays, **head}
        ends = find_ends(
            self._transfer, settings.phases, done, best, initial, is_trained=bool(head)
        )
        best.restore(self._transfer)
        if ends is None:
            return []
        phase = widest_phase(self._transfer, settings.phases)
        split, steps = self._compiled.get(phase, settings.batch_size)
        digests = self._refresh_digests()
        passes = settings.mixtures + 1
        path = folder.phase(len(settings.phases), INTERPOLATE) if folder else None
        epochs = sweep_mixtures(
            self._transfer, steps, ends, best,
            self._open_validation(split, steps, digests, passes=passes),
            count=settings.mixtures, stopping=settings.stopping, path=path,
            progress=self._progress,
        )  # fmt: skip
        best.restore(self._transfer)
        mixture = None if best.epoch is None else best.epoch.mixture
        receipt = write_mixture_receipt(
            self._transfer, split, digests, path, phase=INTERPOLATE, mixture=mixture
        )
        return [FinishedPhase(tuple(epochs), receipt, best.copy())]

    def _open_validation(
        self, split: Split, steps: Steps, digests: Digests, *, passes: int
    ) -> Callable[[], tuple[float, float]]:
        """Returns a function that evaluates the model's suffix, from features that are computed."""
        features = self._source.at(split, digests, passes=passes, only="validation")
        validation = self._join_targets(features, seed=0, transform=None)["validation"]
        order = np.arange(len(self._images["validation"]))
        return lambda: steps.evaluate(validation.chunks(order, split.suffix.batch_size))

    def average(
        self, trainings: Sequence[TrainingSettings], kept: Iterable[Weights], *,
        falls: Callable[[Epoch, Epoch], bool], path: Path | None = None,
    ) -> Soup:  # fmt: skip
        """Averages the weights that trainings kept, greedily, and leaves the model with the mean.

        The trainings began with the same head. All are compared on the same features, those before
        the first unit that any of them trained.

        Args:
            trainings: Their settings, in the order in which they are tried.
            kept: Of each its weights by canonical name, read one after the other; those that it did
                not train are as they were at first.
            falls: Whether the first epoch is worse than the second, so that a member is left out.
            path: Folder that receives receipt.json.

        Raises:
            ReceiptError: A tensor moved that none of them trained.
        """
        settings = trainings[0]
        self._begin(settings, keep_head=False)
        phases = [phase for training in trainings for phase in training.phases]
        phase = widest_phase(self._transfer, phases)
        split, steps = self._compiled.get(phase, settings.batch_size)
        set_dropout(steps.dropouts, settings.dropout)
        self._initial.watch(self._transfer, split)
        digests = self._refresh_digests()
        evaluate = self._open_validation(split, steps, digests, passes=len(trainings))

        def validate() -> Epoch:
            loss, score = evaluate()
            regularization, name = steps.regularization_loss(), steps.task.score
            return Epoch(SOUP, 1, 0.0, None, None, loss, score, regularization, score_name=name)

        soup = average_greedily(self._transfer, self._initial.arrays, kept, validate, falls)
        receipt = write_mixture_receipt(
            self._transfer, split, self._untrained, path, phase=SOUP, mixture=None
        )
        self._last = split, steps
        return replace(soup, receipt=receipt, weights_sha256=self._digest())

    def _prepare(
        self, settings: TrainingSettings, index: int, best: BestState, *, is_new: bool,
        diverged: PhaseSettings | None = None, path: Path | None = None,
        found: float | None = None,
        judged: Sequence[tuple[float, float]] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> PhaseRun:  # fmt: skip
        phase = settings.phases[index]
        split, steps = self._compiled.get(phase, settings.batch_size)
        count = math.ceil(len(self._images["train"]) / settings.batch_size)
        set_dropout(steps.dropouts, settings.dropout)
        self._initial.watch(self._transfer, split)
        best.watch(self._transfer, split)
        if phase.l2_sp is not None and steps.starting_point is not None:
            factors = {"base": phase.l2_sp.base, "head": phase.l2_sp.head}
            steps.starting_point.set(self._initial.arrays, **factors)
        digests = self._refresh_digests()
        augmentation = phase_seed(settings.seed, "augmentation", index)
        mixer = None  # a solver takes examples as they are
        if not phase.solver:
            mixer = self._source.build_mixer(phase_seed(settings.seed, "mixing", index))
        features = self._source.at(
            split, digests, passes=phase.epochs + 1, phase_seed=augmentation,
            also=self._settled_cuts(settings, index), mixer=mixer,
        )  # fmt: skip
        sources = self._join_targets(
            features,
            seed=phase_seed(settings.seed, "sampling", index),
            transform=self._source.geometric_transform(augmentation),
        )
        sources["train"] = change_examples(
            sources["train"], phase, mixer, count=len(as_list(split.cut.tensors)),
            seed=settings.seed, index=index,
        )  # fmt: skip
        if (teaching := phase.teaching) is not None and steps.distillation is not None:
            steps.distillation.set(temperature=teaching.temperature, weight=teaching.weight)
            sources["train"] = TaughtExamples(sources["train"], self._teachers.find(teaching))
        order_seed = phase_seed(settings.seed, "order", index)
        order = partial(self._transfer.task.order_epoch, self._images["train"].targets)
        if phase.finds_rate and phase.epochs:
            batches = stream_batches(sources["train"], order, settings.batch_size, seed=order_seed)
            # The test begins with the streams of the phase, whatever sampled from them before.
            _reset_dropout(self._transfer.model, phase_seed(settings.seed, "dropout", index))
            rate = found or find_phase_rate(
                self._transfer, phase, split, steps, batches, path=path, progress=self._progress
            )
            (rate,) = steps.agree(rate)
            phase = phase.with_rate(rate)
            steps.set_factors(find_rate_factors(self._transfer, phase))
        steps.restart(tabulate_rate(phase, count))
        _reset_dropout(self._transfer.model, phase_seed(settings.seed, "dropout", index))
        self._last = split, steps
        return PhaseRun(
            self._transfer, phase, split, steps, sources, digests,
            order_seed=order_seed, order=order,
            batch_size=settings.batch_size, progress=self._progress,
            sizes={name: len(images) for name, images in self._images.items()}, is_new=is_new,
            diverged=diverged, judged=judged, checkpoints=checkpoints,
        )  # fmt: skip

    def _join_targets(
        self, features: Mapping[str, FeatureSet], *, seed: int, transform: Transform | None
    ) -> dict[str, ExampleSource]:
        task = self._transfer.task
        return {
            split: task.join_targets(
                batches,
                self._images[split].targets,
                seed=seed,
                transform=transform if split == "train" else None,
            )
            for split, batches in features.items()
        }

    def _settled_cuts(self, settings: TrainingSettings, index: int) -> list[Cut]:
        """Returns the later cuts whose prefixes no phase trains before they are needed.

        Phases on mixed images need none: nothing is stored for them.
        """
        cuts = [find_cut(self._transfer, phase.units) for phase in settings.phases[index:]]
        reached = cuts[0].position
        # Before its first phase, this training and every later one has trained nothing yet.
        settled = [cut for cut in self._ahead if index == 0 or cut.position <= reached]
        for phase, cut in zip(settings.phases[index + 1 :], cuts[1:], strict=True):
            if cut.position <= reached and (phase.solver or not settings.mixes_images):
                settled.append(cut)
            reached = min(reached, cut.position)
        return settled

    def _refresh_digests(self) -> dict[tuple[str, str], str]:
        """Returns current digests of all weights; only weights of trained phases are read again."""
        self._digests |= digest_variables(self._transfer, only=self._initial.names)
        return dict(self._digests)

    def _digest(self) -> str:
        lines = (f"{name} {sha256}" for (_, name), sha256 in self._refresh_digests().items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _refuse_accumulation(phase: PhaseSettings, steps_per_epoch: int) -> None:
    """Refuses a phase that ends before its gradients change anything.

    A plan refuses it where it knows the number of training images.

    Raises:
        RecipeError: It does.
    """
    steps, needed = phase.epochs * steps_per_epoch, phase.optimizer.accumulate
    if 0 < steps < needed:
        raise RecipeError(refuse_accumulation(phase.field, steps, needed, phase.name))


def _reset_dropout(model: keras.Model, seed: int) -> None:
    """Starts every dropout's random stream anew, so that earlier phases do not change it."""
    for name, state in random_streams(model):
        state.assign([derive_seed(seed, name), 0])
