"""How many images a request has, and how many pixels, before one of them is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tl_toolkit.serving.saved_model import Signature
from tl_toolkit.serving.tensors import Refusal

__all__ = ["count_images", "count_pixels"]


def count_images(signature: Signature, inputs: Mapping[str, np.ndarray]) -> int:
    """Returns the number of images of a request; 1 where the inputs are no batch.

    Args:
        signature: The signature.
        inputs: Its inputs.

    Raises:
        Refusal: Inputs have different numbers of images, or none.
    """
    if not signature.takes_batches:
        return 1
    counts = {name: len(inputs[name]) for name in signature.inputs}
    if len(set(counts.values())) > 1:
        raise Refusal(400, f"inputs have different numbers of images: {counts}")
    count = next(iter(counts.values()))
    if count == 0:
        raise Refusal(400, "a request needs at least one image")
    return count


def count_pixels(signature: Signature, inputs: Mapping[str, np.ndarray], most: int) -> list[int]:
    """Returns the pixels of each image of a request, by what the heads of its files say.

    Args:
        signature: The signature.
        inputs: Its inputs.
        most: The pixels of a file whose head cannot be read.
    """
    count = count_images(signature, inputs)
    pixels, has_unread = [0] * count, [False] * count
    for name, spec in signature.inputs.items():
        values = inputs[name]
        if spec.dtype == "string":
            for place, files in enumerate(values.reshape(count, -1)):
                sizes = [_read_size(bytes(file)) for file in files]
                pixels[place] += sum(sizes)
                has_unread[place] |= 0 in sizes
        elif values.ndim == 4:
            pixels = [total + values.shape[1] * values.shape[2] for total in pixels]
    return [
        max(total, most) if is_unread else total
        for total, is_unread in zip(pixels, has_unread, strict=True)
    ]


def _read_size(file: bytes) -> int:
    """Returns the pixels of an encoded image; 0 where its head cannot be read."""
    kind = next((kind for kind in _READERS if file.startswith(kind)), b"")
    if not kind:
        return 0
    height, width = _READERS[kind](file if kind == _JPEG else file[:_HEAD].ljust(_HEAD, b"\0"))
    return height * width


def _read_jpeg(file: bytes) -> tuple[int, int]:
    try:
        height, width, _ = tf.image.extract_jpeg_shape(file).numpy().tolist()
    except tf.errors.OpError:
        return 0, 0
    return height, width


def _read_png(head: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", head, 16)
    return (height, width) if head[12:16] == b"IHDR" else (0, 0)


def _read_gif(head: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", head, 6)  # of a first frame that fills the image
    return height, width


def _read_bmp(head: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<Ii", head, 18)
    return abs(height), width  # a negative height says that stored rows run downwards


def _read_webp(head: bytes) -> tuple[int, int]:
    if head[8:16] == b"WEBPVP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return height % (1 << 14), width % (1 << 14)
    if head[8:16] == b"WEBPVP8L":
        packed = int.from_bytes(head[21:25], "little")
        return (packed >> 14) % (1 << 14) + 1, packed % (1 << 14) + 1
    if head[8:16] == b"WEBPVP8X":
        height, width = (int.from_bytes(head[at : at + 3], "little") for at in (27, 24))
        return height + 1, width + 1
    return 0, 0


_JPEG = b"\xff\xd8\xff"
_HEAD = 64
_READERS: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    _JPEG: _read_jpeg,
    b"\x89PNG\r\n\x1a\n": _read_png,
    b"GIF87a": _read_gif,
    b"GIF89a": _read_gif,
    b"BM": _read_bmp,
    b"RIFF": _read_webp,
}
"""Readers of height and width by a file's first bytes, at the places where `images.headers` reads
them in an exported graph: what the graph decodes has a size here, too."""
