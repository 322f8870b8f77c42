"""How well a base tells the images of a recipe apart, before any training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from tl_toolkit.architectures.costs import count_graph
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.events import Handler
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import Images
from tl_toolkit.images.splits import join_groups
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
    groups = _find_groups(plan, [example for split in sizes for example in images[split].examples])
    scores = {}
    for name, of in (("probe", every), ("neighbors", last)):
        vectors = np.concatenate([*of.values()])
        outputs = predict_held_out(task, name, vectors, targets, groups=groups)
        scores[name] = _score(task, outputs, targets)
    seconds = round(perf_counter() - began, 3)
    return Judged(scores["probe"], scores["neighbors"], len(targets), seconds)


def _find_groups(plan: Plan, examples: Sequence[Example]) -> np.ndarray | None:
    """Returns the number of each image's group of `data.group`; None without groups."""
    named = {str(file.path): file.group for file in plan.listing.files if file.group}
    if not named:
        return None
    keys = join_groups(examples, [named[str(example.path)] for example in examples])
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    if len(numbers) < 2:
        what = "all images that are ranked by are of one group"
        expected = "An image is predicted by others that share no group with it."
        raise DataError(Problem("data.group", what, expected, "~data.group"))
    return np.array([numbers[key] for key in keys])


def predict_held_out(
    task: Task,
    name: str,
    vectors: np.ndarray,
    targets: np.ndarray,
    *,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the outputs for each image by a predictor that was fitted without it.

    Args:
        task: The task.
        name: Of a yardstick of the task.
        vectors: float (n, features).
        targets: (n, ...), whole numbers where they are classes, which each fold has its share of.
        groups: int (n,), the group of each image, which no image that it is predicted by is of;
            None for no groups.
    """
    outputs: np.ndarray | None = None
    for train, held_out in _split(vectors, targets, groups):
        predict = task.fit_yardsticks(vectors[train], targets[train], names=(name,))[name]
        predicted = predict(vectors[held_out])
        if outputs is None:
            outputs = np.zeros((len(vectors), *predicted.shape[1:]), predicted.dtype)
        outputs[held_out] = predicted
    if outputs is None:
        raise ValueError("expected images")
    return outputs


def _split(
    vectors: np.ndarray, targets: np.ndarray, groups: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from sklearn import model_selection

    folds = min(FOLDS, len(vectors) if groups is None else len(np.unique(groups)))
    are_classes = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
    is_stratified = are_classes and np.bincount(targets).max() >= folds
    shuffled = {"shuffle": True, "random_state": 0}
    kind: Any = model_selection.KFold
    if groups is not None:
        kind = model_selection.StratifiedGroupKFold if is_stratified else model_selection.GroupKFold
        shuffled = shuffled if is_stratified else {}
    elif is_stratified:
        kind = model_selection.StratifiedKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds
        for train, held_out in kind(folds, **shuffled).split(vectors, targets, groups):
            if len(held_out):  # of groups that hold most of the images, folds may be empty
                yield train, held_out


def _score(task: Task, outputs: np.ndarray, targets: np.ndarray) -> Score:
    metrics, sample = task.measure(outputs, targets)
    measured = sample.measure(np.ones((1, sample.images)))
    name = next(name for name in (task.final_score, task.score) if name in measured)
    intervals = find_intervals(sample) | metrics.get("intervals", {})
    interval = intervals.get(name)
    return Score(float(metrics[name]), None if interval is None else (interval[0], interval[1]))
