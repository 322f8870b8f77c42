"""Yardsticks: what simple predictors make of the same images, without any training of the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tl_toolkit.evaluation.splits import Measured
from tl_toolkit.images.pipeline import Images
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.resampling import compare_samples

__all__ = ["MOST_IMAGES", "SHARE", "add_yardsticks"]

MOST_IMAGES = 20_000
"""Training images up to which there are yardsticks: their features are held in memory."""

SHARE = 0.1
"""How many images a pass of its own may have, of those that the epochs of the training read."""

_PROBE = "probe"


def add_yardsticks(
    measured: Measured, vectors: Mapping[str, np.ndarray], task: Task, images: Mapping[str, Images]
) -> None:
    """Adds the metrics of simple predictors, and whether the run is better than some of them.

    It is compared with the linear probe, and with others that score higher than the run does.

    Args:
        measured: Metrics of the run's splits, which are added to.
        vectors: A vector for each image of each split, as the untrained base computes it.
        task: The task.
        images: The images by split, those of validation among them.
    """
    targets = {split: members.targets for split, members in images.items()}
    predictors = task.fit_yardsticks(vectors["train"], targets["train"])
    settled = {
        name: task.settle(predict(vectors["validation"]), targets["validation"])
        for name, predict in predictors.items()
    }
    for split, metrics in measured.metrics.items():
        for name, predict in predictors.items():
            values, sample = settled[name].measure(predict(vectors[split]), targets[split])
            metrics[name] = _select(values, metrics, has_losses=name == _PROBE)
            run, score = measured.samples.get(split), task.final_score or task.score
            is_rival = name == _PROBE or values.get(score, -np.inf) > metrics.get(score, np.inf)
            if is_rival and run is not None:
                against = metrics.setdefault("against", {})
                against[name] = compare_samples(run, sample, score)


def _select(
    values: Mapping[str, Any], run: Mapping[str, Any], *, has_losses: bool
) -> dict[str, float]:
    """Returns the single figures that the run has too; shares of neighbours have no likelihood."""
    left_out = {"images"} if has_losses else {"images", "loss"}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, float) and name in run and name not in left_out
    }
