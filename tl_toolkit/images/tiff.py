"""Reads TIFF files of any number of bands, by the package tifffile where it is installed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from tl_toolkit.sources.listing import MAX_PIXELS

__all__ = ["TIFF_MAGICS", "describe_reader", "read_tiff", "read_tiff_size"]

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a file; those with + are BigTIFF."""

_MISSING = "a TIFF image, which the package tifffile reads: pip install tifffile imagecodecs"
_MOST_BYTES = 1 << 31
_ORIENTATION = 274


def describe_reader() -> str:
    """Returns the version of tifffile, which verdicts depend on; "" where it is not installed."""
    try:
        import tifffile
    except ImportError:
        return ""
    return f"tifffile-{tifffile.__version__}"


def read_tiff(encoded: bytes, channels: int) -> tuple[np.ndarray, int]:
    """Returns the bands of the first image in a file, and how it is turned.

    Bands may lie pixel by pixel, plane by plane, or in pages of their own.

    Args:
        encoded: The bytes of the file.
        channels: How many bands are expected.

    Returns:
        float32 (h, w, channels), in the numbers of the file; and its orientation, 1 to 8.

    Raises:
        ValueError: It is damaged, too large, or holds something else; the text says what.
    """
    try:
        import tifffile
    except ImportError as error:
        raise ValueError(_MISSING) from error
    try:
        with tifffile.TiffFile(io.BytesIO(encoded)) as file:
            series = file.series[0]
            axis = _find_bands(series.shape, series.axes, channels)
            _check(series, axis, channels)
            orientation = _read_orientation(file.pages[0])
            array = series.asarray()
    except ValueError as error:  # our own, and of codecs that are missing
        raise ValueError(_name(error)) from error
    except Exception as error:  # damaged bytes raise nearly every kind
        raise ValueError(f"a TIFF image that is damaged or incomplete ({error})") from error
    bands = array[..., np.newaxis] if axis is None else np.moveaxis(array, axis, -1)
    return bands.astype(np.float32), orientation


def read_tiff_size(encoded: bytes) -> tuple[int, int]:
    """Returns height and width of the first image in a file, upright, without its pixels.

    Args:
        encoded: The bytes of a file that `read_tiff` has read.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        page: Any = file.pages[0]
        size = (page.imagelength, page.imagewidth)
        is_sideways = _read_orientation(page) > 4
    return size[::-1] if is_sideways else size


def _read_orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    return 1 if tag is None else int(tag.value)


def _find_bands(shape: tuple[int, ...], axes: str, channels: int) -> int | None:
    """Returns the axis of the bands; None for an image of one band without such an axis."""
    places = [place for place, name in enumerate(axes) if name not in "YX"]
    if "Y" not in axes or "X" not in axes or len(places) > 1:
        raise ValueError(f"a TIFF image of shape {shape} ({axes}), which is no image with bands")
    bands = shape[places[0]] if places else 1
    if bands != channels:
        raise ValueError(f"a TIFF image of {bands} bands where data.channels is {channels}")
    return places[0] if places else None


def _check(series: Any, axis: int | None, channels: int) -> None:
    """Refuses an image by its header: before memory is taken."""
    pixels = int(np.prod(series.shape, dtype=np.int64)) // channels
    if series.dtype.kind not in "buif":
        raise ValueError(f"a TIFF image of the type {series.dtype}")
    if pixels > MAX_PIXELS or pixels * channels * series.dtype.itemsize > _MOST_BYTES:
        raise ValueError(f"a TIFF image of {pixels} pixels; at most {MAX_PIXELS} are decoded")


def _name(error: ValueError) -> str:
    text = str(error)
    return text if text.startswith("a TIFF image") else f"a TIFF image that cannot be read: {text}"
