"""How well a base tells the images of a recipe apart, before any training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from tl_toolkit.architectures.costs import count_graph
from tl_toolkit.events import Handler
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import feature_values
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.resampling import find_intervals
from tl_toolkit.training.untrained import pool_features
from tl_toolkit.transfer.assemble import HEAD, TransferModel
from tl_toolkit.transfer.freezing import digest_variables, split_at

__all__ = ["BaseCost", "Judged", "Score", "judge_base", "measure_cost", "predict_held_out"]

FOLDS = 5
_PASSES = 10  # for which features are worth storing: a fine-tune reads them
_NOT_RANKED = "test"  # images that measure the finished model choose nothing


@dataclass(frozen=True)
class BaseCost:
    """What a base takes.

    Attributes:
        parameters: Its weights and moving statistics.
        operations: Multiply-accumulates for one image.
    """

    parameters: int
    operations: int


@dataclass(frozen=True)
class Score:
    """A score, and its 95 % interval.

    Attributes:
        value: The score.
        interval: From and to; None where there is none.
    """

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Judged:
    """How well a base does without training.

    Attributes:
        probe: Of a linear probe on the maps of all depths, cross-validated.
        neighbors: Of nearest neighbours by its last map, cross-validated.
        images: Images that were predicted.
        seconds: What its features and both predictors took.
    """

    probe: Score
    neighbors: Score
    images: int
    seconds: float


def measure_cost(transfer: TransferModel) -> BaseCost:
    """Returns what a base takes.

    Args:
        transfer: A model with a head on it, which does not count.
    """
    base = [variable for part, _, variable in transfer.variables() if part.name != HEAD]
    reads = list(transfer.parts[-1].inputs)
    return BaseCost(
        sum(int(np.prod(variable.shape)) for variable in base), count_graph(transfer.image, reads)
    )


def judge_base(
    plan: Plan, transfer: TransferModel, images: Mapping[str, Images], progress: Handler
) -> Judged:
    """Returns how well a base does on the images of a recipe that are not test images.

    Features of all splits are computed in one pass and stored, for the fine-tune that follows.

    Args:
        plan: The plan, whose head reads all maps.
        transfer: Its model.
        images: Images by split.
        progress: Receives the number of images computed.
    """
    began = perf_counter()
    task = transfer.task
    settings = FeatureSettings.from_values({**feature_values(plan.recipe), "augment": None})
    source = FeatureSource(transfer, settings, images, progress)
    features = source.at(split_at(transfer, ()), digest_variables(transfer), passes=_PASSES)
    sizes = {split: len(members) for split, members in images.items() if split != _NOT_RANKED}
    every = pool_features(transfer, features, sizes, whole=True)
    last = pool_features(transfer, features, sizes)
    targets = np.concatenate([images[split].targets for split in sizes])
    task.prepare(targets)
    scores = {
        name: _score(task, predict_held_out(task, name, np.concatenate([*of.values()]), targets),
                     targets)
        for name, of in (("probe", every), ("neighbors", last))
    }  # fmt: skip
    seconds = round(perf_counter() - began, 3)
    return Judged(scores["probe"], scores["neighbors"], len(targets), seconds)


def predict_held_out(task: Task, name: str, vectors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the outputs for each image by a predictor that was fitted without it.

    Args:
        task: The task.
        name: Of a yardstick of the task.
        vectors: float (n, features).
        targets: (n, ...), whole numbers where they are classes, which each fold has its share of.
    """
    outputs: np.ndarray | None = None
    for train, held_out in _split(vectors, targets):
        predict = task.fit_yardsticks(vectors[train], targets[train], names=(name,))[name]
        predicted = predict(vectors[held_out])
        if outputs is None:
            outputs = np.zeros((len(vectors), *predicted.shape[1:]), predicted.dtype)
        outputs[held_out] = predicted
    if outputs is None:
        raise ValueError("expected images")
    return outputs


def _split(vectors: np.ndarray, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    folds = min(FOLDS, len(vectors))
    are_classes = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
    kind: Any = KFold
    if are_classes and np.bincount(targets).max() >= folds:
        kind = StratifiedKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds
        yield from kind(folds, shuffle=True, random_state=0).split(vectors, targets)


def _score(task: Task, outputs: np.ndarray, targets: np.ndarray) -> Score:
    metrics, sample = task.measure(outputs, targets)
    measured = sample.measure(np.ones((1, sample.images)))
    name = next(name for name in (task.final_score, task.score) if name in measured)
    intervals = find_intervals(sample) | metrics.get("intervals", {})
    interval = intervals.get(name)
    return Score(float(metrics[name]), None if interval is None else (interval[0], interval[1]))
