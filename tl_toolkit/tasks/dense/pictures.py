"""Predicted maps as image files: how they are named, and what they may replace."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from tl_toolkit.errors import OutputError, Problem
from tl_toolkit.runs.files import drafted

__all__ = ["Pictures", "choose_palette"]

_OVERLAY = 0.5
"""Share of the prediction's colour in an overlay."""

_DARKEST = 2
"""Percent of the pixels of a band that are black in a photo of it, and as many white."""

_MAKER = "tltool predict"
"""The program that the files name in their header, by which later calls recognize them."""

_HEAD_BYTES = 256
"""Bytes of a PNG file that are read: the name of the program comes before palette and pixels."""

_NAMED = 3
_LEGEND_ROW = 24
"""Height of a class in the legend, in pixels."""
_LEGEND_TEXT = 14


class Pictures:
    """Writes predictions into a folder, named after their files: cat, cat_2, cat_3 if names repeat.

    Only files that an earlier call wrote are replaced.

    Args:
        folder: Receives them; need not exist.
        paths: The files that are predicted.
        kind: Name of a prediction that is rendered as an image, as `mask`.

    Raises:
        OutputError: A file would be replaced that is to be predicted, or that no earlier call
            wrote.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], *, kind: str) -> None:
        self._kinds = (kind, "overlay")
        self._bases = {path: folder / name for path, name in _name_outputs(paths).items()}
        self._legend = folder / "legend.png"
        self._refuse_to_replace()

    def write(self, path: Path, picture: Image.Image, pixels: np.ndarray) -> dict[str, str]:
        """Writes the prediction for a file, and the photo with the prediction over it.

        Args:
            path: The file.
            picture: The prediction as an image.
            pixels: The photo, uint8 (h, w, 3), or bands.

        Returns:
            The paths written, by kind.
        """
        over = Image.blend(Image.fromarray(_as_photo(pixels)), picture.convert("RGB"), _OVERLAY)
        header = PngInfo()
        header.add_text("Software", _MAKER)
        places = self._places(path)
        for place, image in zip(places.values(), (picture, over), strict=True):
            with drafted(place) as draft:
                image.save(draft, pnginfo=header)
        return {kind: str(place) for kind, place in places.items()}

    def write_legend(self, colors: Mapping[str, Sequence[int]]) -> Path:
        """Writes legend.png, each colour beside its name.

        Args:
            colors: Red, green and blue, 0 to 255, by name, as of a class.

        Returns:
            The path.
        """
        font = ImageFont.load_default(size=_LEGEND_TEXT)
        widest = max(font.getlength(name) for name in colors)
        size = (2 * _LEGEND_ROW + int(widest) + _LEGEND_TEXT, _LEGEND_ROW * len(colors))
        image = Image.new("RGB", size, "white")
        canvas = ImageDraw.Draw(image)
        for row, (name, color) in enumerate(colors.items()):
            top = row * _LEGEND_ROW
            box = (_LEGEND_ROW // 4, top + 3, 3 * _LEGEND_ROW // 2, top + _LEGEND_ROW - 3)
            canvas.rectangle(box, fill=tuple(color))
            middle = top + _LEGEND_ROW / 2
            canvas.text((2 * _LEGEND_ROW, middle), name, fill="black", font=font, anchor="lm")
        header = PngInfo()
        header.add_text("Software", _MAKER)
        with drafted(self._legend) as draft:
            image.save(draft, pnginfo=header)
        return self._legend

    def _places(self, path: Path) -> dict[str, Path]:
        base = self._bases[path]
        return {kind: base.with_name(f"{base.name}_{kind}.png") for kind in self._kinds}

    def _refuse_to_replace(self) -> None:
        sources = {path.resolve() for path in self._bases}
        places = [place for path in self._bases for place in self._places(path).values()]
        places.append(self._legend)
        protected = [
            place
            for place in places
            if os.path.lexists(place) and (place.resolve() in sources or not _is_own(place))
        ]
        if protected:
            names = ", ".join(place.name for place in protected[:_NAMED])
            more = f" and {len(protected) - _NAMED} more" if len(protected) > _NAMED else ""
            raise OutputError(
                Problem(
                    where=f"--out {places[0].parent}",
                    what=f"{names}{more} would be lost",
                    expected="Only what an earlier call wrote is replaced, and no image that is "
                    "predicted.",
                    hint="--out DIR with another folder",
                )
            )


def _as_photo(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 (h, w, 3): bands as red, green and blue, or grey, without the darkest 2 %."""
    if pixels.dtype == np.uint8:
        return pixels
    shown = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1]
    low, high = np.percentile(shown, [_DARKEST, 100 - _DARKEST], axis=(0, 1))
    levels = (shown - low) / np.maximum(high - low, np.finfo(np.float32).tiny) * 255
    photo: np.ndarray = np.broadcast_to(levels.clip(0, 255).astype(np.uint8), (*shown.shape[:2], 3))
    return photo


def _name_outputs(paths: Sequence[Path]) -> dict[Path, str]:
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


def _is_own(place: Path) -> bool:
    if not place.is_file():
        return False
    with open(place, "rb") as file:
        return f"Software\0{_MAKER}".encode() in file.read(_HEAD_BYTES)


def choose_palette(count: int) -> np.ndarray:
    """Returns uint8 (count, 3), the colours of the PASCAL VOC colour map.

    In that map the bits of a class's number, lowest first, are assigned in turn to red, green and
    blue, from their highest bit down, so that neighbours differ.

    Args:
        count: Classes.
    """
    colors = np.zeros((count, 3), np.uint8)
    for index in range(count):
        for bit in range(8):
            # From 1 on: 0 would be black, which is hard to see on a photo.
            colors[index, bit % 3] |= ((index + 1 >> bit) & 1) << (7 - bit // 3)
    return colors
