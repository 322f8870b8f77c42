"""The EXIF orientation of an image, read by TensorFlow operations only.

A damaged EXIF block is never a reason to refuse an image: it has orientation 1. Only the EXIF block
is read, as in browsers; Pillow also reads XMP and PNG text where EXIF has no orientation, which
`tl_toolkit.images.upright` keeps it from.
Arguments are as in `tl_toolkit.images.headers`: padded bytes, and their number without the padding.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Files have tens of segments; a crafted one with millions must not keep the decoder busy.
_MAX_SEGMENTS = 10_000
_ORIENTATION = 274
_BYTE, _SHORT, _LONG = 1, 3, 4
_Segment = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def find_jpeg_exif(data: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (start, end) of the Exif segment's content; 0, 0 without one.

    Args:
        data: uint8 (n,), the file and PADDING zeros.
        size: int64 (), bytes of the file.
    """

    def read(window: tf.Tensor) -> _Segment:
        marker = window[1]
        length = big(window[2:4], 2)
        # Bytes between segments are skipped, as in libjpeg and Pillow.
        is_between = (window[0] != 0xFF) | (marker == 0xFF)
        is_bare = (marker <= 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        is_last = (marker == 0xD9) | (marker == 0xDA) | (~is_bare & (length < 2))
        is_exif = ~is_between & (marker == 0xE1) & spells(window[4:10], b"Exif\0\0")
        step = choose(is_between, 1, choose(is_bare, 2, 2 + length))
        return ~is_between & is_last, is_exif, step

    return _find_segment(data, size, read, first=2, head=4)


def find_png_exif(data: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (start, end) of the eXIf chunk's content and checksum; 0, 0 without one.

    Args:
        data: uint8 (n,), the file and PADDING zeros.
        size: int64 (), bytes of the file.
    """

    def read(window: tf.Tensor) -> _Segment:
        is_last = spells(window[4:8], b"IEND")
        return is_last, spells(window[4:8], b"eXIf"), 12 + big(window[:4], 4)

    return _find_segment(data, size, read, first=8, head=8)


def find_webp_exif(data: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (start, end) of the EXIF chunk's content; 0, 0 without one.

    Args:
        data: uint8 (n,), the file and PADDING zeros.
        size: int64 (), bytes of the file.
    """

    def read(window: tf.Tensor) -> _Segment:
        length = little(window[4:8], 4)
        return tf.constant(False), spells(window[:4], b"EXIF"), 8 + length + length % 2

    return _find_segment(data, size, read, first=12, head=8)


def _find_segment(
    data: tf.Tensor,
    size: tf.Tensor,
    read: Callable[[tf.Tensor], _Segment],
    *,
    first: int,
    head: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Walks segments until `read` finds the segment.

    Args:
        data: uint8 (size + padding,).
        size: int64, bytes of the file.
        read: Takes the next ten bytes; returns (walk ends, segment is found, bytes to the next
            one).
        first: Position of the first segment.
        head: Bytes of a segment before its content.
    """

    def is_within(position: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        return (end == 0) & (position < size)

    def step(position: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> _Segment:
        is_last, is_match, length = read(data[position : position + 10])
        following = tf.where(is_last, size, tf.minimum(position + length, size))
        is_match &= ~is_last
        return (
            following,
            choose(is_match, tf.minimum(position + head, following), 0),
            choose(is_match, following, 0),
        )

    zero = tf.constant(0, tf.int64)
    _, start, end = tf.while_loop(
        is_within,
        step,
        (tf.constant(first, tf.int64), zero, zero),
        maximum_iterations=_MAX_SEGMENTS,
        parallel_iterations=1,
    )
    return start, end


def read_orientation(data: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Returns the orientation, int64 1 to 8, that an EXIF block gives; 1 without a block.

    Args:
        data: uint8 (n,), the file and PADDING zeros.
        start: int64 (), first byte of the block.
        end: int64 (), first byte after it.
    """
    return tf.cond(
        end > start, lambda: _read_tag(data[start:end]), lambda: tf.constant(1, tf.int64)
    )


def _read_tag(block: tf.Tensor) -> tf.Tensor:
    """Finds tag 274 in the first directory of a TIFF structure, whichever its byte order."""
    block = tf.pad(block, [[0, 12]])
    block = block[choose(spells(block[:6], b"Exif\0\0"), 6, 0) :]
    is_little, is_big = spells(block[:4], b"II*\0"), spells(block[:4], b"MM\0*")
    directory = _number(block[4:8], is_big, 4)
    last = tf.size(block, tf.int64) - 12
    is_inside = (is_little | is_big) & (directory >= 8) & (directory + 2 <= last)
    directory = choose(is_inside, directory, 0)
    count = _number(block[directory : directory + 2], is_big, 2)
    count = choose(is_inside, tf.minimum(count, (last - directory - 2) // 12), 0)
    entries = block[directory + 2 : directory + 2 + 12 * count]
    return _pick_orientation(tf.reshape(entries, [-1, 12]), is_big)


def _pick_orientation(entries: tf.Tensor, is_big: tf.Tensor) -> tf.Tensor:
    """Returns the value of the last orientation entry of (n, 12), as Pillow does; 1 without one."""
    tags = _number(entries[:, 0:2], is_big, 2)
    types = _number(entries[:, 2:4], is_big, 2)
    counts = _number(entries[:, 4:8], is_big, 4)
    longs = choose(types == _LONG, _number(entries[:, 8:12], is_big, 4), entries[:, 8])
    values = choose(types == _SHORT, _number(entries[:, 8:10], is_big, 2), longs)
    is_number = (types == _BYTE) | (types == _SHORT) | (types == _LONG)
    orientations = tf.boolean_mask(values, (tags == _ORIENTATION) & (counts == 1) & is_number)
    value = tf.concat([tf.constant([1], tf.int64), orientations], axis=0)[-1]
    return choose((value >= 1) & (value <= 8), value, 1)


def _number(window: tf.Tensor, is_big: tf.Tensor, count: int) -> tf.Tensor:
    """Reads unsigned numbers of `count` bytes along the last axis, in either byte order."""
    return _join(window, tf.where(is_big, _places(count)[::-1], _places(count)))


def little(window: tf.Tensor, count: int) -> tf.Tensor:
    """Reads unsigned little-endian numbers of up to 4 bytes along the last axis, as int64.

    Args:
        window: uint8 (..., count).
        count: Bytes of a number.
    """
    return _join(window, _places(count))


def big(window: tf.Tensor, count: int) -> tf.Tensor:
    """Reads unsigned big-endian numbers of up to 4 bytes along the last axis, as int64.

    Args:
        window: uint8 (..., count).
        count: Bytes of a number.
    """
    return _join(window, _places(count)[::-1])


def _places(count: int) -> list[int]:
    return [256**place for place in range(count)]


def _join(window: tf.Tensor, places: tf.Tensor | list[int]) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(window, tf.int64) * tf.cast(places, tf.int64), axis=-1)


def choose(condition: tf.Tensor, this: tf.Tensor | int, that: tf.Tensor | int) -> tf.Tensor:
    """Returns `this` where a condition holds, else `that`, as int64.

    Args:
        condition: bool (...).
        this: Broadcasts to the condition.
        that: Broadcasts to the condition.
    """
    return tf.where(condition, tf.cast(this, tf.int64), tf.cast(that, tf.int64))


def spells(window: tf.Tensor, word: bytes) -> tf.Tensor:
    """Returns whether bytes are those of a word.

    Args:
        window: uint8 (n,).
        word: n bytes.
    """
    return tf.reduce_all(window == tf.constant(list(word), tf.uint8))
