"""PNG files with all their bits, for targets that are numbers and not pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.images.upright import turn_by_exif
from tl_toolkit.sources.listing import MAX_BYTES, MAX_PIXELS
from tl_toolkit.sources.objects import open_image

__all__ = ["read_png", "scale_from_8_bits", "scale_to_unit"]

_START = b"\x89PNG\r\n\x1a\n"


def read_png(path: str) -> np.ndarray:
    """Reads a PNG file with the bits that it has: Pillow cuts RGB of 16 bits to 8.

    Args:
        path: The file.

    Returns:
        uint8, or uint16 if it has 16 bits, (h, w, 1) grey or (h, w, 3) RGB; alpha is dropped, a
        palette looked up, and fewer than 8 bits are stretched to 8.

    Raises:
        OSError: It cannot be read, or is damaged.
        ValueError: It is no PNG file, has more than MAX_PIXELS, or is not stored upright.
    """
    with open_image(path) as file:
        encoded = file.read(MAX_BYTES)
    if not encoded.startswith(_START) or encoded[12:16] != b"IHDR" or len(encoded) < 33:
        raise ValueError(f"{_name_kind(path)}, not a PNG file")
    width, height = (int.from_bytes(encoded[at : at + 4], "big") for at in (16, 20))
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if b"eXIf" in encoded:
        with Image.open(io.BytesIO(encoded), formats=("PNG",)) as image:
            if turn_by_exif(image) is not image:
                raise ValueError("turned by its EXIF orientation; save it upright")
    kind = tf.uint16 if encoded[24] == 16 else tf.uint8
    try:
        with tf.device("CPU:0"):
            pixels: np.ndarray = tf.io.decode_png(encoded, channels=0, dtype=kind).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise OSError("a damaged PNG file") from error
    return pixels[..., :1] if pixels.shape[-1] < 3 else pixels[..., :3]


def _name_kind(path: str) -> str:
    suffix = Path(path).suffix
    return f"a {suffix} file" if suffix and suffix.lower() != ".png" else "something else"


def scale_to_unit(pixels: np.ndarray) -> np.ndarray:
    """Returns float32 in [0, 1]: each number over the greatest of its type.

    Args:
        pixels: uint8 or uint16.
    """
    return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max


def scale_from_8_bits(value: int | tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Returns a value or colour of 8 bits in pixels of another type: 257 times it with 16 bits.

    Args:
        value: A value, or one for each channel.
        kind: Type of the pixels, uint8 or uint16.
    """
    return np.array(value, np.int64) * (np.iinfo(kind).max // 255)
