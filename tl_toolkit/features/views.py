"""The random views of the training images that the epochs see."""

from __future__ import annotations

import functools
from dataclasses import asdict
from typing import Any

import numpy as np
import tensorflow as tf

from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.augment import (
    AugmentSettings,
    GeometricTransform,
    TransformFunction,
    build_augment,
    build_geometric_transform,
)

__all__ = ["TrainingViews"]


class TrainingViews:
    """Changes the training images for an epoch, stored or live.

    Args:
        settings: Their augmentation, seed and number of views.
        augment: The augmentation of `settings`.
        keys: int64, one for each training image; its random changes depend on it.
    """

    def __init__(
        self, settings: FeatureSettings, augment: AugmentSettings, keys: np.ndarray
    ) -> None:
        self._settings = settings
        self._augment = augment
        self._keys = keys
        self._change = build_augment(augment)

    def number(self, epoch: int) -> int:
        """Returns which view an epoch sees.

        Args:
            epoch: Counts from 1, as views do.
        """
        views = self._settings.views
        return epoch if views is None else (epoch - 1) % views + 1

    def _choose_seed(self, phase_seed: int) -> int:
        # Views that are kept are those of every phase, run and trial.
        return phase_seed if self._settings.has_endless_views else self._settings.seed

    def augment(
        self, pixels: np.ndarray, indices: np.ndarray, epoch: int, *, phase_seed: int = 0
    ) -> tf.Tensor:
        """Changes images as an epoch sees them.

        Args:
            pixels: (n, h, w, channels): uint8 RGB, or float32 bands.
            indices: Their places among the training images.
            epoch: Counts from 1, in each phase.
            phase_seed: Decides new views in place of the settings' seed, so that no phase sees
                those of another; of no use where views are kept.

        Returns:
            float32 (n, h, w, channels), RGB in 0..255.
        """
        keys = self._keys[indices]
        return self._change(pixels, self._choose_seed(phase_seed), self.number(epoch), keys)

    @functools.cached_property
    def _transform(self) -> TransformFunction:
        return build_geometric_transform(self._augment, self._settings.image_size)

    def geometric_transform(
        self, index: int, epoch: int, *, phase_seed: int = 0
    ) -> GeometricTransform:
        """Returns how the pixels of a training image move in an epoch.

        Args:
            index: Place of the image among the training images.
            epoch: As in `augment`.
            phase_seed: As in `augment`.
        """
        seed = self._choose_seed(phase_seed)
        return self._transform(seed, self.number(epoch), int(self._keys[index]))

    def describe(self, view: int) -> dict[str, Any]:
        """Returns everything but the images that a stored view depends on, for a key.

        Args:
            view: Counts from 1.
        """
        return {"augment": asdict(self._augment), "seed": self._settings.seed, "view": view}
