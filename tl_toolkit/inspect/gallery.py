"""The folder of heat maps: a picture of each image, and a page that shows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tl_toolkit.images.pictures import as_photo, name_outputs, refuse_to_replace, save_picture
from tl_toolkit.inspect.drawing import enlarge, lay_over
from tl_toolkit.printing.page import encode_picture, render_page, replace_undecodable
from tl_toolkit.runs.files import write_atomically

__all__ = ["Gallery", "shrink", "write_sheet"]

_MAKER = "tltool explain"
_SIDE = 224  # pixels of the longer side of a picture on the page
_PHOTO = 240  # of a photo that filters are applied to


@dataclass(frozen=True)
class _Picture:
    words: str
    source: str  # a data URI


@dataclass(frozen=True)
class _Entry:
    caption: str
    pictures: tuple[_Picture, ...]


class Gallery:
    """Writes heat maps into a folder, named after their files.

    Args:
        folder: Receives them; need not exist.
        paths: The files that are explained.
        method: The method, which is part of the names.

    Raises:
        OutputError: A file would be replaced that is to be explained, or that no earlier call
            wrote.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], method: str) -> None:
        self._method = method
        self._places = {
            path: folder / f"{name}_{method.replace('+', 'p')}.png"
            for path, name in name_outputs(paths).items()
        }
        self._index = folder / "index.html"
        self._entries: list[_Entry] = []
        refuse_to_replace([*self._places.values(), self._index], self._places, maker=_MAKER)

    def write(self, path: Path, image: np.ndarray, heat: np.ndarray, label: str) -> Path:
        """Writes the picture of one image.

        Args:
            path: Its file.
            image: (h, w, channels), as the model sees it.
            heat: float32 (h, w) in [0, 1].
            label: What is explained, in words.

        Returns:
            The picture's path.
        """
        photo = as_photo(image)
        over = lay_over(photo, heat)
        save_picture(over, self._places[path], maker=_MAKER)
        name = replace_undecodable(path.name)
        pictures = (
            _Picture(name, _encode(Image.fromarray(photo))),
            _Picture(f"{self._method} of {name}: {label}", _encode(over)),
        )
        self._entries.append(_Entry(label, pictures))
        return self._places[path]

    def write_index(self, title: str) -> Path:
        """Writes the page.

        Args:
            title: What was explained.

        Returns:
            Its path.
        """
        page = render_page(
            "inspect/explain.html.jinja",
            maker=_MAKER,
            side=_SIDE,
            title=replace_undecodable(title),
            notes=[
                f"{self._method}: light where the image speaks for the output, black elsewhere."
            ],
            entries=self._entries,
        )
        write_atomically(self._index, page)
        return self._index


def _encode(picture: Image.Image) -> str:
    small = enlarge(picture)
    small.thumbnail((_SIDE, _SIDE))
    return encode_picture(small)


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """Writes a contact sheet as PNG; a file that exists is replaced.

    Args:
        sheet: The sheet.
        path: The file.

    Raises:
        OutputError: The file cannot be written.
    """
    save_picture(sheet, path, maker=_MAKER)


def shrink(pixels: np.ndarray) -> np.ndarray:
    """Returns a photo whose longer side has at most 240 pixels.

    Args:
        pixels: uint8 (h, w, 3).
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((_PHOTO, _PHOTO))
    return np.asarray(picture)
