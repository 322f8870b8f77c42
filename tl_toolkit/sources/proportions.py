"""The proportions of images: width over height, read from the headers of some of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tl_toolkit.catalog.records import RGB
from tl_toolkit.sources.arrays import read_shape
from tl_toolkit.sources.listing import PILLOW_FORMATS
from tl_toolkit.sources.objects import open_image

__all__ = ["Proportions", "measure_proportions"]

_MOST = 200
"""Images that are opened: of more, so many that are spread evenly."""

_LEAST = 10
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Proportions:
    """Width over height of most images: without the tenth that is narrowest and that is widest.

    Attributes:
        low: The narrowest.
        high: The widest.
        cut: Share of an image that a square crop of its centre cuts off, the median.
    """

    low: float
    high: float
    cut: float

    @property
    def spread(self) -> float:
        """How many times as wide as the narrowest the widest are, of equal height; at least 1."""
        return self.high / self.low


def measure_proportions(paths: Sequence[Path]) -> Proportions | None:
    """Returns the proportions of images, upright; None where fewer than 10 of them can be read.

    Args:
        paths: Image files; files that Pillow cannot open are left out.
    """
    step = max(1, -(-len(paths) // _MOST))
    ratios = sorted(filter(None, map(_measure, paths[::step])))
    if len(ratios) < _LEAST:
        return None
    tenth = len(ratios) // 10
    cuts = sorted(1 - min(ratio, 1 / ratio) for ratio in ratios)
    return Proportions(ratios[tenth], ratios[-1 - tenth], cuts[len(cuts) // 2])


def _measure(path: Path) -> float | None:
    shape = read_shape(path)
    if shape is not None and shape[2] != RGB and min(shape) > 0:
        return shape[1] / shape[0]
    try:
        with (
            warnings.catch_warnings(),
            open_image(path) as file,
            Image.open(file, formats=PILLOW_FORMATS) as image,
        ):
            warnings.simplefilter("ignore")  # of damaged EXIF, and of bombs, whose pixels stay shut
            width, height = image.size
            is_sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    except Exception:  # damaged files raise nearly every kind; the scan names them later
        return None
    return height / width if is_sideways else width / height
