"""Reads the header of an encoded image, by TensorFlow operations only.

Every function here takes `data`, the file as uint8 bytes followed by PADDING zeros, so that a short
file can be read past its end without an error, and `size`, its length without the padding.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from tl_toolkit.images.exif import (
    big,
    choose,
    find_jpeg_exif,
    find_png_exif,
    find_webp_exif,
    little,
    spells,
)
from tl_toolkit.images.gif_frames import GIF_EMPTY, GIF_JUNK, GIF_TRUNCATED, find_gif_frame
from tl_toolkit.sources.listing import MAX_BYTES, MAX_PIXELS

KINDS = ("unknown", "jpeg", "png", "gif", "bmp", "webp")
PADDING = 64

_MAGICS: Mapping[str, Sequence[Mapping[int, bytes]]] = {
    "jpeg": [{0: b"\xff\xd8\xff"}],
    "png": [{0: b"\x89PNG\r\n\x1a\n"}],
    "gif": [{0: b"GIF87a"}, {0: b"GIF89a"}],
    "bmp": [{0: b"BM"}],
    "webp": [{0: b"RIFF", 8: b"WEBP"}],
}
"""For each kind, the bytes that a file has at some positions; there may be several."""

_ANIMATION_FLAG, _ALPHA_FLAG = 0x02, 0x10  # of the WebP chunk VP8X

_Fields = tuple[tf.Tensor, ...]


class Header(NamedTuple):
    """The header of an image, known before its pixels are decoded; scalar tensors.

    Attributes:
        kind: int32, index into KINDS.
        height: int64, as stored, before the orientation is applied.
        width: int64, as stored.
        channels: int64, of a JPEG; 0 for other kinds.
        exif_start: int64, first byte of the EXIF block.
        exif_end: int64, first byte after it; 0 if there is none.
        start: int64, first byte of the part that the decoder of this kind needs beside the file
            itself: the frame of a GIF, the palette of an 8-bit BMP.
        end: int64, first byte after that part; 0 if there is none.
        size: int64, bytes of the file that belong to the image.
        refusal: string, why the image is refused; empty if it is not.
    """

    kind: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor
    channels: tf.Tensor
    exif_start: tf.Tensor
    exif_end: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    size: tf.Tensor
    refusal: tf.Tensor


def pad_bytes(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of a string as uint8, followed by PADDING zeros.

    Args:
        encoded: string ().
    """
    return tf.pad(tf.io.decode_raw(encoded, tf.uint8), [[0, PADDING]])


def find_kind(encoded: bytes) -> int:
    """Returns the kind of an image file that is in memory, as `read_header` finds it in a graph.

    Args:
        encoded: The bytes of the file.

    Returns:
        Index into KINDS; that of "unknown" for a file of more than MAX_BYTES, which is refused.
    """
    if len(encoded) > MAX_BYTES:
        return 0
    for kind, magics in _MAGICS.items():
        for magic in magics:
            if all(encoded.startswith(text, place) for place, text in magic.items()):
                return KINDS.index(kind)
    return 0


def read_header(encoded: tf.Tensor, data: tf.Tensor, kind: int | None = None) -> Header:
    """Reads kind and size, and the reason to refuse the image if there is one.

    Args:
        encoded: string (), the bytes of an image file.
        data: The same as uint8 (n,), from `pad_bytes`.
        kind: What `find_kind` says of all files; None reads it from each.

    Returns:
        The header. A JPEG without a readable frame header raises InvalidArgumentError.
    """
    size = tf.cast(tf.strings.length(encoded), tf.int64)
    readers: list[Callable[[], _Fields]] = [
        lambda: _refuse_unknown(data, size),
        lambda: _read_jpeg(encoded, data, size),
        lambda: _read_png(data, size),
        lambda: _read_gif(data, size),
        lambda: _read_bmp(data, size),
        lambda: _read_webp(data, size),
    ]
    if kind is None:
        found = _find_kind(data)
        fields = tf.switch_case(tf.where(size > MAX_BYTES, 0, found), readers)
    else:
        found, fields = tf.constant(kind), readers[kind]()
    header = Header(found, *fields)
    return header._replace(refusal=_refuse(header, size), size=tf.minimum(header.size, size))


