"""A recipe as a hypermodel, which any tuner of KerasTuner takes."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import keras
import keras_tuner

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.events import Handler, ignore, warning
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.geometry import Resize, build_resize
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.check import plan_trial
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import resolve_space
from tl_toolkit.plan.training import (
    PhaseSettings,
    TrainingSettings,
    feature_values,
    training_settings,
)
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runtime import numerics
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.bands import settle_bands
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.optimizers import RateTable, build_optimizer, tabulate_rate
from tl_toolkit.training.prepare import (
    assemble_model,
    build_trainer,
    load_images,
    survey_images,
)
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import set_trainable
from tl_toolkit.transfer.precision import set_precision
from tl_toolkit.tuning.hyperparameters import read_values, register_space

_ARGUMENTS = ("epochs", "initial_epoch", "callbacks", "verbose")


class RecipeHyperModel(keras_tuner.HyperModel):
    """Builds and trains the model of a recipe for the values that a tuner chooses.

    Args:
        plan: Plan of the recipe.
        progress: Receives the events of reading images and weights.
    """

    def __init__(self, plan: Plan, *, progress: Handler = ignore) -> None:
        super().__init__(name=plan.recipe.name)
        self._plan = plan
        self._progress = progress
        self._space = resolve_space(plan.recipe)
        # The manifest of a run is not needed here, but the converted images are.
        folder = Path(tempfile.mkdtemp(prefix="tltool-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        task = build_task(plan.recipe, plan.classes)
        self._manifest, images = survey_images(plan, task, RunFolder(folder), progress)
        self._plan = settle_bands(plan, self._manifest.of("train"), progress)
        self._images = {_size_of(plan.recipe): images}
        self._has_warned = False
        self._built: tuple[keras.Model, TransferModel, Plan] | None = None

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns the whole model of the chosen values, compiled as its last phase is.

        What the last phase trains is trainable, and the loss is that of its steps, with what the
        task takes from the training targets.

        Args:
            hp: KerasTuner's values.
        """
        with numerics(deterministic=self._plan.recipe.deterministic):
            return self._build_model(hp)

    def recipe(self, hp: keras_tuner.HyperParameters) -> Recipe:
        """Returns the recipe of the chosen values, which `tl.finetune` takes.

        KerasTuner holds numbers, texts and booleans alone: another value, as `{from: block3}`, has
        a readable text in `hp.values`.

        Args:
            hp: KerasTuner's values, as of `tuner.get_best_hyperparameters()`.
        """
        return self._plan_values(hp).recipe

    def _plan_values(self, hp: keras_tuner.HyperParameters) -> Plan:
        return plan_trial(self._plan, read_values(register_space(self._space, hp), self._space))

    def _build_model(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        plan = self._plan_values(hp)
        task = build_task(plan.recipe, plan.classes)
        transfer = assemble_model(plan, task, self._progress)
        task.prepare(self._find_images(plan, task)["train"].targets)
        phase = training_settings(plan).phases[-1]
        set_trainable(transfer, phase.units, train_batch_norm=phase.train_batch_norm)
        table = RateTable()
        count = ceil(len(self._manifest.of("train")) / plan.recipe.data.batch_size)
        rates = tabulate_rate(phase, count)
        if not isinstance(rates, float):
            table.set(rates)
        optimizer = build_optimizer(phase, table)
        transfer.model.compile(optimizer, **transfer.task.compile_arguments())
        self._built = transfer.model, transfer, plan
        return transfer.model

    def fit(  # noqa: D417
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """Trains all phases of the recipe and leaves the model in its best state.

        Tuners call it. Of what they, or their `search`, hand on, three arguments count: `epochs`
        and `initial_epoch`, as Hyperband sets them, choose epochs of all phases in a row (the last
        one grows if there are too few, and a schedule of the rate runs over the chosen epochs of
        its phase); above 0 `initial_epoch` means that the model has been trained up to there, and
        its head is kept. `callbacks` receive the hooks of each phase. `verbose` is taken and
        ignored. All others are refused: data, batch size and class weights are the recipe's.

        Args:
            hp: The values that `build` received.
            model: The model that `build` returned.

        Returns:
            The figures of the epoch that is kept, as in history.csv: learning_rate, loss, val_loss,
            regularization_loss, and the task's score, as accuracy and val_accuracy. Those of
            training images are missing at epoch 0, which is kept where no phase has another.

        Raises:
            RecipeError: Other arguments are given; it ends the tuner's search at once.
        """
        _refuse_arguments(args, kwargs)
        if self._built is None or self._built[0] is not model:
            raise ValueError("expected the model that build returned last")
        _, transfer, plan = self._built
        with numerics(deterministic=plan.recipe.deterministic):
            return self._train(
                transfer,
                plan,
                _Window(kwargs.get("initial_epoch") or 0, kwargs.get("epochs")),
                list(kwargs.get("callbacks") or ()),
            )

    def _train(
        self,
        transfer: TransferModel,
        plan: Plan,
        window: _Window,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> dict[str, float]:
        self._warn_of_phases(plan.recipe, window)
        images = self._find_images(plan, transfer.task)
        features = FeatureSettings.from_values(feature_values(plan.recipe))
        compiled = CompiledPhases(transfer, plan.recipe.precision)
        trainer = build_trainer(compiled, features, images)
        settings = window.cut(training_settings(plan))
        try:
            training = trainer.train(settings, callbacks=callbacks, keep_head=window.start > 0)
        finally:
            set_precision(transfer, "float32")
        best = training.best.as_row()
        results = {name: value for name, value in best.items() if isinstance(value, float)}
        _save_kept(transfer.model, callbacks, results)
        return results

    def _warn_of_phases(self, recipe: Recipe, window: _Window) -> None:
        """Warns, once, of phases that are searched but begin behind the last epoch."""
        left: list[str] = []
        before = 0
        for index, phase in enumerate(recipe.phases):
            fields = (f"phases.{phase.name}.", f"phases.{index}.")
            if window.end is not None and before >= window.end and phase.epochs:
                left += [phase.name] if any(one.startswith(fields) for one in self._space) else []
            before += phase.epochs
        if left and not self._has_warned:
            self._has_warned = True
            names = " and ".join(map(repr, left))
            self._progress(
                warning(
                    f"epochs={window.end} ends before phase {names}, which is searched: its values "
                    f"change nothing. All phases have {before} epochs in a row"
                )
            )

    def _find_images(self, plan: Plan, task: Task) -> dict[str, Images]:
        size = _size_of(plan.recipe)
        if size not in self._images:  # images of one size are kept: trials would decode them anew
            self._images = {size: load_images(plan, task, self._manifest)}
        return self._images[size]


class _RefusedError(RecipeError, keras_tuner.errors.FatalError):
    """An error that ends a tuner's search: others count as failed trials."""


def _refuse_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    names = [*(["x", "y"][: len(args)]), *(name for name in kwargs if name not in _ARGUMENTS)]
    if names:
        what = f"{', '.join(names)}: the hypermodel trains by its recipe"
        expected = f"expected none but {', '.join(_ARGUMENTS)}."
        hint = "data.train, data.validation and data.batch_size of the recipe"
        raise _RefusedError(Problem("tuner.search", what, expected, hint))


@dataclass(frozen=True)
class _Window:
    """The epochs that a tuner asks for, of all phases in a row.

    Attributes:
        start: Epochs that the model has been trained for.
        end: The last of the epochs; None for that of the last phase.
    """

    start: int
    end: int | None

    def cut(self, settings: TrainingSettings) -> TrainingSettings:
        """Returns the settings with the phases, and their epochs, that lie in the window."""
        if self.end is None and not self.start:
            return settings
        total = sum(phase.epochs for phase in settings.phases if not phase.solver)
        end = total if self.end is None else self.end
        chosen: list[tuple[PhaseSettings, int]] = []
        before = 0
        for index, phase in enumerate(settings.phases):
            is_last = index + 1 == len(settings.phases)
            if phase.solver and not is_last:  # no epoch that a tuner counts
                chosen += [] if self.start else [(phase, index)]
                continue
            after = max(end, total) if is_last else before + phase.epochs
            epochs = min(after, end) - max(before, self.start)
            if epochs > 0 or (is_last and not chosen):
                chosen.append((replace(phase, epochs=max(epochs, 0)), index))
            before = after
        return replace(
            settings,
            phases=tuple(_fit_schedules([phase for phase, _ in chosen])),
            descriptions=tuple(settings.descriptions[index] for _, index in chosen),
            mixtures=0,  # a tuner that pauses goes on from the end of an epoch
        )


def _fit_schedules(phases: Sequence[PhaseSettings]) -> Iterator[PhaseSettings]:
    """Yields phases in which the schedule of several parts runs over the epochs that they have."""
    epochs: Counter[str] = Counter()
    for phase in phases:
        epochs[phase.field] += phase.epochs
    before: Counter[str] = Counter()
    for phase in phases:
        if phase.schedule_epochs is not None:
            first, whole = before[phase.field], epochs[phase.field]
            yield replace(phase, first_epoch=first, schedule_epochs=whole)
        else:
            yield phase
        before[phase.field] += phase.epochs


def _save_kept(
    model: keras.Model,
    callbacks: Sequence[keras.callbacks.Callback],
    results: Mapping[str, float],
) -> None:
    """Saves the state that is kept where a tuner's own callback has saved the best epoch.

    Of epochs that are equal by the tuner's objective, another may be kept here; the state before
    the first epoch, from which a trial may have resumed, is none for the callback.
    """
    for callback in callbacks:
        objective, path = getattr(callback, "objective", None), getattr(callback, "filepath", None)
        if objective is None or path is None or not objective.has_value(results):
            continue
        value = objective.get_value(results)
        if not objective.better_than(callback.best_value, value):
            callback.best_value = value
            model.save_weights(path)


def _size_of(recipe: Recipe) -> tuple[tuple[int, int], Resize]:
    data = recipe.data
    return data.image_size, build_resize(data.resize, data.pad_color, data.channels)
