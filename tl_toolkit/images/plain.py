"""Reads and resizes photos as the decoder does, without TensorFlow: by Pillow and numpy.

Only what both read alike is read here: whole JPEG and PNG files. `NotPlain` names what else a file
is; the decoder reads it, or says what is wrong with it.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tl_toolkit.images.convert import as_rgb
from tl_toolkit.images.geometry import Padding, Resize
from tl_toolkit.images.png import find_png_flaw
from tl_toolkit.images.upright import turn_by_exif
from tl_toolkit.sources.listing import MAX_BYTES, MAX_PIXELS
from tl_toolkit.sources.objects import read_image_file, stat_image

__all__ = ["NotPlain", "read_plain", "resize_plain"]

_MODES = {"JPEG": ("L", "RGB"), "MPO": ("L", "RGB"),
          "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")}  # fmt: skip
_END_OF_JPEG = b"\xff\xd9"


class NotPlain(Exception):
    """A file that only the decoder reads, or that it refuses."""


def read_plain(path: Path) -> np.ndarray:
    """Returns the pixels of a JPEG or PNG file, uint8 (h, w, 3): RGB in 0..255, upright.

    Args:
        path: The file.

    Raises:
        NotPlain: It is another kind of file, damaged, too large, or cannot be read.
    """
    try:
        if stat_image(path).st_size > MAX_BYTES:
            raise NotPlain("a large file")
        encoded = read_image_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF blocks
            return _decode(encoded)
    except NotPlain:
        raise
    except UnidentifiedImageError as error:
        raise NotPlain("no JPEG or PNG image") from error
    except Exception as error:  # Pillow's plug-ins raise nearly every kind on damaged bytes
        raise NotPlain(str(error) or type(error).__name__) from error


def _decode(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as image:
        kind = str(image.format)
        if image.mode not in _MODES[kind]:
            raise NotPlain(f"a {kind} image of mode {image.mode}")
        if image.width * image.height > MAX_PIXELS:
            raise NotPlain("a large image")
        if kind != "PNG" and not encoded.rstrip(b"\0").endswith(_END_OF_JPEG):
            raise NotPlain("a JPEG image without its end, or with more behind it")
        if kind == "PNG":
            if getattr(image, "is_animated", False):
                raise NotPlain("an animated PNG image")
            with Image.open(io.BytesIO(encoded), formats=("PNG",)) as second:
                second.verify()  # of checksums, which reading the pixels leaves out
            if flaw := find_png_flaw(encoded):
                raise NotPlain(flaw)
        image.load()
        return np.asarray(as_rgb(turn_by_exif(image)))


def resize_plain(pixels: np.ndarray, size: tuple[int, int], resize: Resize) -> np.ndarray:
    """Resizes as `images.decoder.resize_image` does: bilinearly, with antialiasing.

    The same weights in another order of sums: where a sum lies halfway between two levels, which is
    one value in a thousand at most, the lower may stand for the upper.

    Args:
        pixels: uint8 (h, w, 3).
        size: Height and width of the result.
        resize: How it is resized to them.

    Returns:
        uint8 (height, width, 3).
    """
    if pixels.shape[:2] == size:
        return pixels
    target, source = np.array(size, np.float32), np.array(pixels.shape[:2], np.float32)
    if isinstance(resize, Padding):
        return _pad(pixels, size, resize)
    scale = target / source
    if resize == "crop":
        scale = np.repeat(scale.max(), 2)
    return _scale(pixels, size, scale, (target - source * scale) / np.float32(2))


def _pad(pixels: np.ndarray, size: tuple[int, int], padding: Padding) -> np.ndarray:
    before = np.array(pixels.shape[:2], np.float64)
    inner = np.maximum(np.rint(before * (size / before).min()).astype(np.int32), 1)
    top, left = start = (np.array(size) - inner) // 2
    scaled = _scale(
        pixels, size, (inner / before).astype(np.float32), start.astype(np.float32)
    )  # fmt: skip
    padded = np.empty_like(scaled)
    padded[...] = np.array(padding.color, np.uint8)
    rows, columns = slice(top, top + inner[0]), slice(left, left + inner[1])
    padded[rows, columns] = scaled[rows, columns]
    return padded


def _scale(
    pixels: np.ndarray, size: tuple[int, int], scale: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """Scales and moves an image, and cuts it to a size: `tf.raw_ops.ScaleAndTranslate`."""
    rows = _gather(pixels, size[0], scale[0], translation[0])
    both = _gather(rows.transpose(1, 0, 2), size[1], scale[1], translation[1])
    levels: np.ndarray = np.rint(both.transpose(1, 0, 2)).clip(0, 255)
    return levels.astype(np.uint8)


def _gather(lines: np.ndarray, count: int, scale: np.float32, move: np.float32) -> np.ndarray:
    """Returns float32 (count, n, c), each line a weighted mean of some of (lines, n, c)."""
    gathered = np.zeros((count, *lines.shape[1:]), np.float32)
    for place, (start, weights) in enumerate(_find_spans(count, len(lines), scale, move)):
        if len(weights):
            part = lines[start : start + len(weights)].reshape(len(weights), -1)
            gathered[place] = (weights @ part.astype(np.float32)).reshape(lines.shape[1:])
    return gathered


def _find_spans(
    count: int, available: int, scale: np.float32, move: np.float32
) -> list[tuple[int, np.ndarray]]:
    """Returns which lines make each, and their weights, a triangle; none from outside.

    float32, step by step, as TensorFlow computes it: the ends of a triangle are no matter of taste.
    """
    one, half = np.float32(1), np.float32(0.5)
    inverse = one / scale
    width = max(inverse, one)
    centres = (np.arange(count, dtype=np.float32) + half) * inverse + -inverse * move
    spans = []
    for centre in centres:
        if centre < 0 or centre > available:
            spans.append((0, np.empty(0, np.float32)))
            continue
        first = min(max(int(np.ceil(centre - width - half)), 0), available - 1)
        last = min(max(int(np.floor(centre + width - half)), 0), available - 1)
        places = np.arange(first, last + 1, dtype=np.float32) + half - centre
        weights = np.maximum(one - np.abs(places * (one / width)), 0).astype(np.float32)
        spans.append((first, weights / weights.sum(dtype=np.float32)))
    return spans