def _result(
    *,
    height: tf.Tensor | int = 0,
    width: tf.Tensor | int = 0,
    channels: tf.Tensor | int = 0,
    exif: tuple[tf.Tensor | int, tf.Tensor | int] = (0, 0),
    start: tf.Tensor | int = 0,
    end: tf.Tensor | int = 0,
    size: tf.Tensor | int = MAX_BYTES,
    refusal: tf.Tensor | str = "",
) -> _Fields:
    return (
        *(tf.cast(value, tf.int64) for value in (height, width, channels, *exif, start, end, size)),
        tf.convert_to_tensor(refusal),
    )


def _starts(data: tf.Tensor, magic: bytes, position: int = 0) -> tf.Tensor:
    return spells(data[position : position + len(magic)], magic)


def _little(data: tf.Tensor, position: tf.Tensor | int, count: int) -> tf.Tensor:
    return little(data[position : position + count], count)


def _big(data: tf.Tensor, position: int, count: int) -> tf.Tensor:
    return big(data[position : position + count], count)


def _first_of(*cases: tuple[tf.Tensor, str | tf.Tensor]) -> tf.Tensor:
    """Returns the text of the first case that holds, or an empty string."""
    words = tf.constant("")
    for holds, text in reversed(cases):
        words = tf.where(holds, text, words)
    return words


def _find_kind(data: tf.Tensor) -> tf.Tensor:
    is_kind = {
        kind: functools.reduce(operator.or_, (_has(data, magic) for magic in magics))
        for kind, magics in _MAGICS.items()
    }
    return tf.add_n([tf.cast(is_kind[name], tf.int32) * KINDS.index(name) for name in is_kind])


def _has(data: tf.Tensor, magic: Mapping[int, bytes]) -> tf.Tensor:
    found = (_starts(data, text, place) for place, text in magic.items())
    return functools.reduce(operator.and_, found)


def _refuse(header: Header, size: tf.Tensor) -> tf.Tensor:
    sides = [tf.strings.as_string(header.width), " x ", tf.strings.as_string(header.height)]
    largest = tf.maximum(header.height, header.width)
    # The product of two unsigned 32-bit sides may wrap around, so each side is checked as well.
    is_bomb = (header.height * header.width > MAX_PIXELS) | (largest > MAX_PIXELS)
    limit = f" pixels; at most {MAX_PIXELS} are decoded"
    return _first_of(
        (size > MAX_BYTES, f"a file of more than {MAX_BYTES >> 20} MiB"),
        (is_bomb, tf.strings.join(["an image of ", *sides, limit])),
        (header.refusal != "", header.refusal),
        (largest <= 0, "an image without pixels"),
        (tf.minimum(header.height, header.width) <= 0, tf.strings.join(["an image of ", *sides])),
    )


def _refuse_unknown(data: tf.Tensor, size: tf.Tensor) -> _Fields:
    is_tiff = _starts(data, b"II*\0") | _starts(data, b"MM\0*")
    is_text = _starts(data, b"<") | _starts(data, b"{")
    return _result(
        refusal=_first_of(
            (size == 0, "an empty file"),
            (is_tiff, "a TIFF image"),
            (_starts(data, b"ftyp", 4), "an HEIC or AVIF image"),
            (_starts(data, b"\x93NUMPY"), "a .npy array, which is read with its data.channels"),
            (_starts(data, b"version https://git-lfs"), "a Git LFS pointer in place of the image"),
            (is_text, "a text file, as a saved web page, in place of an image"),
            (size > 0, "a file that is no JPEG, PNG, GIF, BMP or WebP by its first bytes"),
        )
    )


def _read_jpeg(encoded: tf.Tensor, data: tf.Tensor, size: tf.Tensor) -> _Fields:
    # libjpeg itself finds the frame header, so that the decoder will read the size that is checked.
    shape = tf.image.extract_jpeg_shape(encoded)
    return _result(
        height=shape[0], width=shape[1], channels=shape[2], exif=find_jpeg_exif(data, size)
    )


