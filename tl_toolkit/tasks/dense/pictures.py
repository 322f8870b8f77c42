"""Predicted maps as image files: how they are named, and what they may replace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tl_toolkit.images.pictures import as_photo, name_outputs, refuse_to_replace, save_picture

__all__ = ["Pictures", "choose_palette"]

_OVERLAY = 0.5
"""Share of the prediction's colour in an overlay."""

_MAKER = "tltool predict"
"""The program that the files name in their header, by which later calls recognize them."""

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
        self._bases = {path: folder / name for path, name in name_outputs(paths).items()}
        self._legend = folder / "legend.png"
        places = [place for path in self._bases for place in self._places(path).values()]
        refuse_to_replace([*places, self._legend], self._bases, maker=_MAKER)

    def write(self, path: Path, picture: Image.Image, pixels: np.ndarray) -> dict[str, str]:
        """Writes the prediction for a file, and the photo with the prediction over it.

        Args:
            path: The file.
            picture: The prediction as an image.
            pixels: The photo, uint8 (h, w, 3), or bands.

        Returns:
            The paths written, by kind.
        """
        over = Image.blend(Image.fromarray(as_photo(pixels)), picture.convert("RGB"), _OVERLAY)
        places = self._places(path)
        for place, image in zip(places.values(), (picture, over), strict=True):
            save_picture(image, place, maker=_MAKER)
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
        save_picture(image, self._legend, maker=_MAKER)
        return self._legend

    def _places(self, path: Path) -> dict[str, Path]:
        base = self._bases[path]
        return {kind: base.with_name(f"{base.name}_{kind}.png") for kind in self._kinds}


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
