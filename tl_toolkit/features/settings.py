"""What decides the features of a run, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from tl_toolkit.images.augment import AugmentSettings

__all__ = ["FeatureSettings"]


@dataclass(frozen=True)
class FeatureSettings:
    """What the features are computed from, and whether they are stored.

    Attributes:
        image_size: (height, width) of the images in pixels.
        resize: How images get that size: a name that `images.pipeline.Images` knows.
        augment: What changes the training images at random; None if nothing does.
        seed: Decides the random views that are kept; new ones follow from seeds of phases.
        views: How many random views of each training image the epochs of all phases go round; None
            for a new view in each epoch of each phase.
        store: "auto" stores features where that saves time, "always" wherever they fit, "never"
            computes them in each epoch.
        dtype: "float32" or "float16", to which features are rounded, stored or not.
        constant_folded: Make constants of the prefix's weights: faster, and different in the last
            digits.
        max_gb: Size of the whole store in GB (10^9 bytes).
    """

    image_size: tuple[int, int]
    resize: str
    augment: AugmentSettings | None = None
    seed: int = 0
    views: int | None = None
    store: str = "auto"
    dtype: str = "float32"
    constant_folded: bool = False
    max_gb: float = 20.0

    @property
    def has_endless_views(self) -> bool:
        """Whether each epoch of each phase sees training images that no other epoch sees."""
        return self.augment is not None and self.views is None
