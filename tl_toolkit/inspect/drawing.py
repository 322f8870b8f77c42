"""Pictures of what is inside a model: photos with heat over them, and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Tile", "color_heat", "draw_sheet", "enlarge", "lay_over"]

_COLORS = "inferno"
"""A map of colours whose lightness rises evenly (van der Walt and Smith, 2015)."""

_STRENGTH = 0.6
"""Share of the heat's colour in an overlay."""

_LEAST_SIDE = 224
_CAPTION = 13
_LINE = 16
_GAP = 8


@dataclass(frozen=True)
class Tile:
    """A picture of a contact sheet.

    Attributes:
        picture: The picture.
        caption: Lines below it.
    """

    picture: Image.Image
    caption: Sequence[str] = ()


def color_heat(heat: np.ndarray) -> np.ndarray:
    """Returns numbers as colours from black by purple and orange to light yellow.

    Args:
        heat: In [0, 1], of any shape.

    Returns:
        uint8 (..., 3).
    """
    from matplotlib import colormaps  # half a second, for whoever draws

    colors: np.ndarray = colormaps[_COLORS](heat, bytes=True)[..., :3]
    return colors


def lay_over(photo: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Returns a photo in grey, with heat over it.

    Args:
        photo: uint8 (h, w, 3).
        heat: float32 (h, w) in [0, 1].

    Returns:
        The picture, its sides at least 224 pixels.
    """
    grey = enlarge(Image.fromarray(photo)).convert("L").convert("RGB")
    levels = Image.fromarray((heat * 255).round().astype(np.uint8))
    smooth = np.asarray(levels.resize(grey.size, Image.Resampling.BILINEAR)) / 255
    return Image.blend(grey, Image.fromarray(color_heat(smooth)), _STRENGTH)


def enlarge(picture: Image.Image, least: int = _LEAST_SIDE) -> Image.Image:
    """Returns a picture whose shorter side is at least so long, each pixel a square of its own.

    Args:
        picture: The picture.
        least: Pixels.
    """
    factor = -(-least // min(picture.size))
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST) if factor > 1 else picture


def draw_sheet(tiles: Sequence[Tile], *, columns: int) -> Image.Image:
    """Draws pictures side by side, row by row, with their captions.

    Args:
        tiles: The pictures; one at least.
        columns: How many lie side by side.
    """
    font = ImageFont.load_default(size=_CAPTION)
    columns = min(columns, len(tiles))
    words = max((font.getlength(line) for tile in tiles for line in tile.caption), default=0)
    width = max(int(words), *(tile.picture.width for tile in tiles)) + _GAP
    lines = max(len(tile.caption) for tile in tiles)
    height = max(tile.picture.height for tile in tiles) + lines * _LINE + _GAP
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    canvas = ImageDraw.Draw(sheet)
    for place, tile in enumerate(tiles):
        left = _GAP + place % columns * width
        top = _GAP + place // columns * height
        sheet.paste(tile.picture, (left, top))
        for number, line in enumerate(tile.caption):
            below = top + tile.picture.height + number * _LINE
            canvas.text((left, below + 1), line, fill="black", font=font)
    return sheet
