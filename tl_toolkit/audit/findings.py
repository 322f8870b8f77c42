"""Findings of single images, by their bytes and pixels."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tl_toolkit.audit.content import FLAT, Content
from tl_toolkit.audit.inspect import InspectedFile
from tl_toolkit.sources.listing import suffix_of

__all__ = ["Finding", "find_in_images"]

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "NPY": (".npy",),
}
_DARK, _BRIGHT = 40, 230
"""Of the 95th and the 5th percentile of grey levels. Of 1,772 photos none is as dark or bright."""

_BLURRED = 0.6
"""Of 1,772 photos the most blurred has 0.58; blurred by 3 pixels of 256, 95 % are above 0.61."""

_HUGE = 50_000_000  # pixels
_LEAST = 32  # pixels of the shorter side
_TIMES_SHAPE = 2.5  # wider or narrower than the median
_TIMES_SIZE = 16  # more or fewer pixels than the median
_FEW = 0.05  # of all images, what is odd among them
_ENOUGH = 20  # images, to say what is usual


@dataclass(frozen=True)
class Finding:
    """Something that may be wrong with a set of images.

    Attributes:
        kind: One of `tl_toolkit.audit.kinds.KINDS`.
        paths: The images; none of a finding of classes.
        reason: What was found, in words.
        excluded: Those of the images that are left out if the kind is.
        weight: How grave it is among those of its kind; 0 for all that are alike.
    """

    kind: str
    paths: tuple[str, ...]
    reason: str
    excluded: tuple[str, ...] = ()
    weight: float = 0.0


def find_in_images(files: Sequence[InspectedFile]) -> Iterator[Finding]:
    """Yields findings of single images.

    Args:
        files: All images of a set: what is odd is so among the others.
    """
    usual = _Usual(files)
    for file in files:
        if file.content.fault:
            yield _of(file, file.content.fault, file.content.reason)
        if file.is_usable:
            yield from _find_in_file(file)
            yield from usual.find(file)


def _of(file: InspectedFile, kind: str, reason: str) -> Finding:
    return Finding(kind, (file.path,), reason, (file.path,))


def _find_in_file(file: InspectedFile) -> Iterator[Finding]:
    content = file.content
    suffixes = _SUFFIXES.get(content.format, ())
    suffix = suffix_of(file.file)
    if suffixes and suffix not in suffixes:
        what = f"named {suffix}" if suffix else "named without an ending"
        yield _of(file, "wrong_name", f"a {content.format} image {what}")
    if content.orientation > 1:
        yield _of(file, "rotated", f"orientation {content.orientation}")
    pixels = content.height * content.width
    if pixels > _HUGE:
        yield _of(file, "huge", f"{content.width} x {content.height} pixels")
    if content.bands:
        if not content.deviation:
            yield _of(file, "flat", "all its numbers are equal")
        if min(content.height, content.width) < _LEAST:
            yield _of(file, "odd_size", f"{content.width} x {content.height} pixels")
        return
    if content.mode in ("CMYK", "F", "I") or content.mode.startswith("I;16"):
        reason = "16 bits, of which 8 are used" if content.mode.startswith("I") else content.mode
        yield _of(file, "odd_mode", reason)
    if content.is_animated:
        yield _of(file, "odd_mode", "animated: the first frame is used")
    if file.path.startswith("builtin:"):
        return
    if content.deviation < FLAT:
        yield _of(file, "flat", f"grey levels deviate by {content.deviation:.1f} of 255")
    elif content.high < _DARK:
        yield _of(file, "dark", f"95 % of it below level {content.high:.0f} of 255")
    elif content.low > _BRIGHT:
        yield _of(file, "bright", f"95 % of it above level {content.low:.0f} of 255")
    if content.blur is not None and content.blur > _BLURRED:
        yield _of(file, "blurred", f"blur {content.blur:.2f}; above {_BLURRED} is blurred")
    if min(content.height, content.width) < _LEAST:
        yield _of(file, "odd_size", f"{content.width} x {content.height} pixels")


class _Usual:
    """What is usual in a set of images, and how single ones differ.

    Args:
        files: The images.
    """

    def __init__(self, files: Sequence[InspectedFile]) -> None:
        contents = [file.content for file in files if file.is_usable]
        self._is_known = len(contents) >= _ENOUGH
        if not self._is_known:
            return
        self._shape = statistics.median(_shape_of(content) for content in contents)
        self._pixels = statistics.median(content.height * content.width for content in contents)
        photos = [content for content in contents if not content.bands]
        self._rare = {
            name: 0 < sum(flags) <= _FEW * len(photos)
            for name, flags in (
                ("grey", [content.is_grey for content in photos]),
                ("colour", [not content.is_grey for content in photos]),
                ("alpha", [content.has_alpha for content in photos]),
            )
        }

    def find(self, file: InspectedFile) -> Iterator[Finding]:
        """Yields in what an image differs from most.

        Args:
            file: One of the images.
        """
        if not self._is_known:
            return
        content = file.content
        sides = f"{content.width} x {content.height} pixels"
        times = _shape_of(content) / self._shape
        if max(times, 1 / times) > _TIMES_SHAPE:
            words = f"{max(times, 1 / times):.1f} times as {'wide' if times > 1 else 'narrow'}"
            yield _of(file, "odd_shape", f"{sides}, {words} as the median")
        times = content.height * content.width / self._pixels
        is_small = min(content.height, content.width) < _LEAST  # is said already
        if max(times, 1 / times) > _TIMES_SIZE and not is_small:
            words = "more" if times > 1 else "fewer"
            yield _of(file, "odd_size", f"{sides}, {max(times, 1 / times):.0f} times {words}")
        if content.bands:
            return
        if self._rare["grey"] and content.is_grey and content.deviation >= FLAT:
            yield _of(file, "odd_mode", "grey among images in colour")
        if self._rare["colour"] and not content.is_grey:
            yield _of(file, "odd_mode", "in colour among grey images")
        if self._rare["alpha"] and content.has_alpha and content.fault == "":
            yield _of(file, "odd_mode", "has alpha, which is dropped")


def _shape_of(content: Content) -> float:
    return content.width / content.height
