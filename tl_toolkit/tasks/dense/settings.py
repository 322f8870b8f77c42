"""How dense tasks use single pixels, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["PixelSettings"]


@dataclass(frozen=True)
class PixelSettings:
    """How pixels are read, sampled and compared; fields of equal names hold those of `Pixels`.

    Attributes:
        per_image: Pixels of each image in a training step, at least 1.
        sampling: How they are sampled: as of `tl_toolkit.tasks.dense.sampling.sample_pixels`.
        taps: Layers or units of the base whose maps are read; None for the base's own.
        normalize: Whether each map is normalized by its batch statistics before it is read.
        loss: A word that the task knows.
        class_weights: balanced, a weight above 0 for each class by name, or None.
    """

    per_image: int = 2000
    sampling: str = "uniform"
    taps: tuple[str, ...] | None = None
    normalize: bool = False
    loss: str = "cross_entropy"
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
