"""Reads images with Pillow: files that the decoder refuses, and images that Pillow has opened."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from tl_toolkit.catalog.records import RGB
from tl_toolkit.images.upright import turn_by_exif
from tl_toolkit.sources.listing import PILLOW_FORMATS

__all__ = ["CONVERTED", "as_rgb", "convert_to_png", "read_pillow"]

CONVERTED = (1, 3)
"""Channels of images that a PNG file of RGB can stand for."""

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
            with Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS) as image:
                image.load()
                upright = as_rgb(turn_by_exif(image))
        except UnidentifiedImageError as error:
            raise ValueError("") from error  # its text holds nothing but a memory address
        except Exception as error:  # Pillow's plug-ins raise nearly every kind on damaged bytes.
            raise ValueError(str(error) or type(error).__name__) from error
    output = io.BytesIO()
    upright.save(output, "PNG")
    return output.getvalue()


def read_pillow(image: Image.Image, channels: int = RGB) -> np.ndarray:
    """Returns the pixels of an image that Pillow has opened, as the decoder reads its file.

    Args:
        image: Of any mode with a fixed range, at the frame that is shown.
        channels: Channels of the images that are read.

    Returns:
        uint8 (h, w, 3), RGB in 0..255: upright, alpha dropped, 16 bits cut to the upper 8. With
        other channels float32 (h, w, channels).

    Raises:
        ValueError: It cannot be read, or its pixels have no fixed range.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image.load()
            upright = turn_by_exif(image)
            if channels in CONVERTED:
                return _as_channels(np.asarray(as_rgb(upright)), channels)
            if len(image.getbands()) != channels:
                bands = len(image.getbands())
                raise ValueError(f"it has {bands} bands where data.channels is {channels}")
            return np.asarray(upright, np.float32)
        except Exception as error:  # as in `convert_to_png`; its file may be closed, too
            raise ValueError(str(error) or type(error).__name__) from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Returns an image with 8-bit RGB pixels: alpha dropped, 16 bits cut to the upper 8.

    Args:
        image: Of any mode with a fixed range.

    Raises:
        ValueError: Its pixels have no fixed range.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode not in _PLAIN_MODES:
        raise ValueError(f"pixels of the kind {image.mode!r} have no fixed range")
    return image.convert("RGB")


def _as_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if channels == RGB:
        return pixels
    from tl_toolkit.images.bands import as_channels  # TensorFlow: checking photos needs none

    return as_channels(pixels, channels)
