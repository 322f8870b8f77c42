"""A recipe as a hypermodel, which any tuner of KerasTuner takes."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from math import ceil
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf

from tl_toolkit.events import Progress
from tl_toolkit.plan.space import resolve_space, trial_recipe
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task, answers_pixels
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.optimizers import RateTable, build_optimizer
from tl_toolkit.training.prepare import (
    assemble_model,
    build_trainer,
    load_images,
    survey_images,
)
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import set_trainable
from tl_toolkit.tuning.oracle import read_values, register_space


class RecipeHyperModel(keras_tuner.HyperModel):  # type: ignore[misc]
    """Builds and trains the model of a recipe for the values that a tuner chooses.

    Args:
        recipe: The recipe.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(name=recipe.name)
        self._recipe = recipe
        self._space = resolve_space(recipe)
        # The manifest that a run would keep is of no use here; images that were converted are.
        folder = Path(tempfile.mkdtemp(prefix="tltool-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._manifest, images = survey_images(recipe, RunFolder(folder), Progress())
        self._images = {_size_of(recipe): images}
        self._built: tuple[keras.Model, TransferModel, Recipe] | None = None

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns the whole model of the chosen values, compiled as its last phase is.

        What the last phase trains is trainable, and the loss is that of its steps.

        Args:
            hp: KerasTuner's values.
        """
        values = read_values(register_space(self._space, hp), self._space)
        recipe = trial_recipe(self._recipe, values)
        transfer = assemble_model(recipe, self._manifest.classes, Progress())
        phase = training_settings(recipe).phases[-1]
        set_trainable(transfer, phase.units, train_batch_norm=phase.train_batch_norm)
        table = RateTable()
        if not isinstance(phase.learning_rate, float):
            count = ceil(len(self._manifest.of("train")) / recipe.data.batch_size)
            table.set(phase.learning_rate.rates(epochs=phase.epochs, steps_per_epoch=count))
        transfer.model.compile(build_optimizer(phase, table), **_compile_arguments(transfer.task))
        self._built = transfer.model, transfer, recipe
        return transfer.model

    def fit(  # noqa: D417
        self, hp: keras_tuner.HyperParameters, model: keras.Model, *args: Any, **kwargs: Any
    ) -> dict[str, float]:
        """Trains all phases of the recipe and leaves the model in its best state.

        Args:
            hp: The values that `build` was given.
            model: What `build` returned.

        Returns:
            The row of the epoch that is kept: loss, val_loss and the task's score, as accuracy and
            val_accuracy.
        """
        if self._built is None or self._built[0] is not model:
            raise ValueError("expected the model that build returned last")
        _, transfer, recipe = self._built
        size = _size_of(recipe)
        if size not in self._images:  # those of one size are kept: trials would decode them anew
            self._images = {size: load_images(recipe, self._manifest)}
        images = self._images[size]
        trainer = build_trainer(CompiledPhases(transfer), recipe, images)
        best = trainer.train(training_settings(recipe)).best.as_row()
        return {name: value for name, value in best.items() if isinstance(value, float)}


def _size_of(recipe: Recipe) -> tuple[tuple[int, int], str]:
    return recipe.data.image_size, recipe.data.resize


def _compile_arguments(task: Task) -> dict[str, Any]:
    """Returns loss and metrics as Keras compiles them; a model of pixels has a loss alone."""
    if answers_pixels(task):
        return {"loss": _PixelLoss(task)}
    loss = "binary_crossentropy" if task.units == 1 else "sparse_categorical_crossentropy"
    return {"loss": loss, "metrics": ["accuracy"]}


class _PixelLoss(keras.losses.Loss):  # type: ignore[misc]
    """The loss of a task: of each image, over its pixels."""

    def __init__(self, task: Task) -> None:
        super().__init__(name=f"{task.name}_loss")
        self._task = task

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        # Keras has cast them to the type of the outputs.
        return self._task.compare(y_pred, tf.cast(y_true, self._task.targets.dtype))[0]
