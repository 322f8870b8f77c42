"""What images with other channels than RGB do not go with in a recipe."""

from collections.abc import Iterable, Mapping
from typing import Any

from tl_toolkit.recipe.fields import Conflict
from tl_toolkit.recipe.tasks import field_of

__all__ = ["RGB", "find_conflicts_of_bands", "find_conflicts_of_channels"]

RGB = 3
"""The channels of a photo."""

_NOT_FOR_BANDS = {
    "brightness": ("it is a share of white, which bands do not have", "augment.contrast=0.2"),
    "saturation": ("other channels than RGB have no colour", "~augment.saturation"),
    "hue": ("other channels than RGB have no colour", "~augment.hue"),
    "rand_augment": ("it changes the colours of RGB", "augment.rotation=0.05"),
    "erasing": ("its noise lies in 0 to 255", "augment.cutmix=1.0"),
}
"""Changes of images that other channels than RGB do not have: why, and what to type."""


def find_conflicts_of_channels(values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields conflicts of channels with what is RGB: a colour of the padding, a built-in set.

    Args:
        values: The section `data`, before validation.
    """
    channels = values.get("channels", RGB)
    if channels == RGB:
        return
    if isinstance(values.get("pad_color"), list | tuple):
        expected = f"expected one value for all channels with data.channels = {channels!r}"
        yield Conflict(("pad_color",), expected, "pad_color: 0")
    if values.get("builtin") is not None and channels != 1:
        expected = f"expected 1 or 3 with data.builtin, whose images are grey, got {channels!r}"
        yield Conflict(("channels",), expected, "channels: 1")


def find_conflicts_of_bands(values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields conflicts of other channels than RGB with changes of training images.

    Args:
        values: The sections of a recipe, before validation.
    """
    channels = field_of(values.get("data"), "channels")
    if channels in (None, RGB):
        return
    for name, (reason, hint) in _NOT_FOR_BANDS.items():
        if field_of(values.get("augment"), name) not in (None, 0):
            expected = f"expected none with data.channels = {channels!r}: {reason}"
            yield Conflict(("augment", name), expected, hint)
