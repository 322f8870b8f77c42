"""Small pictures of image files, inside the pages that show them."""

from __future__ import annotations

import base64
import io
import os
import warnings

from PIL import Image

from tl_toolkit.images.convert import as_rgb
from tl_toolkit.images.upright import turn_by_exif
from tl_toolkit.sources.builtin import BUILTIN, load_builtin_image
from tl_toolkit.sources.listing import PILLOW_FORMATS

__all__ = ["render_thumbnail"]

_SIDE = 144  # pixels of the longer side


def render_thumbnail(path: str) -> str:
    """Returns a small picture of a file as a data URI; "" where it cannot be read.

    Args:
        path: The file, or the name of an image of a built-in set.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks, and of large images
            image = _open(path)
    except Exception:  # whatever Pillow raises of a damaged file: the page says so
        return ""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _open(path: str) -> Image.Image:
    if path.startswith(BUILTIN):
        image = Image.fromarray(load_builtin_image(path))
        return image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    if not os.path.isfile(path):
        raise ValueError(path)
    with Image.open(path, formats=PILLOW_FORMATS) as image:
        image.draft(image.mode, (_SIDE, _SIDE))
        upright = as_rgb(turn_by_exif(image))
    upright.thumbnail((_SIDE, _SIDE))
    return upright
