"""Parts: the images that are computed and stored at a time, the same for all who share a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["DEFAULT_PART", "Part", "cut_parts", "list_parts"]

DEFAULT_PART = 8192
"""Images of a part: its features take between some MB and a few GB."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Part:
    """A part of the images of a split, seen one way.

    Attributes:
        split: Name of the split.
        view: Number of the augmented view, from 1; None for the images as they are.
        number: Counts from 0.
    """

    split: str
    view: int | None
    number: int


def cut_parts(
    images: Sequence[_T], missing: Collection[_T], size: int
) -> list[tuple[int, list[_T]]]:
    """Returns the missing images by part, which all images decide and not those that are missing.

    Args:
        images: All images of a split, each once.
        missing: Some of them.
        size: Images of a part.

    Returns:
        The number of each part that lacks images, and these.
    """
    parts = []
    for number, start in enumerate(range(0, len(images), size)):
        lacking = [image for image in images[start : start + size] if image in missing]
        if lacking:
            parts.append((number, lacking))
    return parts


def list_parts(counts: Mapping[str, int], views: int | None, size: int) -> list[Part]:
    """Returns all parts.

    Args:
        counts: Number of different images by split.
        views: Number of the views of training images; None without augmentation.
        size: Images of a part.
    """
    return [
        Part(split, view, number)
        for split, count in counts.items()
        for view in (range(1, views + 1) if views and split == "train" else (None,))
        for number in range(-(-count // size))
    ]
