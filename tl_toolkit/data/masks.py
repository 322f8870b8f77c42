"""Masks: what class each pixel of an image is of. Looked at before training, resized with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from tl_toolkit.data.listing import MAX_NAMED, count_threads
from tl_toolkit.data.manifest import Example
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.pixel_schema import IGNORE, Masks

__all__ = ["Targets", "look_at_masks", "place_pixels", "read_mask", "resize_mask"]

_Mode = Literal["stretch", "crop"]
_Size = tuple[int, int]
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_NAMED_VALUES = 5


class _Fault(NamedTuple):
    """What is wrong with a mask: a kind, to be told together with others, and the particulars."""

    kind: str
    what: str


_UNREADABLE = "cannot be read"
_OTHER_SIZE = "differ in size from their images"
_UNKNOWN = "hold values that are no class"


def look_at_masks(
    examples: Sequence[Example], paths: Sequence[str], masks: Masks, classes: Sequence[str]
) -> list[Example]:
    """Opens every mask once, and returns the examples with their masks noted.

    Args:
        examples: Images that were looked at; the masks of those that are skipped are not opened.
        paths: The mask of each.
        masks: The recipe's section.
        classes: Class names in the order of the outputs.

    Raises:
        DataError: Masks cannot be read, have another size than their images, or hold values that
            are no class; all of them at once.
    """

    def look(pair: tuple[Example, str]) -> tuple[Example, _Fault | None]:
        example, path = pair
        if not example.usable:
            return replace(example, mask=path), None
        try:
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found = read_mask(path, masks, len(classes))
        except OSError as error:
            return example, _Fault(_UNREADABLE, f"{path}: {error.strerror or error}")
        except ValueError as error:
            return example, _Fault(_UNKNOWN, f"{path}: {error}")
        size = _upright_size(example.path)
        if size != found.shape:
            here, there = (f"{w} x {h}" for h, w in (found.shape, size))
            return example, _Fault(_OTHER_SIZE, f"{path}: {here}, its image is {there}")
        return replace(example, mask=path, mask_sha256=sha256), None

    with ThreadPoolExecutor(count_threads()) as pool:
        looks = list(pool.map(look, zip(examples, paths, strict=True)))
    faults = [fault for _, fault in looks if fault is not None]
    if faults:
        raise DataError(list(_tell(faults, masks, classes)))
    return [example for example, _ in looks]


def _tell(faults: Sequence[_Fault], masks: Masks, classes: Sequence[str]) -> Iterator[Problem]:
    ids = masks.ids or tuple(range(len(classes)))
    known = "the colours of data.masks.colors" if masks.colors else f"the values {_list(ids)}"
    ignored = f" and {masks.ignore} (ignored)" if masks.ignore is not None else ""
    hints = {_UNKNOWN: "data.masks.ignore=VALUE for pixels of no class, or data.masks.ids"}
    for kind in (_UNREADABLE, _OTHER_SIZE, _UNKNOWN):
        same = [fault.what for fault in faults if fault.kind == kind]
        if same:
            more = [f"and {len(same) - MAX_NAMED} more"] if len(same) > MAX_NAMED else []
            what = f"{len(same)} mask{'s' if len(same) > 1 else ''}: {kind}"
            expected = "\n  ".join([*same[:MAX_NAMED], *more])
            if kind == _UNKNOWN:
                expected = f"Expected {known}{ignored}.\n  {expected}"
            yield Problem("data.masks", what, expected, hints.get(kind, ""))


def _list(values: Sequence[int]) -> str:
    values = sorted(values)
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]} to {values[-1]}"
    return ", ".join(map(str, values))


def read_mask(path: str, masks: Masks, num_classes: int) -> np.ndarray:
    """Reads what class each pixel is of.

    Args:
        path: A file that Pillow reads: grey, palette or RGB.
        masks: What its values mean.
        num_classes: Number of classes.

    Returns:
        uint8 (h, w), indices into the classes; IGNORE for pixels of none.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds a value or colour that is no class.
    """
    with Image.open(path) as image:
        image.load()
        if masks.colors is not None:
            return _look_up_colors(np.asarray(image.convert("RGB")), masks)
        if image.mode in ("RGB", "RGBA"):
            pixels = np.asarray(image)[..., :3]
            if (pixels[..., :1] != pixels).any():
                raise ValueError("a colour image; data.masks.colors says which colour is which")
            values = pixels[..., 0]
        else:
            values = np.asarray(image)
            values = values[..., 0] if values.ndim == 3 else values
    return _look_up_values(values.astype(np.int64), masks, num_classes)


def _look_up_values(values: np.ndarray, masks: Masks, num_classes: int) -> np.ndarray:
    table = np.full(256, -1, np.int16)
    table[list(masks.ids or range(num_classes))] = range(num_classes)
    if isinstance(masks.ignore, int):
        table[masks.ignore] = IGNORE
    inside = (values >= 0) & (values <= 255)
    found = np.where(inside, table[np.clip(values, 0, 255)], -1)
    _refuse_unknown(found < 0, values)
    return found.astype(np.uint8)


def _look_up_colors(pixels: np.ndarray, masks: Masks) -> np.ndarray:
    def pack(colors: np.ndarray) -> np.ndarray:
        return colors.astype(np.int64) @ [1 << 16, 1 << 8, 1]

    packed = pack(pixels)
    found = np.full(packed.shape, -1, np.int16)
    for index, color in enumerate(masks.colors or ()):
        found[packed == pack(np.array(color))] = index
    if masks.ignore is not None:
        ignored = masks.ignore if isinstance(masks.ignore, tuple) else (masks.ignore,) * 3
        found[packed == pack(np.array(ignored))] = IGNORE
    _refuse_unknown(found < 0, packed, spell=lambda value: f"#{value:06x}")
    return found.astype(np.uint8)


def _refuse_unknown(
    unknown: np.ndarray, values: np.ndarray, spell: Callable[[int], str] = str
) -> None:
    if not unknown.any():
        return
    found, counts = np.unique(values[unknown], return_counts=True)
    named = ", ".join(
        f"{spell(int(value))} ({count:,} pixels)"
        for value, count in zip(found[:_NAMED_VALUES], counts, strict=False)
    )
    more = f" and {len(found) - _NAMED_VALUES} more" if len(found) > _NAMED_VALUES else ""
    raise ValueError(named + more)


def _upright_size(path: str) -> _Size:
    """Returns height and width of an image as the decoder turns it."""
    with Image.open(path) as image:
        width, height = image.size
        sideways = image.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def place_pixels(
    source: _Size, size: _Size, mode: _Mode = "stretch"
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the rows and columns of an image lie once it is resized as `resize_image` does.

    Args:
        source: Height and width of the image.
        size: Height and width that it is resized to.
        mode: As of `resize_image`.

    Returns:
        float32 (height,) and (width,), in pixels of the resized image: the centre of its first one
        is 0. With "crop", places below 0 or above the last pixel were cut off.
    """
    rows, columns = (
        ((np.arange(length) + 0.5) * scale + shift - 0.5).astype(np.float32)
        for length, (scale, shift) in zip(source, _scales(source, size, mode), strict=True)
    )
    return rows, columns


