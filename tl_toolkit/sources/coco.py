"""Annotations of COCO: objects of images, as polygons or run lengths, in one JSON file a split.

Masks are no files: the path of one is `coco:<file>#<id of the image>`, and who reads it samples the
objects. Drawing them takes numpy, and is not done here. A file on an object store is named by its
address, and its copy is read.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import threading
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.recipe.remote import is_address, mirror_of_file, name_object
from tl_toolkit.sources.remote import list_remote

__all__ = [
    "COCO",
    "EXPECTED",
    "AnnotatedImage",
    "CocoFile",
    "Region",
    "hash_annotations",
    "path_of",
    "read_annotations",
    "read_coco",
]

COCO = "coco:"
"""Prefix of the path of every mask that annotations stand for."""

_MAX_BYTES = 512 << 20
"""Bytes of a file, which is read as a whole: the largest of COCO has 448 MiB."""

_FAR = 1e9
_MAX_PIXELS = 178_956_970  # as the decoder
EXPECTED = "A file of COCO is expected, with images, annotations (segmentation) and categories."


class Region(NamedTuple):
    """The pixels of one object.

    Attributes:
        category: Name of its category.
        polygons: x, y, x, y, ... of each, in pixels from the upper left corner of the image.
        counts: Instead, run lengths: of pixels outside, inside, outside, ... column by column.
    """

    category: str
    polygons: tuple[array[float], ...] = ()
    counts: array[int] | None = None


class AnnotatedImage(NamedTuple):
    """An image with its objects.

    Attributes:
        name: Its file, relative to the folder of images.
        height: In pixels.
        width: In pixels.
        regions: Its objects, in the order of the file.
    """

    name: str
    height: int
    width: int
    regions: list[Region]


@dataclass(frozen=True)
class CocoFile:
    """The contents of a file of annotations.

    Attributes:
        categories: Their names, each once, in the order of the file.
        images: By id.
    """

    categories: tuple[str, ...]
    images: Mapping[int, AnnotatedImage]


def read_coco(path: Path) -> CocoFile:
    """Reads a file of annotations; one that has not changed is read once in a process.

    Args:
        path: The file.

    Raises:
        DataError: It cannot be read, or holds something else.
    """
    name = name_object(str(path))
    try:
        state = os.stat(path)
        if not path.is_file():
            raise ValueError("is no regular file")
        if state.st_size > _MAX_BYTES:
            raise ValueError(f"has more than {_MAX_BYTES >> 20} MiB")
        with _lock:  # several threads ask for masks
            return _read(str(path.absolute()), state.st_size, state.st_mtime_ns)
    except OSError as error:
        what = f"{name!r} cannot be read: {error.strerror or error}"
        raise DataError(Problem("", what, EXPECTED)) from error
    except (ValueError, RecursionError) as error:
        words = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, json.JSONDecodeError):
            words = f"is no JSON: {error}"
        raise DataError(Problem("", f"{name!r} {words}", EXPECTED)) from error


_lock = threading.Lock()
_copied: set[str] = set()
"""Addresses whose copies were up to date when this process first read a mask of them."""


@functools.lru_cache(maxsize=4)  # a file for each split
def _read(path: str, size: int, changed: int) -> CocoFile:
    with open(path, encoding="utf-8-sig") as file:
        values = json.load(file)
    if not isinstance(values, dict):
        raise ValueError(f"holds {type(values).__name__}, no object")
    names = {
        entry["id"]: entry["name"] for entry in _entries(values, "categories", id=int, name=str)
    }
    images = {
        entry["id"]: AnnotatedImage(entry["file_name"], entry["height"], entry["width"], [])
        for entry in _entries(values, "images", id=int, file_name=str, height=int, width=int)
    }
    if len(images) < len(values["images"]):
        raise ValueError("has two images of one id")
    for image in images.values():
        if image.height < 1 or image.width < 1 or image.height * image.width > _MAX_PIXELS:
            raise ValueError(
                f"has an image of {image.width} x {image.height} pixels: {image.name!r}"
            )
    kinds = {"image_id": int, "category_id": int, "segmentation": (list, dict)}
    for number, entry in enumerate(_entries(values, "annotations", **kinds)):
        try:
            image = images[entry["image_id"]]
            region = _read_region(names[entry["category_id"]], entry["segmentation"], image)
        except KeyError as error:
            raise ValueError(
                f"names no image or category of id {error} in annotations[{number}]"
            ) from None
        except ValueError as error:
            raise ValueError(f"holds no region in annotations[{number}]: {error}") from None
        image.regions.append(region)
    return CocoFile(tuple(dict.fromkeys(names.values())), images)


def _entries(values: Mapping[str, Any], part: str, **kinds: Any) -> Iterator[dict[str, Any]]:
    """Yields the entries of a list, each with its fields of the kinds that they must have."""
    if not isinstance(values.get(part), list):
        raise ValueError(f"has no list {part}")
    for number, entry in enumerate(values[part]):
        for field, kind in kinds.items():
            value = entry.get(field) if isinstance(entry, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"has no {field} in {part}[{number}]")
            if kind is str and not _is_whole(value):
                raise ValueError(f"holds half of a character in {field} of {part}[{number}]")
        yield entry


def _is_whole(text: str) -> bool:
    """Returns whether a text can be written: an escape of JSON may be half of an emoji."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_region(category: str, values: Any, image: AnnotatedImage) -> Region:
    if not values:
        raise ValueError("no segmentation, a box alone")
    if isinstance(values, list):
        return Region(category, tuple(map(_read_polygon, values)))
    if values.get("size") != [image.height, image.width]:
        raise ValueError(
            f"size {values.get('size')!r}, its image has [{image.height}, {image.width}]"
        )
    runs = values.get("counts")
    counts = _read_runs(runs) if isinstance(runs, str) else runs
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        raise ValueError("counts that are no run lengths")
    if sum(counts) != image.height * image.width:
        raise ValueError(f"run lengths of {sum(counts)} pixels in all")
    return Region(category, (), array("q", counts))


