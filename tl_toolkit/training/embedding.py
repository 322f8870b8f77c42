"""A vector of features for each image, by the base of a recipe as its weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import keras
import numpy as np

from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.architectures.heads import POOLED_LAYERS
from tl_toolkit.events import Handler
from tl_toolkit.features.sets import FeatureSet
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import feature_values
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.bands import settle_bands
from tl_toolkit.training.prepare import assemble_model
from tl_toolkit.training.untrained import pool_features
from tl_toolkit.transfer.assemble import TransferModel
from tl_toolkit.transfer.freezing import Cut, Split, digest_variables, split_at

__all__ = ["Embedded", "embed_images"]

_SPLIT = "train"
_PASSES = 10  # for which features are worth storing: trainings of the recipe read them


class Embedded(NamedTuple):
    """What a model makes of images.

    Attributes:
        vectors: float32 (n, features), the last map that the head reads, pooled.
        outputs: float32 (n, units), those of the whole model; (n, 0) where none were asked for.
    """

    vectors: np.ndarray
    outputs: np.ndarray


def embed_images(
    plan: Plan,
    examples: Sequence[Example],
    progress: Handler,
    *,
    is_kept: bool = False,
    first_map: bool = False,
    with_outputs: bool = False,
) -> Embedded:
    """Returns the last map that the head reads, pooled, for each image as it is.

    Features come from the store, and are stored as a training of the recipe would.

    Args:
        plan: The plan, whose base has weights.
        examples: Usable images.
        progress: Receives the bytes of a file that is fetched, and the images computed.
        is_kept: Store features wherever they fit, also where computing them again is as fast.
        first_map: Of several maps that the head reads, return the first in place of the last.
        with_outputs: Run the head on the features too.

    Raises:
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    plan = settle_bands(plan, examples, progress)
    task = build_task(plan.recipe, plan.classes)
    transfer = assemble_model(plan, task, progress)
    settings = FeatureSettings.from_values({**feature_values(plan.recipe), "augment": None})
    if is_kept and settings.store == "auto":
        settings = replace(settings, store="always")
    images = Images(
        examples,
        image_size=settings.image_size,
        resize=settings.resize,
        channels=plan.recipe.data.channels,
    )
    source = FeatureSource(transfer, settings, {_SPLIT: images}, progress)
    split = split_at(transfer, ())
    if first_map:
        split = _cut_at_first(transfer, split)
    features = source.at(split, digest_variables(transfer), passes=_PASSES)
    count = len(images)
    if first_map:
        chunks = features[_SPLIT].chunks(np.arange(count), 1, epoch=1)
        vectors = np.concatenate([np.asarray(batch) for batch, _ in chunks])
    else:
        vectors = pool_features(transfer, features, {_SPLIT: count})[_SPLIT]
    outputs = np.zeros((count, 0), np.float32)
    if with_outputs:
        outputs = _run_head(split, features[_SPLIT], count)
    return Embedded(vectors, outputs)


def _cut_at_first(transfer: TransferModel, split: Split) -> Split:
    """Returns a split whose prefix ends at the first vector of several that the head joins."""
    head = transfer.parts[-1].layers
    joined = next((layer for layer in head if layer.name == POOLED_LAYERS[0]), None)
    if joined is None:
        return split
    vector = joined.input[0]
    prefix = keras.Model(transfer.image, vector, name="prefix")
    cut = Cut(split.cut.name, split.cut.position, vector)
    return replace(split, prefix=FixedBatch(prefix, batch_size=transfer.batch_size), cut=cut)


def _run_head(split: Split, features: FeatureSet, count: int) -> np.ndarray:
    size = split.suffix.batch_size
    chunks = features.chunks(np.arange(count), size, epoch=1)
    return np.concatenate([np.asarray(split.suffix(batch)) for batch, _ in chunks])
