"""A vector of features for each image, by the base of a recipe as its weights are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tl_toolkit.events import Handler
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import feature_values
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.prepare import assemble_model
from tl_toolkit.training.untrained import pool_features
from tl_toolkit.transfer.freezing import digest_variables, split_at

__all__ = ["embed_images"]

_SPLIT = "train"
_PASSES = 10  # for which features are worth storing: trainings of the recipe read them


def embed_images(plan: Plan, examples: Sequence[Example], progress: Handler) -> np.ndarray:
    """Returns the last map that the head reads, pooled, for each image as it is.

    Features come from the store, and are stored as a training of the recipe would.

    Args:
        plan: The plan, whose base has weights.
        examples: Usable images.
        progress: Receives the bytes of a file that is fetched, and the images computed.

    Returns:
        float32 (n, features).

    Raises:
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    task = build_task(plan.recipe, plan.classes)
    transfer = assemble_model(plan, task, progress)
    settings = FeatureSettings.from_values({**feature_values(plan.recipe), "augment": None})
    size, channels = settings.image_size, plan.recipe.data.channels
    images = {_SPLIT: Images(examples, image_size=size, resize=settings.resize, channels=channels)}
    source = FeatureSource(transfer, settings, images, progress)
    split = split_at(transfer, ())
    features = source.at(split, digest_variables(transfer), passes=_PASSES)
    return pool_features(transfer, features, {_SPLIT: len(images[_SPLIT])})[_SPLIT]
