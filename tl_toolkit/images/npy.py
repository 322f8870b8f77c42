"""Reads arrays of numpy's .npy format, by TensorFlow operations only, so that exports read them.

Nothing in a file is executed: objects are refused, as numpy does with `allow_pickle=False`. The
header is compared with the length of the file before memory for the array is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tl_toolkit.images.exif import choose, little, spells
from tl_toolkit.images.npy_header import HEADER, KINDS, MOST_HEADER_BYTES, SHAPE, TYPE
from tl_toolkit.sources.listing import MAX_PIXELS

__all__ = ["NpyHeader", "decode_npy", "read_npy_header"]

_KINDS = {name: tf.as_dtype(kind) for name, kind in KINDS.items()}


class NpyHeader(NamedTuple):
    """The header of an array; scalar tensors.

    Attributes:
        place: int32, index into the known kinds of numbers.
        is_big: bool, whether the highest byte of a number comes first.
        is_fortran: bool, whether the first axis varies fastest.
        shape: int64 (3,), height, width and bands.
        start: int64, the first byte of the numbers.
        refusal: string, why the array is refused; empty if it is not.
    """

    place: tf.Tensor
    is_big: tf.Tensor
    is_fortran: tf.Tensor
    shape: tf.Tensor
    start: tf.Tensor
    refusal: tf.Tensor


def read_npy_header(encoded: tf.Tensor, data: tf.Tensor, channels: int) -> NpyHeader:
    """Reads type and shape, and the reason to refuse the array if there is one.

    Args:
        encoded: string (), the bytes of the file.
        data: The same as uint8, from `headers.pad_bytes`.
        channels: How many bands are expected.
    """
    size = tf.cast(tf.strings.length(encoded), tf.int64)
    is_short = spells(data[6:7], b"\x01")  # version 1 has two bytes for the length, 2 and 3 four
    length = choose(is_short, little(data[8:10], 2), little(data[8:12], 4))
    before = choose(is_short, 10, 12)
    start = before + length
    is_whole = (start <= size) & (length <= MOST_HEADER_BYTES)
    text = tf.strings.substr(encoded, tf.minimum(before, size), choose(is_whole, length, 0))
    is_read = tf.strings.regex_full_match(text, HEADER)
    kind, order, spelled = (
        tf.strings.regex_replace(text, HEADER, rf"\{place}") for place in (1, 2, 3)
    )
    same = tf.constant(list(_KINDS)) == tf.strings.regex_replace(kind, TYPE, r"\1")
    place = tf.argmax(tf.cast(same, tf.int32), output_type=tf.int32)
    is_image = tf.strings.regex_full_match(spelled, SHAPE)
    shape = _read_shape(tf.where(is_image, spelled, "0, 0, 0"))
    height, width, bands = tf.unstack(shape)
    item = tf.gather(tf.constant([dtype.size for dtype in _KINDS.values()], tf.int64), place)
    needed = start + height * width * bands * item
    of_shape = tf.strings.join(["an array of shape (", spelled, ")"])
    counted = tf.strings.join(
        ["an array of ", tf.strings.as_string(bands), f" bands where data.channels is {channels}"]
    )
    first = f"; bands come last, as in (height, width, {channels}): numpy.moveaxis(array, 0, -1)"
    asked = [
        tf.strings.as_string(size),
        " bytes, its header asks for ",
        tf.strings.as_string(needed),
    ]
    cases = (
        (~is_whole, "a .npy file that is cut off"),
        (~is_read, "a .npy file whose header cannot be read"),
        (tf.strings.regex_full_match(kind, r".?O.*"), "a .npy file of Python objects, not numbers"),
        (
            ~tf.reduce_any(same),
            tf.strings.join(["a .npy file of the type ", kind, ", none of ", ", ".join(_KINDS)]),
        ),
        (~is_image, tf.strings.join([of_shape, f": (height, width, {channels}) is expected"])),
        ((bands != channels) & (height == channels), tf.strings.join([counted, first])),
        (bands != channels, counted),
        (
            (tf.reduce_max(shape) > MAX_PIXELS) | (height * width > MAX_PIXELS),
            tf.strings.join([of_shape, f": at most {MAX_PIXELS} pixels are decoded"]),
        ),
        (height * width <= 0, tf.strings.join([of_shape, ", without pixels"])),
        (needed != size, tf.strings.join(["a .npy file of ", *asked])),
    )
    refusal = tf.constant("")
    for holds, reason in reversed(cases):
        refusal = tf.where(holds, reason, refusal)
    is_big = tf.strings.regex_full_match(kind, ">.*")
    return NpyHeader(place, is_big, order == "True", shape, start, refusal)


def _read_shape(spelled: tf.Tensor) -> tf.Tensor:
    """Returns int64 (3,) of "64, 64, 4", or of "64, 64" with one band."""
    sides = [tf.strings.regex_replace(spelled, SHAPE, rf"\{place}") for place in (1, 2, 3)]
    sides[2] = tf.where(sides[2] == "", "1", sides[2])
    return tf.strings.to_number(tf.stack(sides), tf.int64)


def decode_npy(encoded: tf.Tensor, header: NpyHeader) -> tf.Tensor:
    """Returns the numbers of an array that is not refused, float32 (h, w, bands).

    Args:
        encoded: string (), the bytes of the file.
        header: Its header.
    """
    size = tf.cast(tf.strings.length(encoded), tf.int64)
    count = tf.reduce_prod(header.shape)
    data = tf.io.decode_raw(tf.strings.substr(encoded, header.start, size - header.start), tf.uint8)
    data = tf.reshape(data, tf.stack([count, (size - header.start) // count]))
    data = tf.cond(header.is_big, lambda: tf.reverse(data, [1]), lambda: data)

    def read(dtype: tf.DType) -> Callable[[], tf.Tensor]:
        def cast() -> tf.Tensor:
            numbers = data[:, 0] if dtype.size == 1 else tf.ensure_shape(data, [None, dtype.size])
            return tf.cast(tf.bitcast(numbers, dtype), tf.float32)

        return cast

    flat = tf.switch_case(header.place, [read(dtype) for dtype in _KINDS.values()])
    return tf.cond(
        header.is_fortran,
        lambda: tf.transpose(tf.reshape(flat, tf.reverse(header.shape, [0]))),
        lambda: tf.reshape(flat, header.shape),
    )
