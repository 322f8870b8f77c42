"""Heat maps laid over images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tl_toolkit.images.pictures import as_photo
from tl_toolkit.printing.page import encode_picture
from tl_toolkit.reports.facts import SIDE

__all__ = ["draw_heat"]

_RED = (255, 30, 20)
_SHARE = 0.75  # of red where the heat is greatest


def draw_heat(pixels: np.ndarray, heat: np.ndarray) -> str:
    """Returns an image, grey, with red where it is hot, as a data URI.

    Args:
        pixels: uint8 (h, w, 3) or float32 (h, w, bands), as the model takes them.
        heat: float (h, w) in [0, 1].
    """
    height, width = heat.shape
    size = (round(SIDE * width / max(heat.shape)), round(SIDE * height / max(heat.shape)))
    grey = Image.fromarray(as_photo(pixels).astype(np.uint8)).convert("L").convert("RGB")
    amount = Image.fromarray((heat * (_SHARE * 255)).round().astype(np.uint8)).resize(size)
    return encode_picture(Image.composite(Image.new("RGB", size, _RED), grey.resize(size), amount))
