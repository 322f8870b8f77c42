"""Test-time augmentation: views of an image, over which a model's outputs are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Size", "View", "build_views", "find_sizes", "list_views"]

Size = tuple[int, int]
"""Height and width in pixels."""

_CROPS = {
    "top left": (0.0, 0.0),
    "top right": (0.0, 1.0),
    "bottom left": (1.0, 0.0),
    "bottom right": (1.0, 1.0),
    "centre": (0.5, 0.5),
}
_CROP_SCALE = 8 / 7  # 256 of 224 pixels, as in the ten crops of Krizhevsky et al. (2012)


@dataclass(frozen=True)
class View:
    """How an image is seen once.

    Attributes:
        name: What it is, as "top left, mirrored".
        place: Where a crop lies, down and along, from 0 to 1; None for the whole image.
        axes: The axes of (h, w, channels) that are mirrored.
    """

    name: str
    place: tuple[float, float] | None = None
    axes: tuple[int, ...] = ()


def list_views(words: Sequence[str]) -> tuple[View, ...]:
    """Returns the views that words ask for: the whole image, crops, each with its mirror images.

    Args:
        words: Some of flip, flip_vertical and crops; none stands for no views.
    """
    places: dict[str, tuple[float, float] | None] = {"whole": None}
    if "crops" in words:
        places |= _CROPS
    mirrors: list[tuple[str, tuple[int, ...]]] = [("", ())]
    if "flip" in words:
        mirrors.append((", mirrored", (1,)))
    if "flip_vertical" in words:
        mirrors += [(f"{name}, upside down", (0, *axes)) for name, axes in mirrors]
    return tuple(
        View(f"{name}{more}", place, axes)
        for name, place in places.items()
        for more, axes in (mirrors if words else ())
    )


def find_sizes(image_size: Size, views: Sequence[View]) -> Iterator[Size]:
    """Yields the sizes that images are resized to for views: the model's, and that of crops.

    Args:
        image_size: (height, width) that the model takes.
        views: The views.
    """
    yield image_size
    if any(view.place is not None for view in views):
        yield _enlarge(image_size)


def _enlarge(size: Size) -> Size:
    return round(size[0] * _CROP_SCALE), round(size[1] * _CROP_SCALE)


def build_views(
    resized: Mapping[Size, np.ndarray], image_size: Size, views: Sequence[View]
) -> np.ndarray:
    """Cuts and mirrors resized images.

    Args:
        resized: (n, h, w, channels) for each of `find_sizes`, the same images in the same order.
        image_size: (height, width) that the model takes.
        views: The views, at least one.

    Returns:
        (n, views, height, width, channels).
    """
    import numpy as np  # not above: views are chosen before it is needed

    height, width = image_size
    large = _enlarge(image_size)
    seen = []
    for view in views:
        if view.place is None:
            images = resized[image_size]
        else:
            top, left = (
                int(share * (long - short))
                for share, long, short in zip(view.place, large, image_size, strict=True)
            )
            images = resized[large][:, top : top + height, left : left + width]
        seen.append(np.flip(images, tuple(axis + 1 for axis in view.axes)))
    return np.stack(seen, axis=1)
