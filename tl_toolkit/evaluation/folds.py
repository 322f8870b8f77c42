"""Cross-validation of a recipe: each image is predicted by a model that was trained without it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tl_toolkit.architectures.batches import Batch
from tl_toolkit.evaluation.splits import Measured, TrainedView, add_intervals
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.geometry import build_resize
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import TrainingSettings, feature_values
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.resampling import Sample
from tl_toolkit.tasks.types import ExampleSource, SplitView, Table
from tl_toolkit.training.checkpoint import BestState
from tl_toolkit.training.folds import FoldTrainer, FoldTrainings
from tl_toolkit.training.loop import Trainer
from tl_toolkit.training.prepare import split_folds

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
) -> CrossValidation:
    """Trains and measures a model for each fold of a recipe.

    Args:
        plan: Plan of the recipe.
        trainer: A trainer on all images, which begins as those of the folds do.
        task: Its task, which fits its thresholds, if any, to the predictions of all folds.
        images: All images that train.
        settings: The phases.
        folder: Receives a folder for each fold.
    """
    folds = split_folds(plan, task, images)
    features = FeatureSettings.from_values(feature_values(plan.recipe))
    fold_trainer = FoldTrainer(trainer, features, folds, progress=trainer.progress)
    states: list[BestState] = []
    trainings = fold_trainer.train(settings, folder, states=states)
    measured = [
        _Fold(fold, of_fold["validation"], state)
        for fold, of_fold, state in zip(fold_trainer.trainers, folds, states, strict=True)
    ]
    order = [place for number in range(1, len(folds) + 1) for place, example in
             enumerate(images.examples) if example.fold == number]  # fmt: skip
    examples = [images.examples[place] for place in order]
    data = plan.recipe.data
    resize = build_resize(data.resize, data.pad_color)
    targets = task.load_targets(examples, data.image_size, resize)
    view = _FoldedView(measured)
    task.finish(view, targets)
    evaluation = task.evaluate(view, targets)
    each = []
    for fold, training in zip(measured, trainings.trainings, strict=True):
        metrics = task.evaluate(fold.open(), fold.images.targets).metrics
        best = training.best.as_row()
        each.append({"best": best, "images": len(fold.images), **_numbers(metrics)})
    rows = [
        [example.path, "validation", example.fold, *row]
        for example, row in zip(examples, evaluation.predictions.rows, strict=True)
    ]
    return CrossValidation(
        trainings,
        {"validation": add_intervals(evaluation), "folds": _summarize(each)},
        Table(["path", "split", "fold", *evaluation.predictions.columns], rows),
        {"validation": evaluation.sample} if evaluation.sample else {},
    )


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
    """A fold: its trainer, its images and the weights that were trained without them."""

    trainer: Trainer
    images: Images
    state: BestState

    def open(self) -> TrainedView:
        """Returns the fold as its model sees it; the model gets its weights."""
        self.trainer.restore(self.state)
        return TrainedView(self.trainer, "validation", self.images)


class _FoldedView(SplitView):
    """The images of all folds, one fold after the other, each as its own model sees it."""

    def __init__(self, folds: Sequence[_Fold]) -> None:
        first = folds[0].open()
        self._folds = folds
        self._assess = folds[0].trainer.assess
        self.examples = [example for fold in folds for example in fold.images.examples]
        self.model = first.model
        self.source = first.source
        self.features = _FoldedFeatures(folds)

    def assess(self, inputs: ExampleSource) -> tuple[np.ndarray, np.ndarray]:
        return self._assess(inputs, len(self.examples))


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
