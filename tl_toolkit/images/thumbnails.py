"""Small pictures of image files, as pages hold them."""

from __future__ import annotations

import stat
import warnings

from PIL import Image

from tl_toolkit.images.convert import as_rgb
from tl_toolkit.images.upright import turn_by_exif
from tl_toolkit.printing.page import encode_picture
from tl_toolkit.sources.builtin import BUILTIN, load_builtin_image
from tl_toolkit.sources.listing import PILLOW_FORMATS
from tl_toolkit.sources.objects import open_image, stat_image

__all__ = ["make_thumbnail", "open_small"]


def make_thumbnail(path: str, side: int) -> str:
    """Returns a small picture of a file as a data URI; "" where Pillow cannot read it.

    Args:
        path: An image file, or the name of a built-in image.
        side: Pixels of the longer side, at most; a built-in image is enlarged to it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks, and of large images
            image = open_small(path, side)
    except Exception:  # a damaged file raises nearly every kind; the page has no picture of it then
        return ""
    return encode_picture(image)


def open_small(path: str, side: int) -> Image.Image:
    """Returns a file as a small RGB image, upright.

    Args:
        path: As in `make_thumbnail`.
        side: As in `make_thumbnail`.

    Raises:
        ValueError: It is no file. Pillow raises more, of damaged ones, and OSError of missing ones.
    """
    if path.startswith(BUILTIN):
        image = Image.fromarray(load_builtin_image(path))
        return image.resize((side, side), Image.Resampling.NEAREST)
    if not stat.S_ISREG(stat_image(path).st_mode):
        raise ValueError(path)
    with open_image(path) as file, Image.open(file, formats=PILLOW_FORMATS) as image:
        image.draft(image.mode, (side, side))
        upright = as_rgb(turn_by_exif(image))
    upright.thumbnail((side, side))
    return upright
