"""Shapes of images that may have any number of bands, read from headers: arrays and TIFF files."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tl_toolkit.catalog.records import RGB
from tl_toolkit.sources.listing import suffix_of
from tl_toolkit.sources.objects import open_image

__all__ = ["find_channels", "read_shape"]

_MOST = 200
"""Files that are opened: of more, so many that are spread evenly."""

_HEAD_BYTES = 4096
_NPY = b"\x93NUMPY"
_SHAPE = re.compile(rb"'shape': ?\((\d+), ?(\d+)(?:, ?(\d+))?,?\)")
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_WIDTH, _HEIGHT, _COLORS, _BANDS, _EXTRA = 256, 257, 262, 277, 338  # tags of TIFF 6.0
_CMYK, _ALPHA = 5, (1, 2)  # values of the third and of the last
_SIZES = {3: "H", 4: "I"}  # kinds of values: SHORT and LONG


def read_shape(path: Path) -> tuple[int, int, int] | None:
    """Returns height, width and bands of a .npy array or a TIFF file; None for all else.

    A TIFF file of CMYK, or of RGB with alpha, is a photo of three.

    Args:
        path: The file.
    """
    try:
        with open_image(path) as file:
            head = file.read(_HEAD_BYTES)
            if head.startswith(_NPY):
                found = _SHAPE.search(head)
                return found and (int(found[1]), int(found[2]), int(found[3] or 1))
            order = _TIFF_ORDERS.get(head[:4])
            if order is None:
                return None
            file.seek(struct.unpack_from(f"{order}I", head, 4)[0])
            tags = _read_tags(file.read(_HEAD_BYTES), order)
            is_photo = tags.get(_COLORS) == _CMYK or tags.get(_EXTRA) in _ALPHA
            return tags[_HEIGHT], tags[_WIDTH], RGB if is_photo else tags.get(_BANDS, 1)
    except (OSError, struct.error, KeyError):  # damaged; the scan names them later
        return None


def _read_tags(directory: bytes, order: str) -> dict[int, int]:
    """Returns the first value of each tag that holds a whole number."""
    tags = {}
    for place in range(struct.unpack_from(f"{order}H", directory)[0]):
        tag, kind, count = struct.unpack_from(f"{order}HHI", directory, 2 + 12 * place)
        if kind in _SIZES and count == 1:
            tags[tag] = struct.unpack_from(order + _SIZES[kind], directory, 10 + 12 * place)[0]
    return tags


def find_channels(paths: Sequence[Path]) -> tuple[int, str] | None:
    """Returns the channels that images are read with, and why; None for photos.

    Args:
        paths: Image files, arrays among them. At least half must be arrays or TIFF files of equally
            many bands: the others may be masks.
    """
    step = max(1, -(-len(paths) // _MOST))
    opened = paths[::step]
    kinds = Counter(kind for path in opened if (kind := _find_kind(path)))
    ((name, bands), count), *_ = kinds.most_common(1) or [(("", 0), 0)]
    if not count or 2 * count < len(opened):
        return None
    plural = "bands" if bands > 1 else "band"
    return bands, f"{count} {name} that were opened have {bands} {plural}"


def _find_kind(path: Path) -> tuple[str, int] | None:
    """Returns what an image is and how many bands it has, None for a photo."""
    suffix = suffix_of(str(path))
    if suffix not in (".npy", ".tif", ".tiff"):
        return None
    shape = read_shape(path)
    if shape is None or shape[2] == RGB:
        return None
    if suffix != ".npy" and shape[2] == 1:
        return None  # grey TIFF, as of scanners, is a photo that is converted
    return ("arrays" if suffix == ".npy" else "TIFF files"), shape[2]
