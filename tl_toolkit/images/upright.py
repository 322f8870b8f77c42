"""The orientation of an image that Pillow has opened, as the decoder reads it: from EXIF alone."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

__all__ = ["is_sideways", "read_orientation", "turn_by_exif"]

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


def turn_by_exif(image: Image.Image) -> Image.Image:
    """Returns an image upright, as `decode_image` turns it.

    `ImageOps.exif_transpose` also turns by an orientation that stands in XMP or PNG's text alone,
    which browsers and our decoder do not read: image and mask would be turned differently.

    Args:
        image: As opened from a file.
    """
    turn = _TURNS.get(read_orientation(image))
    return image if turn is None else image.transpose(turn)


def is_sideways(image: Image.Image) -> bool:
    """Returns whether width and height of an image are exchanged when it is upright.

    Args:
        image: As opened from a file.
    """
    return read_orientation(image) in _SIDEWAYS


def read_orientation(image: Image.Image) -> int:
    """Returns the orientation in an image's EXIF block, 1 for upright and for none.

    Args:
        image: As opened from a file.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        value = image.tag_v2.get(_ORIENTATION, 1)
    else:
        if image.format == "PNG" and "exif" not in image.info:
            image.load()  # the block may come after the pixels
        exif = Image.Exif()
        try:
            exif.load(image.info.get("exif", b""))
            value = exif.get(_ORIENTATION, 1)
        except Exception:  # A damaged block raises nearly every kind; it is no reason to refuse.
            value = 1
    return value if isinstance(value, int) else 1
