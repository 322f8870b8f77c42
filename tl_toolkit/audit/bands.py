"""What there is to know of arrays and TIFF files of bands: no photo, so neither light nor blur."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from tl_toolkit.audit.content import Content, inspect_content
from tl_toolkit.images.npy_header import HEADER, KINDS, MOST_HEADER_BYTES, NPY_MAGIC, SHAPE, TYPE
from tl_toolkit.images.tiff import TIFF_MAGICS, read_tiff
from tl_toolkit.sources.listing import MAX_PIXELS

__all__ = ["inspect_bands", "refuse_others"]


def inspect_bands(encoded: bytes, channels: int) -> Content:
    """Measures an image that may have any number of bands; never raises for its content.

    Args:
        encoded: The bytes of its file: an array (.npy), TIFF, or what `inspect_content` reads.
        channels: Bands that are expected of TIFF, whose axes do not tell them from pages.
    """
    try:
        if encoded.startswith(NPY_MAGIC):
            return _measure("NPY", _read_array(encoded))
        if encoded.startswith(TIFF_MAGICS):
            return _measure("TIFF", read_tiff(encoded, channels)[0])
    except EOFError as error:
        return Content("truncated", str(error))
    except ValueError as error:
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
    """Returns an array (h, w, bands) by the rules of `images.npy`, before memory is taken."""
    text, start = _read_header(encoded)
    if (header := re.fullmatch(HEADER, text)) is None:
        raise ValueError("a .npy file whose header cannot be read")
    kind, order, spelled = header.groups()
    if re.fullmatch(r".?O.*", kind):
        raise ValueError("a .npy file of Python objects, not numbers")
    letters = re.fullmatch(TYPE, kind)
    if letters is None or letters[1] not in KINDS:
        raise ValueError(f"a .npy file of the type {kind}, none of {', '.join(KINDS)}")
    if (sides := re.fullmatch(SHAPE, spelled)) is None:
        raise ValueError(f"an array of shape ({spelled}), which is no image with bands")
    height, width, bands = shape = tuple(int(side or 1) for side in sides.groups())
    if height * width > MAX_PIXELS:
        raise ValueError(f"an array of shape {shape}: at most {MAX_PIXELS} pixels are decoded")
    if not height * width * bands:
        raise ValueError(f"an array of shape {shape}, without pixels")
    dtype = np.dtype(KINDS[letters[1]]).newbyteorder(">" if kind.startswith(">") else "<")
    needed = start + height * width * bands * dtype.itemsize
    if len(encoded) != needed:
        text = f"a .npy file of {len(encoded)} bytes, its header asks for {needed}"
        raise EOFError(text) if len(encoded) < needed else ValueError(text)
    array = np.frombuffer(encoded, dtype, offset=start)
    return array.reshape(shape, order="F" if order == "True" else "C")


def _read_header(encoded: bytes) -> tuple[str, int]:
    """Returns the text of a header, and where the numbers begin."""
    before = 10 if encoded[6:7] == b"\x01" else 12  # version 1 has two bytes for the length
    length = int.from_bytes(encoded[8:before], "little")
    if length > MOST_HEADER_BYTES:
        raise ValueError("a .npy file whose header cannot be read")
    if len(encoded) < before + length:
        raise EOFError("a .npy file that is cut off")
    return encoded[before : before + length].decode("latin-1"), before + length


def _measure(kind: str, array: np.ndarray) -> Content:
    mode = str(array.dtype)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # the network's numbers are float32
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise ValueError(f"a {kind} file with numbers that are not finite in float32 (NaN)")
    height, width, bands = array.shape
    # Deviations in grey levels have no meaning here: 0 stands for equal numbers, 255 for others.
    return Content(
        format=kind, mode=mode, height=height, width=width, bands=bands,
        deviation=255.0 if array.min() < array.max() else 0.0,
    )  # fmt: skip
