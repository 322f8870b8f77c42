"""Cross-validation of a recipe: each image is predicted by a model that was trained without it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_toolkit.architectures.batches import Batch
from tl_toolkit.evaluation.splits import Measured, ModelView, TrainedView, add_intervals
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.geometry import build_resize
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import TrainingSettings, feature_values
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.resampling import Sample
from tl_toolkit.tasks.types import Evaluation, ExampleSource, SplitView, Table
from tl_toolkit.training.checkpoint import BestState
from tl_toolkit.training.folds import FoldTrainer, FoldTrainings
from tl_toolkit.training.loop import Trainer
from tl_toolkit.training.prepare import split_folds
from tl_toolkit.training.resume import StateSettings
from tl_toolkit.transfer.precision import in_precision

__all__ = ["CrossValidation", "cross_validate", "join_measured"]


@dataclass(frozen=True)
class CrossValidation:
    """The outcome of a cross-validation.

    Attributes:
        trainings: The trainings of all folds.
        metrics: `validation`, the task's metrics of all images together, each predicted by the
            model that was trained without its fold; and `folds`, with the mean and the standard
            deviation of each metric over the folds (n - 1 below the root), and those of each.
        predictions: The predictions of all images, with their folds.
        samples: The images of `validation` as its metrics are computed from them.
    """

    trainings: FoldTrainings
    metrics: dict[str, Any]
    predictions: Table
    samples: dict[str, Sample]


def cross_validate(
    plan: Plan,
    trainer: Trainer,
    task: Task,
    images: Images,
    settings: TrainingSettings,
    folder: RunFolder,
    kept: StateSettings | None = None,
) -> CrossValidation:
    """Trains and measures a model for each fold of a recipe.

    Args:
        plan: Plan of the recipe.
        trainer: A trainer on all images, which begins as those of the folds do.
        task: Its task, which fits its thresholds, if any, to the predictions of all folds.
        images: All images that train.
        settings: The phases.
        folder: Receives a folder for each fold.
        kept: How each fold keeps its state; one that it holds already goes on.
    """
    folds = split_folds(plan, task, images)
    features = FeatureSettings.from_values(feature_values(plan.recipe))
    fold_trainer = FoldTrainer(trainer, features, folds, progress=trainer.progress)
    states: list[BestState] = []
    trainings = fold_trainer.train(settings, folder, kept=kept, states=states)
    measured = [
        _Fold(fold, of_fold["validation"], state)
        for fold, of_fold, state in zip(fold_trainer.trainers, folds, states, strict=True)
    ]
    with in_precision(trainer.transfer, "float32"):  # as the models that are kept compute
        joint, examples = _measure_jointly(plan, trainer, task, images, measured)
        each = []
        for fold, training in zip(measured, trainings.trainings, strict=True):
            metrics = task.evaluate(fold.open(), fold.images.targets).metrics
            best = training.best.as_row()
            each.append({"best": best, "images": len(fold.images), **_numbers(metrics)})
    rows = [
        [example.path, "validation", example.fold, *row]
        for example, row in zip(examples, joint.predictions.rows, strict=True)
    ]
    return CrossValidation(
        trainings,
        {"validation": add_intervals(joint), "folds": _summarize(each)},
        Table(["path", "split", "fold", *joint.predictions.columns], rows),
        {"validation": joint.sample} if joint.sample else {},
    )


def _measure_jointly(
    plan: Plan, trainer: Trainer, task: Task, images: Images, folds: Sequence[_Fold]
) -> tuple[Evaluation, list[Example]]:
    """Measures all images together, each by the model of its fold, and returns their order."""
    order = [place for number in range(1, len(folds) + 1) for place, example in
             enumerate(images.examples) if example.fold == number]  # fmt: skip
    examples = [images.examples[place] for place in order]
    data = plan.recipe.data
    resize = build_resize(data.resize, data.pad_color, data.channels)
    targets = task.load_targets(examples, data.image_size, resize)
    view = _FoldedView(folds, trainer)
    task.finish(view, targets)
    return task.evaluate(view, targets), examples


def join_measured(folds: CrossValidation, run: Measured) -> Measured:
    """Returns what was measured of all folds, and of a run on its other images.

    The predictions of these are below those of the folds, without a fold.

    Args:
        folds: The cross-validation.
        run: What was measured of the model that was trained on all images.
    """
    rows = [[*row[:2], "", *row[2:]] for row in run.predictions.rows]
    columns = max(folds.predictions.columns, ["", *run.predictions.columns], key=len)
    return Measured(
        {**folds.metrics, **run.metrics},
        Table(columns, [*folds.predictions.rows, *rows]),
        {**folds.samples, **run.samples},
    )


def _numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if isinstance(value, float)}


def _summarize(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns mean and standard deviation of the metrics that all folds have."""
    measured = [name for name in each[0] if name not in ("best", "images")]
    names = [name for name in measured if all(name in fold for fold in each)]
    columns = {name: [fold[name] for fold in each] for name in names}
    return {
        "count": len(each),
        "mean": {name: statistics.fmean(values) for name, values in columns.items()},
        "deviation": {name: statistics.stdev(values) for name, values in columns.items()},
        "each": list(each),
    }


@dataclass(frozen=True)
class _Fold:
    """A fold: its trainer, its images and the weights that were trained without them.

    A base that trained in bfloat16 is measured by the images, as its stored features are rounded.
    """

    trainer: Trainer
    images: Images
    state: BestState

    def open(self) -> TrainedView | ModelView:
        """Returns the fold as its model sees it; the model gets its weights, the task its scale."""
        self.trainer.restore(self.state)
        if self.trainer.precision == "float32":
            return TrainedView(self.trainer, "validation", self.images)
        return ModelView(self.trainer.model, self.trainer.transfer.task, self.images)


class _FoldedView(SplitView):
    """The images of all folds, one fold after the other, each as its own model sees it.

    The loss of an image is that of its fold. What else is compared with the training images, as the
    mean of their targets, is compared with all of them.
    """

    def __init__(self, folds: Sequence[_Fold], trainer: Trainer) -> None:
        self._first = folds[0].open()
        self._trainer = trainer
        self.examples = tuple(example for fold in folds for example in fold.images.examples)
        self._first.examples = self.examples  # whose number it runs for
        self.model = self._first.model
        self.source = self._first.source
        self.features = _FoldedFeatures(folds)

    def assess(self, inputs: ExampleSource) -> tuple[np.ndarray, np.ndarray]:
        assessed = self._first.assess(inputs)
        self._trainer.prepare_task()
        return assessed


class _FoldedFeatures:
    """The features of all folds; while those of a fold are read, the model has its weights.

    The order that they are read in must be that of the images: the folds one after the other.
    """

    def __init__(self, folds: Sequence[_Fold]) -> None:
        self._folds = folds

    def chunks(
        self, order: np.ndarray, batch_size: int, *, epoch: int = 0
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        start = 0
        for fold in self._folds:
            count = len(fold.images)
            chosen = order[(order >= start) & (order < start + count)]
            if len(chosen):
                features = fold.open().features
                for batch, indices in features.chunks(chosen - start, batch_size, epoch=epoch):
                    yield batch, indices + start
            start += count
