"""Letters, signs and scribbles, rendered in code in the format of scikit-learn's digits.

They are strokes, not a font's outlines: fonts differ between machines. Letters that may look like a
digit when written carelessly are left out (B, D, G, I, O, Q, S, Z, a, b, g, i, l, o, p, q, s, y, z,
Omega), and lower case that is its capital made smaller. Scribbles are random, not inspected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GLYPHS", "render_all_glyphs", "render_glyphs"]

# Strokes, separated by commas, each a line through its points; ~ begins a curve through them. A
# point is two digits: 0 to 8 from left to right, 0 to 9 downwards.
GLYPHS = {
    "A": "09 40 89, 16 76",
    "C": "~ 81 50 12 05 17 59 88",
    "E": "80 00 09 89, 04 64",
    "F": "80 00 09, 04 64",
    "H": "00 09, 80 89, 04 84",
    "J": "80 86, ~ 86 69 39 17",
    "K": "00 09, 80 05 89",
    "L": "00 09 89",
    "M": "09 00 45 80 89",
    "N": "09 00 89 80",
    "P": "00 09, ~ 00 50 82 55 05",
    "R": "00 09, ~ 00 50 82 55 05, 35 89",
    "T": "00 80, 40 49",
    "U": "00 05, ~ 05 18 49 78 85, 85 80",
    "V": "00 49 80",
    "W": "00 29 43 69 80",
    "X": "00 89, 80 09",
    "Y": "00 44 80, 44 49",
    "d": "80 89, ~ 84 53 13 06 19 59 87",
    "e": "04 84, ~ 84 71 40 11 04 07 39 79",
    "f": "~ 80 50 32 34, 34 39, 04 74",
    "h": "00 09, ~ 05 34 64 86 89",
    "m": "02 09, ~ 04 22 43 45 49, ~ 44 62 83 85 89",
    "n": "01 09, ~ 04 31 61 84 89",
    "r": "01 09, ~ 04 31 61 82",
    "t": "30 37, ~ 37 49 69 88, 03 73",
    "u": "~ 00 05 28 58 84, 80 89",
    "Gamma": "09 00 80 81",
    "Delta": "40 09 89 40",
    "Pi": "09 00 80 89",
    "Phi": "40 49, ~ 42 12 05 17 47 77 85 72 42",
    "Psi": "40 49, ~ 00 03 46 83 80",
    "alpha": "~ 81 64 38 18 05 12 32 55 89",
    "gamma": "~ 01 20 44 47 39 27 45 80",
    "lambda": "~ 00 20 33 56 89, 44 09",
    "Ii": "00 09 80 89",  # the mirrored N of Cyrillic; Ya is the mirrored R
    "Sha": "00 09 89 80, 40 49",
    "Ya": "80 89, ~ 80 30 02 35 85, 55 09",
    "arrow": "49 40, 03 40 83",
    "asterisk": "40 49, 02 87, 82 07",
    "heart": "~ 42 20 02 15 49, ~ 42 60 82 75 49",
    "plus": "40 49, 04 84",
}

_SIDE = 32  # Pixels that are rendered; the ink of each block of pixels is counted.
_WIDTH = 24  # Digits are three quarters as wide as high.
_PEN = (3.0, 6.5)  # Pixels; on average glyphs have the digits' ink, 31% of the image.
_SAMPLES = 5  # Straight pieces from one point of a stroke to the next.


def render_all_glyphs(counts: Mapping[str, int]) -> np.ndarray:
    """Renders the images of all classes in their order, the same ones each time.

    A scribble is one to three strokes through random points: letters alone are too few shapes.

    Args:
        counts: Images of each class; a name that is no key of GLYPHS stands for a scribble.

    Returns:
        (sum of counts, 8, 8), ink in sixteenths: whole numbers in 0..16.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    glyphs = [GLYPHS.get(name) or _sample_scribble(rng) for name in counts]
    return np.concatenate(
        [
            render_glyphs(glyph, rng, count)
            for glyph, count in zip(glyphs, counts.values(), strict=True)
        ]
    )


def _sample_scribble(rng: np.random.Generator) -> str:
    """Returns strokes as those of GLYPHS, the first of 2 to 5 points, the others of 2 or 3."""
    strokes: list[str] = []
    for _ in range(rng.integers(1, 4)):
        points: list[str] = []
        for _ in range(rng.integers(2, 4 if strokes else 6)):
            candidates = [f"{x}{y}" for x in (0, 4, 8) for y in (0, 3, 6, 9)]
            candidates = [point for point in candidates if point not in points[-2:]]
            points.append(candidates[rng.integers(len(candidates))])
        strokes.append(("~ " if rng.random() < 0.6 else "") + " ".join(points))
    return ", ".join(strokes)


