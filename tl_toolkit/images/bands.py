"""The decoder of images with other channels than RGB: arrays, TIFF files, grey photos.

Pixels are float32 in the numbers of the file, as bands have no common range: 0..255 of 8 bits,
0..65535 of 16 bits, floats as they are.
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from tl_toolkit.catalog.records import RGB
from tl_toolkit.images.decoder import (
    DECODER_VERSION,
    REFUSED,
    decode_bytes,
    decode_image,
    decode_without_webp,
    turn_upright,
)
from tl_toolkit.images.exif import choose, read_orientation, spells
from tl_toolkit.images.headers import KINDS, pad_bytes, read_header
from tl_toolkit.images.npy import decode_npy, read_npy_header
from tl_toolkit.images.npy_header import NPY_MAGIC
from tl_toolkit.images.tiff import TIFF_MAGICS, describe_reader, read_tiff, read_tiff_size
from tl_toolkit.images.upright import is_sideways
from tl_toolkit.sources.listing import PILLOW_FORMATS, count_threads
from tl_toolkit.sources.objects import open_image

__all__ = [
    "DECODING",
    "as_channels",
    "decode_file",
    "describe_decoder",
    "describe_pixels",
    "dtype_of",
    "encode_npy",
    "find_decoder",
    "read_size",
]

DECODING = threading.BoundedSemaphore(count_threads())
"""Held while an image is decoded, where more are read at a time than may be in memory decoded."""

# Raise this number when bands get other pixels or verdicts.
_BANDS_VERSION = 1
_GREY = (19595, 38470, 7471)  # Pillow's weights of red, green and blue, of 65536 together
_PNG_BANDS = (1, 0, 3, 3, 2, 0, 4)  # by the colour type of its header


def dtype_of(channels: int) -> type[np.generic]:
    """Returns the type of decoded pixels: uint8 for RGB, float32 for other channels.

    Args:
        channels: Channels of the images.
    """
    return np.uint8 if channels == RGB else np.float32


def describe_decoder(channels: int) -> str:
    """Returns the version of the decoder, which verdicts and stored results depend on.

    Args:
        channels: Channels of the images.
    """
    if channels == RGB:
        return str(DECODER_VERSION)
    return f"{DECODER_VERSION}.{_BANDS_VERSION}-{channels}-{describe_reader()}"


def describe_pixels(channels: int) -> dict[str, Any]:
    """Returns what the pixels of a file depend on, for the keys of what is computed from them.

    Args:
        channels: Channels of the images.
    """
    if channels == RGB:
        return {"decoder": DECODER_VERSION}
    return {"decoder": describe_decoder(channels), "channels": channels}


def find_decoder(channels: int, *, webp: bool = True) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the graph function that decodes an image file.

    For RGB it is `decode_image`. For other channels it reads arrays (height, width, channels) in
    the .npy format; with 1 channel also photos, as grey; with 2 and 4 channels also PNG files
    with as many. It does not read TIFF files, see `decode_file`.

    Args:
        channels: Channels of the images.
        webp: Whether it reads WebP, which takes TensorFlow 2.20; else it refuses such images.

    Returns:
        A function of string (), the bytes of the file, to pixels (h, w, channels), upright: uint8
        for RGB, else float32 in the numbers of the file. It raises InvalidArgumentError for an
        image that is refused, see `decoder.explain`.
    """
    decode_photo = decode_image if webp else decode_without_webp
    return decode_photo if channels == RGB else _compile_decoder(channels, decode_photo)


def decode_file(encoded: bytes, channels: int) -> tf.Tensor:
    """Decodes an image file as `find_decoder` does, and TIFF files of other channels than RGB.

    Args:
        encoded: The bytes of the file.
        channels: Channels of the images.

    Raises:
        tf.errors.InvalidArgumentError: The image is refused.
    """
    if channels == RGB:
        return decode_bytes(encoded)
    if not encoded.startswith(TIFF_MAGICS):
        return find_decoder(channels)(tf.constant(encoded))
    try:
        pixels, orientation = read_tiff(encoded, channels)
        if not np.isfinite(pixels).all():
            raise ValueError("a TIFF image with numbers that are not finite")
    except ValueError as error:
        text = f"[{REFUSED}{error}]"
        raise tf.errors.InvalidArgumentError(None, None, text) from error
    return turn_upright(tf.constant(pixels), tf.constant(orientation, tf.int64))


