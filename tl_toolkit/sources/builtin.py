"""Images that need no files of the user: handwritten digits, and glyphs drawn in code."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from tl_toolkit.sources.glyphs import COUNTS, render_all_glyphs

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BUILTIN", "BuiltinSet", "describe_builtin", "load_builtin", "load_builtin_image"]

BUILTIN = "builtin:"
"""Begins the path of every built-in image: `builtin:digits/17`."""

# Images of each digit in scikit-learn's set, so that counting them costs no import.
_COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


class BuiltinSet(NamedTuple):
    """A built-in set without its pixels: images per class, by class name in order."""

    name: str
    counts: dict[str, int]


def describe_builtin(name: str) -> BuiltinSet:
    """Returns the classes of `digits` ("0" to "9") or of `glyphs` ("A", "scribble_007")."""
    if name == "glyphs":
        return BuiltinSet(name, dict(COUNTS))
    return BuiltinSet(name, {str(digit): count for digit, count in enumerate(_COUNTS)})


@functools.cache
def load_builtin(name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Loads scikit-learn's 1,797 handwritten digits, or draws the glyphs, the same ones each time.

    Args:
        name: `digits` or `glyphs`.

    Returns:
        uint8 (n, 8, 8, 3), grey as RGB in 0..255, read-only; the class of each.
    """
    import numpy as np

    ink, labels = _draw() if name == "glyphs" else _load_digits()
    grey = np.rint(ink * (255 / 16)).astype(np.uint8)  # 17 levels
    pixels = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    pixels.setflags(write=False)
    return pixels, tuple(labels)


def _load_digits() -> tuple[np.ndarray, list[str]]:
    from sklearn import datasets

    bunch = datasets.load_digits()
    return bunch.images, [str(digit) for digit in bunch.target]


def _draw() -> tuple[np.ndarray, list[str]]:
    return render_all_glyphs(), [name for name, count in COUNTS.items() for _ in range(count)]


def load_builtin_image(path: str) -> np.ndarray:
    """Returns uint8 (8, 8, 3), the image of a path like `builtin:digits/17`."""
    name, _, index = path.removeprefix(BUILTIN).partition("/")
    pixels: np.ndarray = load_builtin(name)[0][int(index)]
    return pixels