def _read_png(data: tf.Tensor, size: tf.Tensor) -> _Fields:
    return _result(
        height=_big(data, 20, 4),
        width=_big(data, 16, 4),
        exif=find_png_exif(data, size),
        refusal=_first_of((~_starts(data, b"IHDR", 12), "a PNG image without a header")),
    )


def _read_bmp(data: tf.Tensor, size: tf.Tensor) -> _Fields:
    header_size = _little(data, 14, 4)
    # A negative height says that stored rows run downwards.
    height = _little(data, 22, 4)
    height = choose(height < 1 << 31, height, (1 << 32) - height)
    bits = _little(data, 28, 2)
    compression = _little(data, 30, 4)
    colors = _little(data, 46, 4)
    colors = choose((colors == 0) | (colors > 256), 256, colors)
    start = tf.minimum(14 + header_size, size)
    has_palette = bits == 8
    is_plain = (
        (header_size >= 40) & (compression == 0) & (has_palette | (bits == 24) | (bits == 32))
    )
    width = _little(data, 18, 4)
    row_bytes = 4 * ((bits * width + 31) // 32)
    return _result(
        height=height,
        width=width,
        size=_little(data, 10, 4) + row_bytes * height,
        start=choose(has_palette, start, 0),
        end=choose(has_palette, tf.minimum(start + 4 * colors, size), 0),
        refusal=_first_of((~is_plain, "a BMP image that is not plain 8, 24 or 32 bits")),
    )


def _read_webp(data: tf.Tensor, size: tf.Tensor) -> _Fields:
    is_lossy, is_lossless = _starts(data, b"VP8 ", 12), _starts(data, b"VP8L", 12)
    is_extended = _starts(data, b"VP8X", 12)
    flags = tf.cast(data[20], tf.int32)
    packed = _little(data, 21, 4)  # VP8L: 14 bits of width - 1, 14 of height - 1, 1 of alpha
    sides = [
        (_little(data, 28, 2) % (1 << 14), _little(data, 26, 2) % (1 << 14)),
        (packed // (1 << 14) % (1 << 14) + 1, packed % (1 << 14) + 1),
        (_little(data, 27, 3) + 1, _little(data, 24, 3) + 1),
    ]
    layouts = [is_lossy, is_lossless, is_extended]
    height, width = (
        tf.add_n([choose(holds, pair[side], 0) for holds, pair in zip(layouts, sides, strict=True)])
        for side in (0, 1)
    )
    has_alpha = (is_lossless & (packed // (1 << 28) % 2 > 0)) | (
        is_extended & (flags & _ALPHA_FLAG > 0)
    )
    # Only the extended layout has chunks beside the pixels.
    exif_size = choose(is_extended, size, 0)
    return _result(
        height=height,
        width=width,
        exif=find_webp_exif(data, exif_size),
        refusal=_first_of(
            (is_extended & (flags & _ANIMATION_FLAG > 0), "an animated WebP image"),
            (has_alpha, "a WebP image with alpha"),
            (~(is_lossy | is_lossless | is_extended), "a WebP image without a known chunk"),
        ),
    )


def _read_gif(data: tf.Tensor, size: tf.Tensor) -> _Fields:
    """Finds the first frame alone: later ones may be many, large, or broken."""
    state, start, end = find_gif_frame(data, size)
    height, width = _little(data, 8, 2), _little(data, 6, 2)
    left, top, frame_width, frame_height = (
        choose(start > 0, _little(data, start + offset, 2), 0) for offset in (1, 3, 5, 7)
    )
    is_whole = (left == 0) & (top == 0) & (frame_width == width) & (frame_height == height)
    return _result(
        height=tf.maximum(height, top + frame_height),
        width=tf.maximum(width, left + frame_width),
        start=start,
        end=end,
        refusal=_first_of(
            (state == GIF_TRUNCATED, "a GIF image that ends within its first frame"),
            (state == GIF_EMPTY, "a GIF image without a frame"),
            (state == GIF_JUNK, "a GIF image with an unknown block"),
            ((height == 0) | (width == 0), "a GIF image without pixels"),
            (~is_whole, "a GIF image whose first frame does not fill it"),
        ),
    )
