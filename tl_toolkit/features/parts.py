"""Parts: the images that are computed and stored at a time, the same for all who share a store."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["DEFAULT_PART", "Part", "cut_parts", "limit_part", "list_parts"]

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
        images: How many images it has.
    """

    split: str
    view: int | None
    number: int
    images: int


def cut_parts(missing: Iterable[_T], places: Mapping[_T, int], size: int) -> list[list[_T]]:
    """Returns the missing images by part, which all images decide and not those that are missing.

    Args:
        missing: Some images of a split, each once.
        places: The place of each of its images, from 0.
        size: Images of a part.

    Returns:
        The images of each part that lacks some, in the order of the split.
    """
    ordered = sorted(missing, key=places.__getitem__)
    groups = itertools.groupby(ordered, key=lambda image: places[image] // size)
    return [list(group) for _, group in groups]


def limit_part(size: int, images: int, *, shares: int, batch_size: int) -> int:
    """Returns how many images a part of a split has.

    Args:
        size: Images of a part at most.
        images: Images of the split.
        shares: Processes that compute them together.
        batch_size: Images in a call: a share is a whole number of them, as short calls are padded.
    """
    if shares < 2:
        return size
    calls = -(-images // (shares * batch_size))
    return min(size, max(1, calls) * batch_size)


def list_parts(counts: Mapping[str, int], views: int | None, size: int) -> list[Part]:
    """Returns all parts.

    Args:
        counts: Number of different images by split.
        views: Number of the views of training images; None without augmentation.
        size: Images of a part.
    """
    return [
        Part(split, view, number, min(size, count - number * size))
        for split, count in counts.items()
        for view in (range(1, views + 1) if views and split == "train" else (None,))
        for number in range(-(-count // size))
    ]
