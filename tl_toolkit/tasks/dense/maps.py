"""What outputs of pixels say, as arrays and as pictures, without TensorFlow.

`maps.py` of each task's folder has `build(recipe, classes)`, which returns a `MapForm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.plain import resize_plain
from tl_toolkit.tasks.dense.outputs import MapPrediction
from tl_toolkit.tasks.dense.pictures import Pictures, choose_palette
from tl_toolkit.tasks.dense.resizing import blank_unseen, find_seen, place_pixels
from tl_toolkit.tasks.dense.spec import IGNORE

__all__ = ["LinesCall", "MapForm", "MapWriter", "Renderer"]

LinesCall = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Takes an image, float32 (1, h, w, c), and rows and columns, float32, in pixels of it; returns
outputs where they cross, (rows, columns, units)."""

_TILE_PIXELS = 1 << 15  # each takes a few KB, and each tile another run of the base


class Renderer(Protocol):
    """How maps are rendered: a dense task, or a MapForm."""

    @property
    def picture(self) -> str:
        """Name of a prediction that is rendered as an image, in names of files."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the outputs; none where pixels are of no class."""

    @property
    def palette(self) -> np.ndarray | None:
        """uint8 (classes, 3), the colours of the classes; None for a palette of our own."""

    def render(self, prediction: Mapping[str, np.ndarray], palette: np.ndarray) -> Image.Image:
        """Returns a prediction for one image as an image to save.

        Args:
            prediction: Maps, (h, w, ...).
            palette: uint8 (classes, 3), a colour for each class.
        """

    def list_colors(self, palette: np.ndarray) -> Mapping[str, Sequence[int]]:
        """Returns the colours that `render` gives to what a legend names.

        Args:
            palette: As in `render`.
        """


@dataclass(frozen=True)
class MapForm:
    """The maps of a task.

    Attributes:
        picture: As in `Renderer`.
        classes: As in `Renderer`.
        palette: As in `Renderer`.
        reduce: Returns maps by name, (..., ...), of outputs float32 (..., units), as `postprocess`
            of the task; a temperature is in the outputs.
        render: As in `Renderer`.
        list_colors: As in `Renderer`.
    """

    picture: str
    classes: tuple[str, ...]
    palette: np.ndarray | None
    reduce: Callable[[np.ndarray], dict[str, np.ndarray]]
    render: Callable[[Mapping[str, np.ndarray], np.ndarray], Image.Image]
    list_colors: Callable[[np.ndarray], Mapping[str, Sequence[int]]]

    def predict(
        self,
        call: LinesCall,
        files: Sequence[Path],
        read: Callable[[Path], np.ndarray],
        *,
        size: tuple[int, int],
        resize: Resize,
        out: Path | None,
        refused: Mapping[Path, str],
        report: Callable[[str], None],
    ) -> Iterator[MapPrediction]:
        """Yields the maps of each file.

        Args:
            call: Runs the model.
            files: Image files.
            read: Returns the pixels of one, uint8 (h, w, 3).
            size: (height, width) that the model takes.
            resize: How images are resized to them.
            out: A folder that receives pictures; None for none.
            refused: Why some hold no image.
            report: Receives where the legend is.

        Raises:
            OutputError: A picture cannot be written.
        """
        writer = MapWriter(self, out, files, report)
        for path in files:
            if path in refused:
                yield MapPrediction(str(path), error=refused[path])
            else:
                pixels = read(path)
                yield writer.describe(path, self._find(call, pixels, size, resize), pixels)

    def _find(
        self, call: LinesCall, pixels: np.ndarray, size: tuple[int, int], resize: Resize
    ) -> dict[str, np.ndarray]:
        """Returns the maps of a photo, as `predict_maps` of a dense task finds them."""
        image = resize_plain(pixels, size, resize)[np.newaxis].astype(np.float32)
        ys, xs = place_pixels(pixels.shape[:2], size, resize)
        down, along = find_seen(ys, xs, size)
        tiles = -(-len(ys) * len(xs) // _TILE_PIXELS)
        parts = [
            self.reduce(call(image, rows, xs)) for rows in np.array_split(ys, min(tiles, len(ys)))
        ]
        seen = down[:, np.newaxis] & along
        return {
            name: blank_unseen(np.concatenate([part[name] for part in parts]), seen)
            for name in parts[0]
        }


class MapWriter:
    """Makes predictions of maps, and writes their pictures where a folder receives them.

    Args:
        renderer: Renders maps.
        folder: Receives pictures; None to keep the maps in the predictions.
        paths: The files that are predicted.
        report: Receives where the legend is.

    Raises:
        OutputError: A file would be replaced that is predicted, or that no earlier call wrote.
    """

    def __init__(
        self,
        renderer: Renderer,
        folder: Path | None,
        paths: Sequence[Path],
        report: Callable[[str], None],
    ) -> None:
        self._renderer = renderer
        self._pictures = None if folder is None else Pictures(folder, paths, kind=renderer.picture)
        self._report = report
        own = renderer.palette
        self._palette = choose_palette(len(renderer.classes)) if own is None else own
        self._has_legend = False

    def describe(
        self, path: Path, maps: Mapping[str, np.ndarray], pixels: np.ndarray
    ) -> MapPrediction:
        """Returns the prediction for a file, whose pictures are written.

        Args:
            path: The file.
            maps: Its maps, (h, w, ...).
            pixels: The photo, uint8 (h, w, 3), or bands.
        """
        shares = _find_shares(maps, self._renderer.classes)
        if self._pictures is None:
            return MapPrediction(str(path), maps, shares)
        picture = self._renderer.render(maps, self._palette)
        files = self._pictures.write(path, picture, pixels)
        if not self._has_legend:
            legend = self._pictures.write_legend(self._renderer.list_colors(self._palette))
            self._report(f"legend of the colours: {legend}")
            self._has_legend = True
        return MapPrediction(str(path), shares=shares, files=files)


def _find_shares(maps: Mapping[str, np.ndarray], classes: Sequence[str]) -> dict[str, float]:
    if "mask" not in maps:
        return {}
    counts = np.bincount(maps["mask"].reshape(-1), minlength=IGNORE + 1)[: len(classes)]
    order = np.argsort(-counts, kind="stable")
    return {classes[i]: float(counts[i] / max(counts.sum(), 1)) for i in order}
