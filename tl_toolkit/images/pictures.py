"""Pictures that commands write: how they are named, and what they may replace."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tl_toolkit.errors import OutputError, Problem
from tl_toolkit.runs.files import drafted

__all__ = ["as_photo", "name_outputs", "refuse_to_replace", "save_picture"]

_DARKEST = 2
"""Percent of the pixels of a band that are black in a photo of it, and as many white."""

_HEAD_BYTES = 256
"""Bytes of a file that are read: the name of the program comes before palette and pixels."""

_NAMED = 3


def save_picture(image: Image.Image, place: Path, *, maker: str) -> None:
    """Writes a PNG, beside its place and renamed, that names the program that made it.

    Args:
        image: The picture.
        place: The file.
        maker: The program, by which later calls recognize the file as their own.

    Raises:
        OutputError: The file cannot be written.
    """
    header = PngInfo()
    header.add_text("Software", maker)
    with drafted(place) as draft:
        image.save(draft, format="PNG", pnginfo=header)


def refuse_to_replace(places: Sequence[Path], sources: Iterable[Path], *, maker: str) -> None:
    """Refuses to write over files that no earlier call wrote.

    Args:
        places: The files to write; one at least.
        sources: Images that the call reads.
        maker: As in `save_picture`; a page names it as its generator.

    Raises:
        OutputError: A file is there that is read, or that another program wrote.
    """
    read = {path.resolve() for path in sources}
    protected = [
        place
        for place in places
        if os.path.lexists(place) and (place.resolve() in read or not _is_own(place, maker))
    ]
    if protected:
        names = ", ".join(place.name for place in protected[:_NAMED])
        more = f" and {len(protected) - _NAMED} more" if len(protected) > _NAMED else ""
        raise OutputError(
            Problem(
                where=f"--out {places[0].parent}",
                what=f"{names}{more} would be lost",
                expected="Only what an earlier call wrote is replaced, and no image that is read.",
                hint="--out DIR with another folder",
            )
        )


def _is_own(place: Path, maker: str) -> bool:
    if not place.is_file():
        return False
    with open(place, "rb") as file:
        head = file.read(_HEAD_BYTES)
    return any(mark in head for mark in (f"Software\0{maker}".encode(), f'"{maker}"'.encode()))


def as_photo(pixels: np.ndarray) -> np.ndarray:
    """Returns an image as a photo: bands as red, green and blue, or grey, without the darkest 2 %.

    Args:
        pixels: uint8 (h, w, 3), which stay as they are, or float32 (h, w, bands).

    Returns:
        uint8 (h, w, 3).
    """
    if pixels.dtype == np.uint8:
        return pixels
    shown = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1]
    low, high = np.percentile(shown, [_DARKEST, 100 - _DARKEST], axis=(0, 1))
    levels = (shown - low) / np.maximum(high - low, np.finfo(np.float32).tiny) * 255
    photo: np.ndarray = np.broadcast_to(levels.clip(0, 255).astype(np.uint8), (*shown.shape[:2], 3))
    return photo


def name_outputs(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns names for what is made of files: cat, cat_2, cat_3 if names repeat.

    Args:
        paths: The files.
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    tries: Counter[str] = Counter()
    for path in dict.fromkeys(paths):
        name = path.stem
        while name in taken:
            tries[path.stem] += 1
            name = f"{path.stem}_{tries[path.stem] + 1}"
        taken.add(name)
        names[path] = name
    return names
