"""What outputs of pixels say, as arrays and as pictures, without TensorFlow.

`maps.py` of each task's folder has `build(classes, colors)`, which returns a `MapForm`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from tl_toolkit.tasks.dense.outputs import MapPrediction
from tl_toolkit.tasks.dense.pictures import Pictures, choose_palette
from tl_toolkit.tasks.dense.spec import IGNORE

__all__ = ["MapForm", "MapWriter", "Renderer"]


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
