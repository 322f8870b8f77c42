"""Images that no listing names: of another ending, beside the class folders, or behind links."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from tl_toolkit.audit.findings import Finding
from tl_toolkit.sources.listing import IMAGE_SUFFIXES, Ignored, is_lost, suffix_of

__all__ = ["find_not_listed"]

_FIRST_BYTES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_LONGEST = 12  # bytes that say what a file is


def find_not_listed(ignored: Sequence[Ignored]) -> Iterator[Finding]:
    """Yields files that are images, or may be, and are not listed, by the reason.

    Args:
        ignored: What a listing leaves out.
    """
    by_reason: dict[str, list[str]] = {}
    for entry in ignored:
        if is_lost(entry) or suffix_of(entry.path) in IMAGE_SUFFIXES:
            by_reason.setdefault(entry.reason, []).append(entry.path)
        elif kind := _find_kind(entry.path):
            suffix = suffix_of(entry.path)
            what = f"named {suffix}" if suffix else "named without an ending"
            by_reason.setdefault(f"{kind} image {what}", []).append(entry.path)
    for reason, paths in sorted(by_reason.items()):
        for path in paths:
            yield Finding("not_listed", (path,), reason)


def _find_kind(path: str) -> str:
    """Returns what a file is by its first bytes; "" for no image. Links are not opened."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return ""
        with open(path, "rb") as file:
            first = file.read(_LONGEST)
    except OSError:
        return ""
    if first.startswith(b"RIFF") and first[8:] == b"WEBP":
        return "WEBP"
    if first[4:8] == b"ftyp" and first[8:] in (b"heic", b"heix", b"mif1", b"avif"):
        return "HEIC or AVIF"
    return next((kind for start, kind in _FIRST_BYTES.items() if first.startswith(start)), "")
