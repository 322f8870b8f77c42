"""How the pixels of an image move, and the targets of each pixel with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

__all__ = ["GeometricTransform", "Padding", "Resize", "build_resize"]

_GREY = 114  # near the mean of ImageNet's photos, (124, 116, 104)


@dataclass(frozen=True)
class Padding:
    """A resize that scales an image to fit, and pads it on both sides to the size.

    Attributes:
        color: RGB of the padding, each in 0..255; for other channels the first is that of all.
    """

    color: tuple[int, int, int] = (_GREY, _GREY, _GREY)


Resize: TypeAlias = Literal["stretch", "crop"] | Padding
"""How images are resized: stretch changes proportions, crop scales to cover and keeps the centre,
and a padding scales to fit."""


def build_resize(
    resize: Literal["stretch", "crop", "pad"],
    pad_color: int | tuple[int, int, int] | None,
    channels: int = 3,
) -> Resize:
    """Returns how images are resized, from a recipe's values.

    Args:
        resize: A word.
        pad_color: Grey level or RGB of the padding for "pad"; None for grey, or 0 with other
            channels than 3.
        channels: Channels of the images.
    """
    if resize != "pad":
        return resize
    if isinstance(pad_color, tuple):
        return Padding(pad_color)
    default = _GREY if channels == 3 else 0
    level = default if pad_color is None else pad_color
    return Padding((level, level, level))


@dataclass(frozen=True)
class GeometricTransform:
    """How the pixels of an image move, step by step.

    Attributes:
        steps: float (n, 3, 3). Each takes a place (x, y, 1) in the image after a step to the one in
            the image before it that it shows. x is to the right, y down; the first pixel's centre
            is 0.
    """

    steps: np.ndarray

    def move(self, values: np.ndarray, fill: Any) -> np.ndarray:
        """Moves the values of pixels; each pixel takes the value of the nearest one.

        Args:
            values: (h, w, ...), of the image before. Vectors are moved but keep their direction,
                which `turn` changes.
            fill: The value of pixels from outside: a number, or an array (...). The image shows its
                own reflection there. Targets do not: a mirrored class would be correct, but not a
                mirrored direction.
        """
        source = self._find_source(*values.shape[:2])
        moved = values.reshape(-1, *values.shape[2:]).take(source, axis=0)
        moved[source < 0] = fill
        return moved

    @property
    def linear(self) -> np.ndarray:
        """Maps a step (x, y) in the changed image to one in the image before: float64 (2, 2)."""
        whole = np.eye(3)
        for step in self.steps:
            whole = whole @ step
        return whole[:2, :2]

    @property
    def turn(self) -> np.ndarray:
        """How directions turn: float64 (2, 2), from (x, y) before to (x, y) in the changed image.

        The orthogonal matrix nearest to `linear`, turned round: scale and shear leave lengths
        alone, as the normal of a surface that is seen closer stays what it is.
        """
        left, _, right = np.linalg.svd(self.linear)
        rotation: np.ndarray = (left @ right).T
        return rotation

    def _find_source(self, height: int, width: int) -> np.ndarray:
        """Returns int (height, width), indices into the flat image before, -1 from outside."""
        x, y = np.arange(width), np.arange(height)[:, np.newaxis]
        xs, ys = np.broadcast_arrays(x, y)
        inside = np.ones((height, width), bool)
        whole = np.eye(3)
        # Backwards, and each step alone: a later step cannot bring back a pixel that an earlier
        # step has moved out of the image.
        for step in self.steps[::-1]:
            if not np.array_equal(step, np.eye(3)):
                whole = step @ whole
                xs, ys = (row[0] * x + row[1] * y + row[2] for row in whole[:2])
                inside &= (xs >= -0.5) & (xs < width - 0.5) & (ys >= -0.5) & (ys < height - 0.5)
        nearest = np.floor(ys + 0.5) * width + np.floor(xs + 0.5)
        return np.where(inside, nearest, -1).astype(np.intp)
