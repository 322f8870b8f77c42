"""Masks: files that hold the class of each pixel of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tl_toolkit.images.upright import turn_by_exif
from tl_toolkit.sources.coco import COCO
from tl_toolkit.sources.listing import PILLOW_FORMATS
from tl_toolkit.sources.objects import open_image
from tl_toolkit.tasks.dense.spec import IGNORE
from tl_toolkit.tasks.dense.targets import UnknownValues
from tl_toolkit.tasks.segmentation.regions import sample_mask

__all__ = ["MaskReader", "MaskSettings"]

_NAMED_VALUES = 5


@dataclass(frozen=True)
class MaskSettings:
    """What the values in masks mean; fields of equal names hold those of `Masks`.

    Attributes:
        ids: Value of each class in masks of one channel; None for 0, 1, 2, ...
        colors: Colour of each class in masks of RGB; None for masks of one channel.
        ignore: Value, or colour, of pixels of no class; None if there are none.
    """

    ids: tuple[int, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None
    ignore: int | tuple[int, int, int] | None = None


class MaskReader:
    """Reads masks, as a TargetReader; pixels are sampled by their classes.

    Args:
        masks: The section that says what their values mean.
        num_classes: Number of classes.
        classes: Their names, by which annotations of COCO name them.
    """

    dtype: type[Any] = np.int32
    ignored: float = IGNORE
    fault = "hold values that are no class"
    hint = "masks: {ignore: VALUE} for pixels of no class, or data.masks.ids"

    def __init__(self, masks: MaskSettings, num_classes: int, classes: Sequence[str] = ()) -> None:
        self._classes = tuple(classes)
        self._masks = masks
        self.num_sampling_groups = num_classes
        ids = masks.ids or tuple(range(num_classes))
        known = "the colours of data.masks.colors" if masks.colors else f"the values {_list(ids)}"
        ignored = f" and {masks.ignore} (ignored)" if masks.ignore is not None else ""
        self.expected = f"Expected {known}{ignored}."

    def read(self, path: str) -> np.ndarray:
        """Reads the class of each pixel.

        Args:
            path: A file that Pillow reads: grey, palette or RGB; or `coco:<file>#<id>`.

        Returns:
            uint8 (h, w), indices into the classes; IGNORE for pixels of none.

        Raises:
            OSError: It cannot be read.
            UnknownValues: It holds values or colours that are no class.
            ValueError: It is a colour image without colours of classes.
        """
        if path.startswith(COCO):
            return sample_mask(path, self._classes)
        pixels = _read_pixels(path, as_rgb=self._masks.colors is not None)
        if self._masks.colors is not None:
            return _look_up_colors(pixels, self._masks)
        values = pixels
        if pixels.ndim == 3:
            if pixels.shape[-1] >= 3 and (pixels[..., :1] != pixels[..., :3]).any():
                raise ValueError("a colour image; data.masks.colors says which colour is which")
            values = pixels[..., 0]
        if values.dtype.kind == "f":
            _refuse_fractions(values)
        return _look_up_values(values.astype(np.int64), self._masks, self.num_sampling_groups)

    def sampling_groups(self, target: np.ndarray) -> np.ndarray:
        """Returns the classes themselves.

        Args:
            target: As in `read`.
        """
        return target

    def turn(self, target: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Returns the classes as they are.

        Args:
            target: As in `read`.
            turn: Not used: a class has no direction.
        """
        return target


def _read_pixels(path: str, *, as_rgb: bool) -> np.ndarray:
    """Returns the numbers in a file, (h, w) or (h, w, channels); of a palette, the indices.

    It is turned upright by its own EXIF block, as its image is.
    """
    try:
        with open_image(path) as file, Image.open(file, formats=PILLOW_FORMATS) as image:
            image.load()
            if as_rgb and image.mode.split(";")[0] in ("I", "F"):
                raise ValueError(f"numbers of the kind {image.mode!r}, not colours of 8 bits")
            upright = turn_by_exif(image)
            return np.asarray(upright.convert("RGB") if as_rgb else upright)
    except (SyntaxError, Image.DecompressionBombError) as error:  # Pillow's, of damaged files
        raise OSError(str(error)) from error


def _refuse_fractions(values: np.ndarray) -> None:
    """Refuses floats that are no whole numbers: 0.9 is no class, and would be cut to 0."""
    between = ~np.isfinite(values) | (values != np.round(values))
    if between.any():
        first = float(values[between].flat[0])
        count = int(between.sum())
        raise ValueError(
            f"{count:,} fraction{'s' if count > 1 else ''}, as {first:g}; classes are whole numbers"
        )


def _list(values: Sequence[int]) -> str:
    values = sorted(values)
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))


def _look_up_values(values: np.ndarray, masks: MaskSettings, num_classes: int) -> np.ndarray:
    table = np.full(256, -1, np.int16)
    table[list(masks.ids or range(num_classes))] = range(num_classes)
    if isinstance(masks.ignore, int):
        table[masks.ignore] = IGNORE
    inside = (values >= 0) & (values <= 255)
    indices = np.where(inside, table[np.clip(values, 0, 255)], -1)
    _refuse_unknown(indices < 0, values)
    return indices.astype(np.uint8)


def _look_up_colors(pixels: np.ndarray, masks: MaskSettings) -> np.ndarray:
    def pack(colors: np.ndarray) -> np.ndarray:
        return colors.astype(np.int64) @ [1 << 16, 1 << 8, 1]

    packed = pack(pixels)
    indices = np.full(packed.shape, -1, np.int16)
    for index, color in enumerate(masks.colors or ()):
        indices[packed == pack(np.array(color))] = index
    if masks.ignore is not None:
        ignored = masks.ignore if isinstance(masks.ignore, tuple) else (masks.ignore,) * 3
        indices[packed == pack(np.array(ignored))] = IGNORE
    _refuse_unknown(indices < 0, packed, spell=_spell_color)
    return indices.astype(np.uint8)


def _refuse_unknown(
    unknown: np.ndarray, values: np.ndarray, spell: Callable[[int], str] = str
) -> None:
    if not unknown.any():
        return
    distinct, counts = np.unique(values[unknown], return_counts=True)
    named = ", ".join(
        f"{spell(int(value))} ({count:,} pixels)"
        for value, count in zip(distinct[:_NAMED_VALUES], counts, strict=False)
    )
    more = f" and {len(distinct) - _NAMED_VALUES} more" if len(distinct) > _NAMED_VALUES else ""
    raise UnknownValues(named + more, [spell(int(value)) for value in distinct])


def _spell_color(packed: int) -> str:
    return f"[{packed >> 16}, {packed >> 8 & 255}, {packed & 255}]"
