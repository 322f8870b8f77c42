"""Where pixels are after a resize, and targets resized with their images."""

from __future__ import annotations

from typing import Any

import numpy as np

from tl_toolkit.images.geometry import Padding, Resize
from tl_toolkit.tasks.dense.spec import IGNORE

__all__ = ["Size", "blank_unseen", "find_seen", "place_pixels", "resize_target"]

Size = tuple[int, int]
"""Height and width in pixels."""


def place_pixels(
    source: Size, size: Size, mode: Resize = "stretch"
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where rows and columns of an image are after a resize as in `resize_image`.

    Args:
        source: Height and width of the image.
        size: Height and width that it is resized to.
        mode: As in `resize_image`.

    Returns:
        float32 (height,) and (width,), in pixels of the resized image: the centre of its first one
        is 0. With "crop", places below 0 or above the last pixel were cut off.
    """
    rows, columns = (
        ((np.arange(length) + 0.5) * scale + shift - 0.5).astype(np.float32)
        for length, (scale, shift) in zip(source, _scales(source, size, mode), strict=True)
    )
    return rows, columns


def resize_target(
    target: np.ndarray, size: Size, mode: Resize = "stretch", *, fill: Any = 0
) -> np.ndarray:
    """Resizes a target as `resize_image` does its image; each pixel takes the nearest target.

    Args:
        target: (h, w, ...).
        size: Height and width of the result.
        mode: As in `resize_image`.
        fill: The target of pixels of a padding.
    """
    scales = _scales(target.shape[:2], size, mode)
    for axis, (length, (scale, shift)) in enumerate(zip(size, scales, strict=True)):
        last = target.shape[axis] - 1
        nearest = np.floor((np.arange(length) + 0.5 - shift) / scale).astype(np.int64)
        target = np.take(target, np.clip(nearest, 0, last), axis=axis)
        if isinstance(mode, Padding):
            np.moveaxis(target, axis, 0)[(nearest < 0) | (nearest > last)] = fill
    return target


def find_seen(ys: np.ndarray, xs: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Returns which rows and columns the model sees, bool each: a crop cuts some off.

    Args:
        ys: Places of rows, in pixels of the model's image.
        xs: Places of columns.
        size: (height, width) of the model's image.
    """
    return tuple(
        (places >= -0.5) & (places <= side - 0.5)
        for places, side in zip((ys, xs), size, strict=True)
    )


def blank_unseen(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Empties a map where the model has not seen the image.

    Args:
        values: (h, w, ...).
        seen: bool (h, w).
    """
    blank = IGNORE if np.issubdtype(values.dtype, np.integer) else 0
    mask = seen.reshape(seen.shape + (1,) * (values.ndim - 2))
    return np.where(mask, values, blank).astype(values.dtype)


def _scales(source: Size, size: Size, mode: Resize) -> list[tuple[float, float]]:
    """Returns the factor and the shift of rows and of columns."""
    if isinstance(mode, Padding):
        return _fit_inside(source, size)
    scales = [length / before for length, before in zip(size, source, strict=True)]
    if mode == "crop":
        scales = [max(scales)] * 2
    return [
        (scale, (length - before * scale) / 2)
        for scale, length, before in zip(scales, size, source, strict=True)
    ]


def _fit_inside(source: Size, size: Size) -> list[tuple[float, float]]:
    """Returns the same for an image in its padding, where it takes whole pixels."""
    scale = min(length / before for length, before in zip(size, source, strict=True))
    inner = [max(round(before * scale), 1) for before in source]
    return [
        (side / before, (length - side) // 2)
        for side, length, before in zip(inner, size, source, strict=True)
    ]
