"""How well a base tells the images of a recipe, or their pixels, apart before any training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from tl_toolkit.architectures.costs import count_graph
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.events import Event, Handler, ignore
from tl_toolkit.features.sets import FeatureSet, LiveFeatures
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
_PIXELS = 5_000  # of all images: a ridge regression of them takes seconds
_PIXELS_OF_IMAGE = 200
_MOST_IMAGES = 2_000  # whose pixels are read
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
        neighbors: Of nearest neighbours by its last map, cross-validated; None for pixels.
        images: Images that were predicted.
        seconds: What its features and both predictors took.
    """

    probe: Score
    neighbors: Score | None
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
        progress: Receives the number of images computed, and of folds.
    """
    began = perf_counter()
    task = transfer.task
    settings = FeatureSettings.from_values({**feature_values(plan.recipe), "augment": None})
    source = FeatureSource(transfer, settings, images, progress)
    features = source.at(split_at(transfer, ()), digest_variables(transfer), passes=_PASSES)
    judged = {split: members for split, members in images.items() if split != _NOT_RANKED}
    if task.probes_pixels:
        vectors, targets, examples = _read_pixels(transfer, features, judged, progress)
    else:
        sizes = {split: len(members) for split, members in judged.items()}
        vectors = {
            "probe": np.concatenate(
                [*pool_features(transfer, features, sizes, whole=True).values()]
            ),
            "neighbors": np.concatenate([*pool_features(transfer, features, sizes).values()]),
        }
        targets = np.concatenate([members.targets for members in judged.values()])
        examples = [example for members in judged.values() for example in members.examples]
        task.prepare(targets)
    groups = _find_groups(plan, examples)
    scores = {}
    for name, of in vectors.items():
        outputs = predict_held_out(task, name, of, targets, groups=groups, progress=progress)
        scores[name] = _score(task, outputs, targets)
    seconds = round(perf_counter() - began, 3)
    return Judged(scores["probe"], scores.get("neighbors"), len(targets), seconds)


def _read_pixels(
    transfer: TransferModel,
    features: Mapping[str, FeatureSet],
    images: Mapping[str, Images],
    progress: Handler,
) -> tuple[dict[str, np.ndarray], np.ndarray, list[Example]]:
    """Returns the vectors of sampled pixels, their targets, and their images.

    Of more than `_MOST_IMAGES` images, so many evenly spaced are read.
    """
    total = sum(map(len, images.values()))
    share = min(1.0, _MOST_IMAGES / total)
    orders = {
        split: np.unique(np.linspace(0, len(members) - 1, max(1, round(share * len(members))))
                         .astype(int))
        for split, members in images.items()
    }  # fmt: skip
    total = sum(map(len, orders.values()))
    count = max(1, min(_PIXELS_OF_IMAGE, _PIXELS // total))
    vectors, targets = [], []
    done = 0
    for split, order in orders.items():
        is_live = isinstance(features[split], LiveFeatures)

        def report(read: int, before: int = done, is_live: bool = is_live) -> None:
            if is_live:  # stored features were reported when they were computed
                progress(Event("features_computed", done=before + read, total=total))

        read = transfer.task.read_pixels(
            transfer.model, transfer.parts[-1].inputs, features[split], images[split].targets,
            order=order, count=count, report=report,
        )  # fmt: skip
        vectors.append(read[0])
        targets.append(read[1])
        done += len(order)
    examples = [images[split].examples[index] for split, order in orders.items() for index in order]
    return {"probe": np.concatenate(vectors)}, np.concatenate(targets), examples


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
    progress: Handler = ignore,
) -> np.ndarray:
    """Returns the outputs for each image by a predictor that was fitted without it.

    Args:
        task: The task.
        name: Of a yardstick of the task.
        vectors: float (n, features), or (n, pixels, features).
        targets: (n, ...), whole numbers where they are classes, which each fold has its share of.
        groups: int (n,), the group of each image, which no image that it is predicted by is of;
            None for no groups.
        progress: Receives the number of folds.
    """
    outputs: np.ndarray | None = None
    folds = list(_split(vectors, targets, groups))
    progress(Event("fold_ended", done=0, total=len(folds)))
    for number, (train, held_out) in enumerate(folds, 1):
        predict = task.fit_yardsticks(vectors[train], targets[train], names=(name,))[name]
        predicted = predict(vectors[held_out])
        if outputs is None:
            outputs = np.zeros((len(vectors), *predicted.shape[1:]), predicted.dtype)
        outputs[held_out] = predicted
        progress(Event("fold_ended", done=number, total=len(folds)))
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
