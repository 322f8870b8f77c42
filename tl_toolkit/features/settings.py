"""The settings that decide the features of a run, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.records import RGB
from tl_toolkit.features.parts import DEFAULT_PART
from tl_toolkit.images.augment import AugmentSettings
from tl_toolkit.images.geometry import Resize, build_resize

__all__ = ["FeatureSettings"]


@dataclass(frozen=True)
class FeatureSettings:
    """The inputs of the features, and whether features are stored.

    Attributes:
        image_size: (height, width) of the images in pixels.
        resize: How images get that size.
        augment: Random changes of the training images; None for no changes.
        seed: Decides the random views that are stored; new views follow from the seeds of phases.
        views: How many random views of each training image the epochs of all phases cycle through;
            None for a new view in each epoch of each phase.
        store: "auto" stores features where that saves time, "always" wherever they fit, "never"
            computes them in each epoch.
        dtype: "float32" or "float16", to which features are rounded, stored or not.
        folded: Use the prefix's weights as constants: faster, and different in the last digits.
        max_gb: Size of the whole store in GB (10^9 bytes).
        location: Folder of the store; None for that of the user's cache.
        part: Images that are computed and stored at a time.
        shares: Processes that fill the store together: parts are no larger than a share of each
            split, so that all of them have something to do.
        channels: Channels of the images.
    """

    image_size: tuple[int, int]
    resize: Resize
    augment: AugmentSettings | None = None
    seed: int = 0
    views: int | None = None
    store: str = "auto"
    dtype: str = "float32"
    folded: bool = False
    max_gb: float = 20.0
    location: Path | None = None
    part: int = DEFAULT_PART
    shares: int = 1
    channels: int = RGB

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> FeatureSettings:
        """Returns the settings that plain values describe, as a plan has them.

        Args:
            values: The attributes, with the colour of a padding as `pad_color`; `augment` as a
                mapping or None.
        """
        own = dict(values)
        augment = own.get("augment")
        changes = None if augment is None else AugmentSettings.from_values(augment)
        channels = own.get("channels", RGB)
        resize = build_resize(own.pop("resize"), own.pop("pad_color", None), channels)
        return cls(**{**own, "resize": resize, "augment": changes})

    @property
    def has_endless_views(self) -> bool:
        """Whether each epoch of each phase sees training images that no other epoch sees."""
        return self.changes_images and self.views is None

    @property
    def changes_images(self) -> bool:
        """Whether training images are changed, each by itself."""
        return self.augment is not None and self.augment.changes_images