def as_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Returns an RGB image as decoding its file gives it: as it is, or as one grey channel.

    Args:
        pixels: uint8 (h, w, 3).
        channels: 3 or 1.
    """
    return pixels if channels == RGB else _as_grey(tf.constant(pixels)).numpy()


def encode_npy(pixels: np.ndarray) -> bytes:
    """Returns pixels as a file that the decoder of their channels reads.

    Args:
        pixels: (h, w, channels).
    """
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


def read_size(path: str) -> tuple[int, int]:
    """Returns height and width of an image that was scanned, upright, without its pixels.

    Args:
        path: Its file.
    """
    with open_image(path) as file:
        head = file.read(len(NPY_MAGIC))
        file.seek(0)
        if head == NPY_MAGIC:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            height, width = read(file)[0][:2]
            return height, width
        if head.startswith(TIFF_MAGICS):
            return read_tiff_size(file.read())
        with Image.open(file, formats=PILLOW_FORMATS) as image:
            width, height = image.size
            return (width, height) if is_sideways(image) else (height, width)


@functools.cache
def _compile_decoder(
    channels: int, decode_photo: Callable[[tf.Tensor], tf.Tensor]
) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def decode(encoded: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU:0"):
            data = pad_bytes(encoded)
            pixels = tf.cond(
                spells(data[: len(NPY_MAGIC)], NPY_MAGIC),
                lambda: _decode_array(encoded, data, channels),
                lambda: _decode_photo(encoded, data, channels, decode_photo),
            )
            return tf.ensure_shape(pixels, [None, None, channels])

    compiled: Callable[[tf.Tensor], tf.Tensor] = decode
    return compiled


def _decode_array(encoded: tf.Tensor, data: tf.Tensor, channels: int) -> tf.Tensor:
    header = read_npy_header(encoded, data, channels)
    with tf.control_dependencies([_refuse(header.refusal)]):
        pixels = decode_npy(tf.identity(encoded), header)
    is_finite = tf.reduce_all(tf.math.is_finite(pixels))
    reason = tf.where(is_finite, "", "a .npy file with numbers that are not finite (NaN)")
    with tf.control_dependencies([_refuse(reason)]):
        return tf.identity(pixels)


def _decode_photo(
    encoded: tf.Tensor,
    data: tf.Tensor,
    channels: int,
    decode_photo: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    if channels == 1:
        return _as_grey(decode_photo(encoded))
    header = read_header(encoded, data)
    is_png = header.kind == KINDS.index("png")
    color = tf.cast(data[25], tf.int32)
    held = tf.gather(tf.constant(_PNG_BANDS), tf.minimum(color, len(_PNG_BANDS) - 1))
    bands = choose(is_png, held, RGB)
    words = [
        "a ",
        tf.gather(tf.constant([kind.upper() for kind in KINDS]), header.kind),
        " image of ",
    ]
    counted = [tf.strings.as_string(bands), f" bands where data.channels is {channels}"]
    wrong = tf.where(bands != channels, tf.strings.join([*words, *counted]), "")
    refusal = tf.where(header.refusal != "", header.refusal, wrong)
    with tf.control_dependencies([_refuse(refusal)]):
        encoded = tf.identity(encoded)
    if channels not in _PNG_BANDS:
        return tf.zeros([0, 0, channels])  # refused above
    pixels = tf.cast(tf.io.decode_png(encoded, channels=0), tf.float32)
    return turn_upright(pixels, read_orientation(data, header.exif_start, header.exif_end))


def _refuse(reason: tf.Tensor) -> tf.Operation:
    message = tf.strings.join([REFUSED, reason])
    return tf.debugging.Assert(tf.equal(reason, ""), [message])


def _as_grey(pixels: tf.Tensor) -> tf.Tensor:
    """Returns float32 (h, w, 1), the levels of 0..255 that Pillow's mode L has."""
    weighted = tf.reduce_sum(tf.cast(pixels, tf.int32) * tf.constant(_GREY), -1, keepdims=True)
    return tf.cast((weighted + (1 << 15)) // (1 << 16), tf.float32)
