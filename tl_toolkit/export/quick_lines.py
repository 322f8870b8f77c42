"""Maps of photos at their own sizes by a run's LiteRT export, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_toolkit.export.apart import find_last_line
from tl_toolkit.export.quick_files import NotQuick
from tl_toolkit.images.geometry import Resize
from tl_toolkit.images.plain import resize_plain
from tl_toolkit.tasks.dense.maps import MapForm, MapWriter
from tl_toolkit.tasks.dense.outputs import MapPrediction
from tl_toolkit.tasks.dense.resizing import blank_unseen, find_seen, place_pixels

__all__ = ["FILE", "LinesCall", "QuickMaps", "build_lines_call"]

FILE = "model.lines.tflite"
"""What lies beside model.tflite of a dense task."""

LinesCall = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Takes an image, float32 (1, h, w, c), and rows and columns, float32, in pixels of it; returns
outputs where they cross, (rows, columns, units)."""

_TILE_PIXELS = 1 << 15  # each takes a few KB, and each tile another run of the base


def build_lines_call(interpreter: Any) -> LinesCall:
    """Returns a function that calls the file.

    Args:
        interpreter: Has it open.
    """
    runner = interpreter.get_signature_runner()

    def call(image: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        try:
            (outputs,) = runner(image=image, ys=ys, xs=xs).values()
        except Exception as error:  # the runtime raises several kinds, of C++ too
            last = find_last_line(f"{type(error).__name__}: {error}")
            raise NotQuick(f"LiteRT cannot run the export: {last}") from error
        return np.array(outputs)  # the runtime writes the next ones into the same memory

    return call


class QuickMaps:
    """Predicts maps of photos.

    Args:
        call: Runs the export.
        size: (height, width) that it takes.
        resize: How images are resized to them.
        form: The maps of the task.
    """

    def __init__(
        self, call: LinesCall, size: tuple[int, int], resize: Resize, form: MapForm
    ) -> None:
        self._call = call
        self._size = size
        self._resize = resize
        self._form = form

    def predict(
        self,
        files: Sequence[Path],
        read: Callable[[Path], np.ndarray],
        *,
        out: Path | None,
        refused: Mapping[Path, str],
        report: Callable[[str], None],
    ) -> Iterator[MapPrediction]:
        """Yields the maps of each file.

        Args:
            files: Image files.
            read: Returns the pixels of one, uint8 (h, w, 3).
            out: A folder that receives pictures; None for none.
            refused: Why some hold no image.
            report: Receives where the legend is.

        Raises:
            NotQuick: The runtime cannot run the export.
            OutputError: A picture cannot be written.
        """
        writer = MapWriter(self._form, out, files, report)
        for path in files:
            if path in refused:
                yield MapPrediction(str(path), error=refused[path])
            else:
                pixels = read(path)
                yield writer.describe(path, self._find_maps(pixels), pixels)

    def _find_maps(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the maps of a photo, as `predict_maps` of a dense task finds them."""
        image = resize_plain(pixels, self._size, self._resize)[np.newaxis].astype(np.float32)
        ys, xs = place_pixels(pixels.shape[:2], self._size, self._resize)
        down, along = find_seen(ys, xs, self._size)
        tiles = -(-len(ys) * len(xs) // _TILE_PIXELS)
        parts = [
            self._form.reduce(self._call(image, rows, xs))
            for rows in np.array_split(ys, min(tiles, len(ys)))
        ]
        seen = down[:, np.newaxis] & along
        return {
            name: blank_unseen(np.concatenate([part[name] for part in parts]), seen)
            for name in parts[0]
        }
