"""The folds of a cross-validation: equal images and groups together, classes spread evenly."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.splits import is_training, join_groups, rank
from tl_toolkit.sources.listing import name_some

__all__ = ["assign_folds"]


def assign_folds(
    examples: Sequence[Example],
    folds: int,
    *,
    seed: int,
    stratify: int | None = 0,
    groups: Sequence[str] = (),
) -> list[Example]:
    """Gives each training image its fold, by scikit-learn's splitters.

    The choice depends on the seed and on content alone: neither names nor order matter.

    Args:
        examples: Images; usable ones in "train" are divided, all others have no fold.
        folds: How many there are.
        seed: Another seed makes other folds.
        stratify: Place of the target whose values are spread evenly over the folds; None for none.
        groups: The group of each example, whose images stay together; none by default.

    Returns:
        The examples in their order, with their folds, from 1.

    Raises:
        DataError: There are fewer different images, or groups, than folds, or one of the trainings
            would have no image of a class.
    """
    keys = join_groups(examples, groups)
    places = [index for index, entry in enumerate(examples) if is_training(entry)]
    places.sort(key=lambda index: (rank(seed, keys[index]), rank(seed, examples[index].sha256)))
    numbers: dict[str, int] = {}
    of_group = np.array([numbers.setdefault(keys[index], len(numbers)) for index in places])
    what = "groups" if groups else "different images"
    if len(numbers) < folds:
        raise DataError(_describe_few(folds, f"{len(numbers)} {what}", what))
    labels = None
    if stratify is not None:
        labels = np.array([examples[index].targets[stratify] for index in places])
    chosen = _split(folds, labels, of_group)
    _check_classes(labels, chosen, folds, what)
    assigned = dict(zip(places, map(int, chosen), strict=True))
    return [
        replace(entry, fold=assigned[index]) if index in assigned else entry
        for index, entry in enumerate(examples)
    ]


def _split(folds: int, labels: np.ndarray | None, groups: np.ndarray) -> np.ndarray:
    """Returns the fold of each image, from 1."""
    from sklearn import model_selection

    is_grouped = len(np.unique(groups)) < len(groups)
    if labels is None:
        kind = model_selection.GroupKFold if is_grouped else model_selection.KFold
    elif is_grouped:
        kind = model_selection.StratifiedGroupKFold
    else:
        kind = model_selection.StratifiedKFold
    chosen = np.zeros(len(groups), int)
    with warnings.catch_warnings():
        # That a class has fewer images than there are folds: some folds are measured without it.
        warnings.simplefilter("ignore", UserWarning)
        parts = kind(folds).split(np.zeros(len(groups)), labels, groups)
        for number, (_, held_out) in enumerate(parts, 1):
            chosen[held_out] = number
    return chosen


def _check_classes(labels: np.ndarray | None, chosen: np.ndarray, folds: int, what: str) -> None:
    """Refuses folds that are empty, or that hold all images of a class."""
    if labels is None:
        labels = np.zeros(len(chosen))
    single = [name for name in np.unique(labels) if len(np.unique(chosen[labels == name])) < 2]
    if single or len(np.unique(chosen)) < folds:
        of_class = f" of {name_some(map(repr, map(str, single)))}" if single else ""
        raise DataError(_describe_few(folds, f"too few {what}{of_class}", what))


def _describe_few(folds: int, found: str, what: str) -> Problem:
    return Problem(
        "data.folds",
        f"{found} for {folds} folds",
        "Each fold needs one, and each class must be in two folds at least.",
        f"fewer folds, as data.folds=2, or more {what}",
    )
