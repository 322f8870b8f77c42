"""The first frame of a GIF, found by TensorFlow operations only."""

from __future__ import annotations

import tensorflow as tf

from tl_toolkit.images.exif import choose

__all__ = ["GIF_EMPTY", "GIF_JUNK", "GIF_TRUNCATED", "find_gif_frame", "table_bytes"]

_BLOCK, _EXTENSION, _IMAGE, _DONE = 0, 1, 2, 3
GIF_TRUNCATED, GIF_EMPTY, GIF_JUNK = 4, 5, 6
# Blocks walked in a GIF, full ones counting 1/64: thousands for a large frame, millions in a trap.
_MAX_BLOCKS = 10_000


def find_gif_frame(data: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Walks the blocks up to the end of the first frame.

    Args:
        data: As in `tl_toolkit.images.headers`.
        size: int64 (), bytes of the file.

    Returns:
        int64 scalars: the state, one of GIF_TRUNCATED, GIF_EMPTY and GIF_JUNK where there is no
        whole frame; the frame's first byte, 0 without one; the first byte after it.
    """

    def step(state: tf.Tensor, position: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, ...]:
        window = data[position : position + 10]
        introducer = tf.cast(window[0], tf.int64)
        in_data = (state == _EXTENSION) | (state == _IMAGE)
        # Sub-blocks are full (255 bytes) but for the last one: pass up to 64 of them at once.
        lengths = data[position : position + 64 * 256 : 256]
        full = tf.reduce_sum(tf.math.cumprod(tf.cast(lengths == 255, tf.int64)))
        forward = choose(full > 0, 256 * full, introducer + 1)
        ended = choose(state == _IMAGE, _DONE, _BLOCK)
        block = _first_state(introducer)
        is_image = ~in_data & (block == _IMAGE)
        return (
            choose(in_data, choose(introducer == 0, ended, state), block),
            position + choose(in_data, forward, choose(is_image, 11 + table_bytes(window[9]), 2)),
            choose(is_image, position, start),
        )

    def is_within(state: tf.Tensor, position: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        return (state < _DONE) & (position < size)

    state, position, start = tf.while_loop(
        is_within,
        step,
        (tf.constant(_BLOCK, tf.int64), 13 + table_bytes(data[10]), tf.constant(0, tf.int64)),
        maximum_iterations=_MAX_BLOCKS,
        parallel_iterations=1,
    )
    return choose(state < _DONE, GIF_TRUNCATED, state), start, position


def _first_state(introducer: tf.Tensor) -> tf.Tensor:
    states = {0x21: _EXTENSION, 0x2C: _IMAGE, 0x3B: GIF_EMPTY}
    state = tf.constant(GIF_JUNK, tf.int64)
    for value, name in states.items():
        state = choose(introducer == value, name, state)
    return state


def table_bytes(packed: tf.Tensor) -> tf.Tensor:
    """Returns the length of the colour table, int64, that a GIF's flags byte announces.

    Args:
        packed: uint8 (), the flags.
    """
    packed = tf.cast(packed, tf.int64)
    return choose(
        packed & 0x80 > 0, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), packed & 7), 0
    )
