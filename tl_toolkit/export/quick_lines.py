"""The LiteRT export of a dense task, asked between its pixels, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tl_toolkit.export.apart import find_last_line
from tl_toolkit.export.quick_files import NotQuick

__all__ = ["FILE", "LinesCall", "build_lines_call"]

FILE = "model.lines.tflite"
"""What lies beside model.tflite of a dense task."""

LinesCall = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Takes an image, float32 (1, h, w, c), and rows and columns, float32, in pixels of it; returns
outputs where they cross, (rows, columns, units)."""


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