def render_glyphs(glyph: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Renders a glyph many times, each time in another hand.

    Points are moved alone, by a random turn, slant and width, and by a smooth warp; the pen's
    width is random. The height is filled, as in scikit-learn's digits.

    Args:
        glyph: A value of GLYPHS.
        rng: Decides the hands.
        count: Images.

    Returns:
        (count, 8, 8), ink in sixteenths: whole numbers in 0..16.
    """
    import numpy as np

    strokes = [_trace(stroke, rng, count) for stroke in glyph.split(",")]
    ends = np.cumsum([stroke.shape[1] for stroke in strokes])[:-1]
    pens = rng.uniform(*_PEN, (count, 1, 1)).astype(np.float32)
    points = _fit(_warp(np.concatenate(strokes, axis=1), rng), pens)
    ink = np.zeros((count, _SIDE, _SIDE), np.float32)
    for stroke in np.split(points, ends, axis=1):
        for index in range(stroke.shape[1] - 1):
            np.maximum(ink, _render_piece(stroke[:, index], stroke[:, index + 1], pens), out=ink)
    sixteenths: np.ndarray = np.rint(ink.reshape(count, 8, 4, 8, 4).sum(axis=(2, 4)))
    return sixteenths


def _trace(stroke: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns (count, samples, 2): x and y along a stroke, around 0 and about 1 long."""
    import numpy as np

    pairs = stroke.replace("~", "").split()
    places = np.array([[int(pair[0]) / 8, int(pair[1]) / 9] for pair in pairs]) - 0.5
    knots: np.ndarray = places + rng.normal(0, 0.04, (count, *places.shape))
    t = np.linspace(0, len(pairs) - 1, _SAMPLES * (len(pairs) - 1) + 1)
    first = np.minimum(t.astype(int), len(pairs) - 2)
    t = (t - first)[:, np.newaxis]
    here: np.ndarray = knots[:, first]
    there: np.ndarray = knots[:, first + 1]
    if "~" not in stroke:
        line: np.ndarray = here + t * (there - here)
        return line
    # Catmull and Rom's spline, its ends repeated.
    before = knots[:, np.maximum(first - 1, 0)]
    after = knots[:, np.minimum(first + 2, len(pairs) - 1)]
    bend = 2 * before - 5 * here + 4 * there - after
    twist = 3 * (here - there) + after - before
    curve: np.ndarray = here + 0.5 * t * (there - before + t * (bend + t * twist))
    return curve


def _warp(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turns, slants, stretches and bends the points of each image."""
    import numpy as np

    count = len(points)
    angle = np.deg2rad(rng.uniform(-15, 15, (count, 1)))
    slant, stretch = rng.uniform(-0.35, 0.35, (count, 1)), rng.uniform(0.7, 1.2, (count, 1))
    x = stretch * points[..., 0] + slant * points[..., 1]
    y = points[..., 1]
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    # A mesh of 4 x 4 random shifts, interpolated linearly.
    mesh = rng.normal(0, 0.10, (count, 4, 4, 2))
    column, row = (np.clip(2 * value + 1.5, 0, 2.999) for value in (x, y))
    i, j = row.astype(int), column.astype(int)
    down, right = (row - i)[..., np.newaxis], (column - j)[..., np.newaxis]
    image = np.arange(count)[:, np.newaxis]
    above = (1 - right) * mesh[image, i, j] + right * mesh[image, i, j + 1]
    below = (1 - right) * mesh[image, i + 1, j] + right * mesh[image, i + 1, j + 1]
    bent: np.ndarray = np.stack([x, y], axis=-1) + (1 - down) * above + down * below
    return bent


def _fit(points: np.ndarray, pens: np.ndarray) -> np.ndarray:
    """Scales points to pixels: the whole height, and at most _WIDTH pixels of the width."""
    import numpy as np

    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    size = np.maximum(high - low, 0.05)
    down = (_SIDE - pens) / size[..., 1:]
    across = np.minimum(down * _WIDTH / _SIDE, (_WIDTH - pens) / size[..., :1])
    scale = np.concatenate([across, down], axis=-1)
    scaled: np.ndarray = (points - (low + high) / 2) * scale + _SIDE / 2
    return scaled.astype(np.float32)


def _render_piece(start: np.ndarray, end: np.ndarray, pens: np.ndarray) -> np.ndarray:
    """Returns float32 (count, side, side) in 0..1: how much of a pixel a round pen covers."""
    import numpy as np

    centres = np.arange(_SIDE, dtype=np.float32) + 0.5
    x = centres[np.newaxis, np.newaxis, :] - start[:, 0, np.newaxis, np.newaxis]
    y = centres[np.newaxis, :, np.newaxis] - start[:, 1, np.newaxis, np.newaxis]
    along, down = ((end - start)[:, axis, np.newaxis, np.newaxis] for axis in (0, 1))
    length = np.maximum(along**2 + down**2, 1e-6)
    t = np.clip((x * along + y * down) / length, 0, 1)
    distance = np.sqrt((x - t * along) ** 2 + (y - t * down) ** 2)
    cover: np.ndarray = np.clip(pens / 2 - distance + 0.5, 0, 1)
    return cover
