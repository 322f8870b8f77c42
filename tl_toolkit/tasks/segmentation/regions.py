"""The pixels of objects, from polygons and run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tl_toolkit.sources.coco import (
    AnnotatedImage,
    Region,
    path_of,
    read_annotations,
    read_coco,
)
from tl_toolkit.sources.coco_listing import find_background

__all__ = ["fill_polygon", "fill_region", "sample_mask", "sample_regions"]

_EDGES = 1024
"""Edges of a polygon that are filled at a time, for the memory of those of large images."""


def sample_mask(mask: str, classes: Sequence[str]) -> np.ndarray:
    """Returns the class of each pixel of an image in a file of annotations, uint8 (h, w).

    Args:
        mask: Its path, as `coco:<file>#<id>`.
        classes: The classes, which are categories but for one, that of pixels of no object.

    Raises:
        DataError: The file cannot be read any more.
        ValueError: The classes are not those of its categories.
    """
    background = find_background(read_coco(path_of(mask)).categories, classes)
    values = {name: index for index, name in enumerate(classes)}
    return sample_regions(read_annotations(mask), values, values[background])


def sample_regions(image: AnnotatedImage, values: Mapping[str, int], background: int) -> np.ndarray:
    """Returns the value of each pixel of an image, of its smallest object where several overlap.

    Args:
        image: The image with its objects.
        values: Value of the pixels of each category; objects of others are left out.
        background: Value of the pixels of no object.

    Returns:
        uint8 (h, w).
    """
    size = (image.height, image.width)
    regions = [region for region in image.regions if region.category in values]
    places = [np.flatnonzero(fill_region(region, size)) for region in regions]
    pixels = np.full(size, background, np.uint8)
    for index in sorted(range(len(regions)), key=lambda index: -len(places[index])):
        pixels.reshape(-1)[places[index]] = values[regions[index].category]
    return pixels


def fill_region(region: Region, size: tuple[int, int]) -> np.ndarray:
    """Returns which pixels are of an object, bool (h, w).

    Args:
        region: The object.
        size: Height and width of the image.
    """
    if region.counts is not None:
        inside = np.arange(len(region.counts)) % 2 == 1
        return np.repeat(inside, region.counts).reshape(size[::-1]).T
    filled = np.zeros(size, bool)
    for polygon in region.polygons:
        filled |= fill_polygon(polygon, size)
    return filled


def fill_polygon(polygon: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Returns which pixels have their centre inside a polygon, by the even-odd rule, bool (h, w).

    Pillow cuts the corners of polygons to whole pixels, and fills their border too: a square of 10
    by 10 pixels would get 11 by 11.

    Args:
        polygon: x, y, x, y, ... in pixels from the upper left corner of the image.
        size: Height and width of the image.
    """
    height, width = size
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    crossings = np.zeros((height, width + 1), np.int32)
    ends = np.roll(points, -1, axis=0)
    for start in range(0, len(points), _EDGES):
        (x1, y1), (x2, y2) = points[start : start + _EDGES].T, ends[start : start + _EDGES].T
        # Rows whose centres an edge passes; its right end belongs to the next edge.
        first, last = (
            np.clip(np.ceil(bound(y1, y2) - 0.5), 0, height).astype(np.int64)
            for bound in (np.minimum, np.maximum)
        )
        counts = last - first
        edges = np.repeat(np.arange(len(counts)), counts)
        rows = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts - first, counts)
        slope = (x2 - x1)[edges] / (y2 - y1)[edges]
        columns = np.ceil(x1[edges] + (rows + 0.5 - y1[edges]) * slope - 0.5)
        np.add.at(crossings, (rows, np.clip(columns, 0, width).astype(np.int64)), 1)
    inside: np.ndarray = np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
    return inside
