"""Translation equivariance, measured: whether f(shift x) is shift f(x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np

from tl_toolkit.architectures.receptive_field import Axis, Field

__all__ = ["Run", "measure_shifts"]

Run: TypeAlias = Callable[[np.ndarray], list[np.ndarray]]
"""Returns the outputs of all blocks for uint8 images (n, h, w, 3)."""


@dataclass(frozen=True)
class _Region:
    """Positions of a map along one axis, and how far the shift moves them."""

    start: int
    stop: int
    moved: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def measure_shifts(
    run: Run,
    fields: Sequence[Field | None],
    ends: Sequence[keras.KerasTensor],
    pixels: np.ndarray,
) -> list[dict[str, Any]]:
    """Returns for each block the attributes of `probe.BlockProbe` that are about the shift.

    Args:
        run: Computes the outputs of all blocks.
        fields: What a position of each output sees.
        ends: The outputs in the graph.
        pixels: uint8 (n, h, w, 3).
    """
    plans = [
        _plan(field, tuple(end.shape), pixels.shape[1:3])
        for field, end in zip(fields, ends, strict=True)
    ]
    largest = np.zeros(len(plans))
    scale = np.full(len(plans), np.finfo(np.float32).tiny)
    # One image at a time: the maps of all blocks at once would not fit for large ones.
    for image in (pixels[index : index + 1] for index in range(len(pixels))):
        still = run(image)
        for shift in {plan["shift"] for plan in plans if plan["regions"]}:
            moved = run(np.roll(image, (shift, shift), axis=(1, 2)))
            for index, plan in enumerate(plans):
                if plan["shift"] == shift and plan["regions"]:
                    difference = _compare(still[index], moved[index], plan["regions"])
                    largest[index] = max(largest[index], difference)
                    scale[index] = max(scale[index], np.abs(still[index]).max())
    return [
        {
            "shift": plan["shift"],
            "difference": float(largest[index]) if plan["regions"] else None,
            "relative": float(largest[index] / scale[index]) if plan["regions"] else None,
            "compared": tuple(region.length for region in plan["regions"]) or None,
            "is_exact": plan["is_exact"],
            "reason": plan["reason"],
        }
        for index, plan in enumerate(plans)
    ]


def _compare(still: np.ndarray, moved: np.ndarray, regions: Sequence[_Region]) -> float:
    """Returns the largest difference between f(shift x) and shift f(x) in a region."""
    after = tuple(slice(region.start, region.stop) for region in regions)
    before = tuple(slice(r.start - r.moved, r.stop - r.moved) for r in regions)
    return float(np.abs(moved[:, *after] - still[:, *before]).max())


def _plan(field: Field | None, shape: tuple[int, ...], image_size: Sequence[int]) -> dict[str, Any]:
    """Returns by how much to shift, which positions to compare, and the expected result."""
    none: dict[str, Any] = {"shift": None, "regions": (), "is_exact": False}
    if field is None or len(shape) != 4:
        return {**none, "reason": "a dense or global part has no positions left to shift"}
    shift = math.lcm(*(axis.period for axis in field.axes))
    inner = [
        _inner(axis, size, pixels, shift)
        for axis, size, pixels in zip(field.axes, shape[1:3], image_size, strict=True)
    ]
    is_inner = all(region.length > 0 for region in inner)
    regions = inner if is_inner else [
        _middle(axis, size, shift) for axis, size in zip(field.axes, shape[1:3], strict=True)
    ]  # fmt: skip
    if any(region.length <= 0 for region in regions):
        return {**none, "reason": f"{shape[1]} x {shape[2]} positions are too few to shift"}
    is_exact = is_inner and not field.reads_whole
    return {
        "shift": shift,
        "regions": tuple(regions),
        "is_exact": is_exact,
        "reason": _explain(field, is_inner),
    }


def _explain(field: Field, is_inner: bool) -> str:
    if field.reads_whole:
        return "a global part, as squeeze-and-excitation, reads the borders too"
    if not is_inner:
        return "the border of the image reaches every position"
    return "away from the border each position sees the same pixels"


def _inner(axis: Axis, size: int, pixels: int, shift: int) -> _Region:
    """Returns the positions that see, before and after the shift, nothing beyond the border."""
    start = math.ceil((shift - axis.low) / axis.step)
    stop = math.floor((pixels - 1 - axis.high) / axis.step) + 1
    moved = int(shift / axis.step)
    return _Region(max(start, moved), min(stop, size), moved)


def _middle(axis: Axis, size: int, shift: int) -> _Region:
    """Returns the middle half of an axis, as far as the shift leaves it there."""
    moved = int(shift / axis.step)
    return _Region(max(size // 4, moved), max(size - size // 4, 1), moved)
