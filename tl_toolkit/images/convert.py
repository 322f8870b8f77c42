"""Reads, with Pillow, images that the decoder refuses."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from tl_toolkit.images.upright import turn_by_exif

# Only formats of photographs: each further format is another parser for hostile bytes.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
_PLAIN_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")

# Filters of warnings belong to the process, not to a thread.
_warnings_lock = threading.Lock()


def convert_to_png(encoded: bytes) -> bytes:
    """Reads an image with Pillow and returns it as an upright 8-bit RGB PNG.

    The same rules as the decoder's: the first frame, alpha dropped, 16 bits cut to the upper 8, at
    most as many pixels as Pillow decodes by default.

    Args:
        encoded: The bytes of a JPEG, PNG, GIF, BMP, WebP or TIFF file.

    Returns:
        The bytes of the PNG file.

    Raises:
        ValueError: Pillow cannot read it either; the text says why and may be empty.
    """
    with _warnings_lock, warnings.catch_warnings():
        # Warnings of damaged EXIF blocks, and of sizes that are still below Pillow's limit.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
                image.load()
                upright = _as_rgb(turn_by_exif(image))
        except UnidentifiedImageError as error:
            raise ValueError("") from error  # its text holds nothing but a memory address
        except Exception as error:  # Pillow's plug-ins raise nearly every kind on damaged bytes.
            raise ValueError(str(error) or type(error).__name__) from error
    output = io.BytesIO()
    upright.save(output, "PNG")
    return output.getvalue()


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in _PLAIN_MODES:
        raise ValueError(f"pixels of the kind {image.mode!r} have no fixed range")
    return image.convert("RGB")