def _read_polygon(values: Any) -> array[float]:
    if not isinstance(values, list) or len(values) < 6 or len(values) % 2:
        raise ValueError("a polygon that has not 3 or more points")
    try:
        points = array("d", values)
    except (TypeError, OverflowError):
        points = array("d", [math.nan])
    # A sum with what is no number is none.
    if not (math.isfinite(sum(points)) and -_FAR < min(points) and max(points) < _FAR):
        raise ValueError("a polygon with something else than numbers")
    return points


def _read_runs(text: str) -> list[int]:
    """Returns run lengths that pycocotools has written: 5 bits a letter, each third a difference.

    Raises:
        ValueError: A letter is none of its, or the last number has no end.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("counts that are no run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("counts that are cut off")
    return counts


def path_of(mask: str) -> Path:
    """Returns the file of annotations that the path of a mask names, or the copy of an object.

    A process asks once for each object whether its copy is of the present state.

    Args:
        mask: As `coco:<file>#<id>`, with a path or an address.

    Raises:
        DataError: The object cannot be read, to make a copy or to see that it has not changed.
    """
    file = mask.removeprefix(COCO).rpartition("#")[0]
    if not is_address(file):
        return Path(file)
    place = mirror_of_file(file)
    with _lock:
        # On another host of a cluster there is none, or one that an earlier command has left.
        if file not in _copied or not place.is_file():
            list_remote({"annotations": place})
            _copied.add(file)
    return place


def read_annotations(mask: str) -> AnnotatedImage:
    """Returns the image, with its objects, that the path of a mask names.

    Args:
        mask: As `coco:<file>#<id>`.

    Raises:
        DataError: As in `read_coco`, or the file has no such image any more.
    """
    number = mask.rpartition("#")[2]
    image = read_coco(path_of(mask)).images.get(int(number))
    if image is None:
        name = name_object(str(path_of(mask)))
        raise DataError(Problem("", f"{name!r} has no image of id {number}"))
    return image


def hash_annotations(mask: str) -> str:
    """Returns a SHA-256 of all that decides a mask but the classes, in hexadecimal.

    Args:
        mask: As in `read_annotations`.

    Raises:
        DataError: As in `read_annotations`.
    """
    image = read_annotations(mask)
    digest = hashlib.sha256(f"{image.height} {image.width}".encode())
    for region in image.regions:
        parts = [polygon.tobytes() for polygon in region.polygons]
        parts += [] if region.counts is None else [b"runs", region.counts.tobytes()]
        digest.update(repr((region.category, [len(part) for part in parts])).encode())
        digest.update(b"".join(parts))
    return digest.hexdigest()