def resize_mask(mask: np.ndarray, size: _Size, mode: _Mode = "stretch") -> np.ndarray:
    """Resizes a mask as `resize_image` does its image, each pixel taking the nearest one's class.

    Args:
        mask: (h, w, ...).
        size: Height and width of the result.
        mode: As of `resize_image`.
    """
    scales = _scales(mask.shape[:2], size, mode)
    for axis, (length, (scale, shift)) in enumerate(zip(size, scales, strict=True)):
        nearest = np.floor((np.arange(length) + 0.5 - shift) / scale).astype(np.int64)
        mask = np.take(mask, np.clip(nearest, 0, mask.shape[axis] - 1), axis=axis)
    return mask


def _scales(source: _Size, size: _Size, mode: _Mode) -> list[tuple[float, float]]:
    """Returns the factor and the shift of rows and of columns."""
    scales = [length / before for length, before in zip(size, source, strict=True)]
    if mode == "crop":
        scales = [max(scales)] * 2
    return [
        (scale, (length - before * scale) / 2)
        for scale, length, before in zip(scales, size, source, strict=True)
    ]


class Targets:
    """The masks of one split, by index; those of the model's size stay in memory.

    Args:
        examples: Usable images of a manifest, with masks.
        masks: The recipe's section.
        num_classes: Number of classes.
        image_size: Height and width that images are resized to.
        resize: As of `resize_image`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        masks: Masks,
        num_classes: int,
        *,
        image_size: _Size,
        resize: _Mode = "stretch",
    ) -> None:
        self._examples = tuple(examples)
        self._masks = masks
        self.num_classes = num_classes
        self.image_size = image_size
        self.resize = resize
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._examples)

    def whole(self, index: int) -> np.ndarray:
        """Returns a mask as its file has it: uint8 (h, w), indices into the classes or IGNORE.

        Raises:
            DataError: The file is gone, or is no longer what was looked at.
        """
        path = self._examples[index].mask
        try:
            return read_mask(path, self._masks, self.num_classes)
        except (OSError, ValueError) as error:
            hint = "run it again: a new run looks at all masks anew"
            expected = "Masks must not change while a run uses them."
            raise DataError(
                Problem(path, f"is not what it was: {error}", expected, hint)
            ) from error

    def resized(self, index: int) -> np.ndarray:
        """Returns a mask of the model's size, uint8 (height, width), which must not be changed."""
        if index not in self._kept:
            self._kept[index] = resize_mask(self.whole(index), self.image_size, self.resize)
        return self._kept[index]

    def count(self) -> np.ndarray:
        """Returns the pixels of each class at the model's size, int64 (classes,)."""
        counts = np.zeros(IGNORE + 1, np.int64)
        for index in range(len(self)):
            counts += np.bincount(self.resized(index).reshape(-1), minlength=IGNORE + 1)
        return counts[: self.num_classes]
