"""Images that need no files of the user: handwritten digits, and glyphs rendered in code.

Listing the images needs no library; pixels are loaded or rendered when they are read.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "BUILTIN",
    "BuiltinSet",
    "describe_builtin",
    "list_labels",
    "load_builtin",
    "load_builtin_image",
]

BUILTIN = "builtin:"
"""Prefix of the path of every built-in image: `builtin:digits/17`."""

_GLYPHS = (
    "A C E F H J K L M N P R T U V W X Y d e f h m n r t u Gamma Delta Pi Phi Psi alpha gamma "
    "lambda Ii Sha Ya arrow asterisk heart plus"
).split()
_SCRIBBLES = [f"scribble_{number:03}" for number in range(160)]
_IMAGES_PER_GLYPH = 60

# The targets of scikit-learn's set in its order.
_DIGITS = (
    "01234567890123456789012345678909556509898417735100227820126337334666491509528200176321746313"
    "91768431405369617544728225795488490898012345678901234567890123456789095565098984177351002278"
    "20126337334666491509528200176321731391768431405369617544728225548849089801234567890123456789"
    "01234567890955650989841773510022782012633733466649150952820017632174631391768431405369617544"
    "72822579548849089301234567890123456789012345678909556509898417735100227820126337334666491509"
    "52820017632174631391768431405369617544728225795488490898012345678901234567890123456789095565"
    "09898417735100227820126337334666491509528200176321746313917684314053696175447282257954884908"
    "98012345678901234567890123456789095565098984177351002278201263373346664915095282001763217463"
    "13917684314053696175447282257954884908980123456789012345678901234567890955650989841773510022"
    "78201263373346664915095282001763217463139176843140536961754472822579548849089812345678901234"
    "56789012345678909556509898417735127820126337334666491509528200176321463139176843140536961754"
    "47282257954490898012345678901234567890123456789095565098984177351007820126337334666491509528"
    "20017632174631391768431405369617544728225795488490898012345678901234567890123456789095565098"
    "98417735100227820126337334666491509528200176321746313917684314053696175447282257954884908980"
    "12345678901234567890123456789095565098984177351002278201263373346664915095282001763217463139"
    "17684314053696175447282257954884908012345678901234567890123456789095565098984177351002278201"
    "26337334666491509528200176321746313917684314053696175447282257954884908980123456789012345690"
    "12345678909556509898417735100227820126337334666491509528017632174631391768431405369617544722"
    "57954490898012345678901234567890123456789095565098984177351002278201263373346664915095282001"
    "7632174631391768431405369617544728225795488490898"
)


class BuiltinSet(NamedTuple):
    """A built-in set without its pixels.

    Attributes:
        name: digits or glyphs.
        counts: Images of each class, by class name in order.
    """

    name: str
    counts: dict[str, int]


def describe_builtin(name: str) -> BuiltinSet:
    """Returns the classes of a set: "0" to "9", or "A" to "scribble_159".

    Args:
        name: `digits` or `glyphs`.
    """
    if name == "glyphs":
        return BuiltinSet(name, dict.fromkeys(_GLYPHS + _SCRIBBLES, _IMAGES_PER_GLYPH))
    return BuiltinSet(name, dict(sorted(Counter(_DIGITS).items())))


def list_labels(name: str) -> tuple[str, ...]:
    """Returns the class of each image of a set, in the order of its images.

    Args:
        name: `digits` or `glyphs`.
    """
    return (
        tuple(_DIGITS)
        if name == "digits"
        else tuple(Counter(describe_builtin(name).counts).elements())
    )


@functools.cache
def load_builtin(name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Loads scikit-learn's 1,797 handwritten digits, or renders the glyphs, the same each time.

    Args:
        name: `digits` or `glyphs`.

    Returns:
        uint8 (n, 8, 8, 3), grey as RGB in 0..255, read-only; and the class of each.
    """
    import numpy as np

    grey = np.rint(_load_ink(name) * (255 / 16)).astype(np.uint8)  # 17 levels
    pixels = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    pixels.setflags(write=False)
    return pixels, list_labels(name)


def _load_ink(name: str) -> np.ndarray:
    if name == "glyphs":
        from tl_toolkit.sources.glyphs import render_all_glyphs

        return render_all_glyphs(describe_builtin(name).counts)
    from sklearn import datasets

    images: np.ndarray = datasets.load_digits().images
    return images


def load_builtin_image(path: str) -> np.ndarray:
    """Returns uint8 (8, 8, 3), the pixels of one image.

    Args:
        path: Its path, as `builtin:digits/17`.
    """
    name, _, index = path.removeprefix(BUILTIN).partition("/")
    pixels: np.ndarray = load_builtin(name)[0][int(index)]
    return pixels
