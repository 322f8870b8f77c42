"""What there is to know of one image's bytes, read by Pillow alone: TensorFlow is not needed."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from tl_toolkit.images.convert import as_rgb
from tl_toolkit.images.upright import read_orientation, turn_by_exif
from tl_toolkit.sources.listing import PILLOW_FORMATS

__all__ = [
    "CONTENT_VERSION",
    "FLAT",
    "SIGNATURE_SIDE",
    "Content",
    "Fault",
    "hash_differences",
    "inspect_content",
    "measure_blur",
]

CONTENT_VERSION = 1
"""Changes with what is measured, so that older measurements are not used again."""

SIGNATURE_SIDE = 16
"""Side of the small picture by which near duplicates are compared."""

Fault = Literal["", "empty", "truncated", "bomb", "unreadable", "convertible"]
"""Why an image cannot be used as it is: convertible ones only Pillow can read."""

FLAT = 4.0
"""Standard deviation of grey levels below which an image shows nothing."""

_SIDE = 256  # of the shorter side at which light and sharpness are measured: about a network's
_LEAST_SIDE = 64  # below, sharpness says nothing
_WINDOW = 11  # pixels that are averaged to blur once more: as Crete et al. (2007) evaluate
_TAKEN = (0x9003, 0x0132)  # DateTimeOriginal, DateTime
_EXIF_FOLDER = 0x8769
_TIME = r"(?!0000)\d{4}:\d\d:\d\d \d\d:\d\d:\d\d"
_END_OF_PNG = b"IEND\xaeB`\x82"
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Content:
    """An image, by its bytes.

    Attributes:
        fault: Why it cannot be used as it is; "" if it can. All that follows `reason` is of an
            image with a fault of its default.
        reason: The fault in words.
        format: Pillow's word, as JPEG.
        mode: Pillow's word for its pixels, as RGB, CMYK or I;16.
        height: Of the upright image, in pixels.
        width: Likewise.
        orientation: Of its EXIF block, 1 to 8; 1 is upright.
        is_animated: Whether it has several frames.
        has_alpha: Whether it has transparency, which is dropped.
        is_grey: Whether red, green and blue are equal everywhere.
        low: The level below which a twentieth of its pixels are, 0 to 255.
        high: The level above which a twentieth of them are.
        deviation: Standard deviation of its grey levels.
        blur: 0 sharp to 1, by Crete et al. (2007); None where the image is too small or too flat.
        taken: When it was taken by its EXIF block, as "2024:05:01 12:00:00"; "" if that is not
            known.
        hash: 64 bits, 16 hexadecimal digits; "" for an image too small or too flat to compare.
        signature: Its pixels at SIGNATURE_SIDE, uint8 RGB as bytes; b"" without a hash.
        bands: How many an array or a TIFF file of bands has; 0 for a photo. Of bands size and
            whether all numbers are equal are known, and neither light nor blur nor a hash.
    """

    fault: Fault = ""
    reason: str = ""
    format: str = ""
    mode: str = ""
    height: int = 0
    width: int = 0
    orientation: int = 1
    is_animated: bool = False
    has_alpha: bool = False
    is_grey: bool = False
    low: float = 0.0
    high: float = 255.0
    deviation: float = 0.0
    blur: float | None = None
    taken: str = ""
    hash: str = ""
    signature: bytes = b""
    bands: int = 0


def inspect_content(encoded: bytes) -> Content:
    """Measures an image; never raises for its content.

    Warnings of Pillow, of damaged EXIF blocks and large images, are the caller's to silence: their
    filters belong to the process, and several threads may call this.

    Args:
        encoded: The bytes of its file.
    """
    if not encoded:
        return Content("empty", "an empty file")
    try:
        with Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS) as image:
            content = _measure(image)
    except UnidentifiedImageError:
        return Content("unreadable", _describe_unknown(encoded))
    except Image.DecompressionBombError:
        return Content("bomb", "more pixels than are decoded: a decompression bomb, or a huge scan")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plug-ins raise nearly every kind on damaged bytes.
        text = str(error) or type(error).__name__
        is_cut = "truncated" in text or "Truncated" in text
        return Content("truncated" if is_cut else "unreadable", text)
    if content.format == "PNG" and _END_OF_PNG not in encoded:
        return replace(content, fault="convertible", reason="a PNG image without its last chunk")
    return content


def _describe_unknown(encoded: bytes) -> str:
    """Returns what a file is that is no image."""
    if encoded.startswith(_POINTER):
        return "a Git LFS pointer in place of the image: git lfs pull"
    if encoded[:1] in (b"<", b"{"):
        return "a text file, as a saved web page, in place of an image"
    if encoded[4:8] == b"ftyp":
        return "an HEIC or AVIF image"
    return "no JPEG, PNG, GIF, BMP, WebP or TIFF image"


def _measure(image: Image.Image) -> Content:
    kind = "JPEG" if image.format == "MPO" else str(image.format)  # an MPO begins with a JPEG
    mode, stored = image.mode, image.size
    is_animated = kind != "JPEG" and bool(getattr(image, "is_animated", False))
    has_alpha = mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    if kind == "JPEG":  # is decoded at the scale that is enough, which still reads all its bytes
        scale = _SIDE / min(stored)
        image.draft(mode, (max(1, int(stored[0] * scale)), max(1, int(stored[1] * scale))))
    image.load()
    orientation = read_orientation(image)
    upright = as_rgb(turn_by_exif(image))
    fault, reason = _find_fault(kind, mode, is_animated=is_animated, has_alpha=has_alpha)
    width, height = stored if orientation < 5 else stored[::-1]
    return Content(
        fault=fault, reason=reason, format=kind, mode=mode, height=height, width=width,
        orientation=orientation, is_animated=is_animated, has_alpha=has_alpha,
        taken=_read_taken(image), **_measure_pixels(upright, whole=min(width, height)),
    )  # fmt: skip


def _find_fault(kind: str, mode: str, *, is_animated: bool, has_alpha: bool) -> tuple[Fault, str]:
    """Returns why the decoder of training refuses what Pillow reads, as `images.headers` does."""
    if kind == "TIFF":
        return "convertible", "a TIFF image"
    if kind == "WEBP" and (is_animated or has_alpha):
        what = "an animated WebP image" if is_animated else "a WebP image with alpha"
        return "convertible", what
    if kind == "BMP" and mode == "1":
        return "convertible", "a BMP image of 1 bit"
    return "", ""


def _read_taken(image: Image.Image) -> str:
    """Returns when a photo was taken, as EXIF writes it; "" for none, or a clock never set."""
    try:
        exif = image.getexif()
        values = [exif.get_ifd(_EXIF_FOLDER).get(_TAKEN[0]), exif.get(_TAKEN[1])]
    except Exception:  # as in `read_orientation`
        return ""
    texts = [value.strip("\0 ") for value in values if isinstance(value, str)]
    return next((text for text in texts if re.fullmatch(_TIME, text)), "")


def _measure_pixels(image: Image.Image, *, whole: int) -> dict[str, Any]:
    """Returns what is measured of an upright RGB image, or of its reduction.

    Args:
        image: The image.
        whole: The shorter side that it had before it was reduced.
    """
    scale = _SIDE / min(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    red, green, blue = np.moveaxis(np.asarray(image), -1, 0)
    grey = np.asarray(image.convert("L"), np.float32)
    low, high = (float(level) for level in np.percentile(grey, [5, 95]))
    deviation = float(grey.std())
    is_flat = deviation < FLAT
    is_hashed = not is_flat and whole >= SIGNATURE_SIDE
    small = image.resize((SIGNATURE_SIDE, SIGNATURE_SIDE), Image.Resampling.BOX)
    return {
        "is_grey": bool((red == green).all() and (green == blue).all()),
        "low": low,
        "high": high,
        "deviation": deviation,
        "blur": None if is_flat or whole < _LEAST_SIDE else measure_blur(grey),
        "hash": hash_differences(image) if is_hashed else "",
        "signature": small.tobytes() if is_hashed else b"",
    }


def hash_differences(image: Image.Image) -> str:
    """Returns the difference hash of an image (dHash: Krawetz, 2013), 64 bits in hexadecimal.

    Each bit says whether a pixel of the image at 9 x 8 is brighter than its left neighbour. Size,
    compression, brightness and contrast change few of them.

    Args:
        image: Upright, of any size.
    """
    grey = image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    levels = np.asarray(grey, np.int16)
    return np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes().hex()


def measure_blur(grey: np.ndarray) -> float:
    """Returns how blurred an image is, from 0 to 1 (Crete et al., 2007).

    The image is blurred once more: of a sharp one, differences between neighbours shrink; of a
    blurred one, they hardly do. Unlike the variance of the Laplacian this does not depend on how
    much there is to see.

    Args:
        grey: float32 (h, w), at least _WINDOW on each side.
    """
    shares = []
    for axis in (0, 1):
        lines = np.moveaxis(grey, axis, 0)
        around = np.pad(lines, ((_WINDOW // 2 + 1, _WINDOW // 2), (0, 0)), mode="edge")
        sums = np.cumsum(around, axis=0, dtype=np.float64)
        blurred = (sums[_WINDOW:] - sums[:-_WINDOW]) / _WINDOW
        sharp = np.abs(np.diff(lines, axis=0))
        lost = np.maximum(0, sharp - np.abs(np.diff(blurred, axis=0)))
        total = float(sharp.sum())
        shares.append(1 - float(lost.sum()) / total if total else 0.0)
    return max(shares)
