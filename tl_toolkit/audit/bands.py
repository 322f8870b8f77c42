"""What there is to know of arrays and TIFF files of bands: no photo, so neither light nor blur."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np

from tl_toolkit.audit.content import Content, inspect_content
from tl_toolkit.images.tiff import TIFF_MAGICS, read_tiff
from tl_toolkit.sources.listing import MAX_PIXELS

__all__ = ["inspect_bands", "refuse_others"]

_NPY = b"\x93NUMPY"
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def inspect_bands(encoded: bytes, channels: int) -> Content:
    """Measures an image that may have any number of bands; never raises for its content.

    Args:
        encoded: The bytes of its file: an array (.npy), TIFF, or what `inspect_content` reads.
        channels: Bands that are expected of TIFF, whose axes do not tell them from pages.
    """
    try:
        if encoded.startswith(_NPY):
            return _measure("NPY", _read_array(encoded))
        if encoded.startswith(TIFF_MAGICS):
            return _measure("TIFF", read_tiff(encoded, channels)[0])
    except EOFError as error:
        return Content("truncated", str(error))
    except ValueError as error:  # of numpy too, which names what it finds
        return Content("unreadable", str(error))
    return inspect_content(encoded)


def refuse_others(content: Content, channels: int) -> Content:
    """Returns what is known of an image, with a fault where training on so many bands refuses it.

    Args:
        content: Of `inspect_bands`.
        channels: The recipe's `data.channels`.
    """
    if content.fault not in ("", "convertible") or content.format == "pixels":
        return content
    bands = content.bands or _count_bands(content)
    if bands == channels or (channels == 1 and not content.bands):  # photos become grey
        return content
    what = "an array" if content.format == "NPY" else f"a {content.format} image"
    reason = f"{what} of {bands} bands where data.channels is {channels}"
    return replace(content, fault="unreadable", reason=reason)


def _count_bands(content: Content) -> int:
    """Returns the bands that a photo is read with: alpha is one in PNG alone."""
    is_own = content.format == "PNG" and content.mode in ("L", "LA", "RGBA")
    return len(content.mode.replace("RGB", "rgb").upper()) if is_own else 3


def _read_array(encoded: bytes) -> np.ndarray:
    """Returns an array of numbers (h, w, bands); by its header, before memory is taken."""
    file = io.BytesIO(encoded)
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"a .npy file of version {version}")
    shape, is_fortran, dtype = _READERS[version](file)
    if dtype.kind not in "buif":
        raise ValueError(f"a .npy file of the type {dtype.str}, not of numbers")
    if not (2 <= len(shape) <= 3) or not all(shape):
        raise ValueError(f"an array of shape {shape}, which is no image with bands")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise ValueError(f"an array of shape {shape}: at most {MAX_PIXELS} pixels are decoded")
    needed = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(encoded) != needed:
        text = f"a .npy file of {len(encoded)} bytes, its header asks for {needed}"
        raise EOFError(text) if len(encoded) < needed else ValueError(text)
    array = np.frombuffer(encoded, dtype, offset=file.tell())
    array = array.reshape(shape, order="F" if is_fortran else "C")
    return array if array.ndim == 3 else array[..., np.newaxis]


def _measure(kind: str, array: np.ndarray) -> Content:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"a {kind} file with numbers that are not finite (NaN)")
    height, width, bands = array.shape
    # Deviations in grey levels have no meaning here: 0 stands for equal numbers, 255 for others.
    return Content(
        format=kind, mode=str(array.dtype), height=height, width=width, bands=bands,
        deviation=255.0 if array.min() < array.max() else 0.0,
    )  # fmt: skip
