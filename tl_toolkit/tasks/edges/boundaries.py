"""Metrics of edges: thinned, matched one to one with the target's edges, at every threshold.

After the benchmark of the Berkeley segmentation data (Martin et al., 2004; Arbelaez et al., 2011),
with these differences:

- The target is one map. There each annotator's lines are matched on their own; here pixels that at
  least half of them marked are the target's edges.
- The target is thinned as the prediction is, so that lines several pixels wide count once.
- Thinning is non-maximum suppression across the edge; no morphological thinning follows.
- The matching has the most pairs that there can be. There it has the least cost, where leaving a
  pixel out costs more than any distance, and is found approximately: as many pairs, or fewer.
- There are 33 thresholds, not 99.
- The average precision takes at each recall the best precision at that recall or above. There it
  is interpolated between measured points, and lower recalls than measured count as 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage, sparse

from tl_toolkit.tasks.resampling import Sample

__all__ = [
    "THRESHOLDS",
    "TOLERANCE",
    "BoundaryCounts",
    "count_matches",
    "find_ridges",
    "sample_boundaries",
    "summarize",
]

THRESHOLDS = np.arange(1, 34) * 0.03
"""Probabilities from which on a pixel is taken for an edge."""

TOLERANCE = 0.0075
"""How far an edge may lie from one of the target, as a fraction of the image's diagonal."""

_BLUR = 0.5
_ORIENTATION_BLUR = 2.0
_TILT = 1e-5
_FREE = -1
_SETTLED = -2


class BoundaryCounts(NamedTuple):
    """Pixels of one or of many images, at each threshold.

    Attributes:
        matched: int (thresholds,), edges that have an edge pixel of the target of their own.
        detected: int (thresholds,), edges.
        expected: Edge pixels of the target.
    """

    matched: np.ndarray
    detected: np.ndarray
    expected: int

    @property
    def f_scores(self) -> np.ndarray:
        """The F-measure at each threshold; 1 where there are no edges in either."""
        total = self.detected + self.expected
        return np.where(total > 0, 2 * self.matched / np.maximum(total, 1), 1.0)


def find_ridges(values: np.ndarray) -> np.ndarray:
    """Returns which pixels lie on the crest of a line: greater than both neighbours across it.

    The direction across is that in which the map, blurred, curves down most. Of a plateau a line
    one pixel wide stays; a map that is the same everywhere has no crest.

    Args:
        values: float (h, w).

    Returns:
        bool (h, w).
    """
    values = values.astype(np.float64)
    blurred = [ndimage.gaussian_filter(values, _ORIENTATION_BLUR, order, mode="nearest")
               for order in ((2, 0), (1, 1), (0, 2))]  # fmt: skip
    across = 0.5 * np.arctan2(2 * blurred[1], blurred[2] - blurred[0]) + np.pi / 2
    height, width = values.shape
    ys, xs = np.mgrid[:height, :width]
    # A slight slope decides between pixels that are alike.
    tilt = _TILT * (ys / height + 0.618 * xs / width)
    crest = ndimage.gaussian_filter(values, _BLUR, mode="nearest") + tilt
    ridges = values > 0
    for sign in (-1, 1):
        places = (ys + sign * np.sin(across), xs + sign * np.cos(across))
        beside = ndimage.map_coordinates(crest, places, order=1, mode="nearest")
        ridges &= crest > beside
    return ridges


def count_matches(
    probability: np.ndarray, target: np.ndarray, *, counted: np.ndarray | None = None
) -> BoundaryCounts:
    """Thins an image's edges, and matches them with the target's at each threshold.

    Args:
        probability: float (h, w), of an edge.
        target: bool (h, w), where edges are.
        counted: bool (h, w), pixels that count; by default all.

    Returns:
        The counts of this image.
    """
    counted = np.ones(target.shape, bool) if counted is None else counted
    edges = np.argwhere(find_ridges(probability) & counted)
    strengths = probability[tuple(edges.T)]
    order = np.argsort(-strengths, kind="stable")
    edges, strengths = edges[order], strengths[order]
    # Thinned before pixels are left out, which would otherwise change the thinning at their border.
    target_edges = find_ridges(target.astype(np.float64)) & target & counted
    near = _find_near(edges, target_edges)
    detected = np.searchsorted(-strengths, -THRESHOLDS, side="right")
    matched = np.cumsum([0, *_find_matched(near)])[detected]
    return BoundaryCounts(matched, detected, int(target_edges.sum()))


def _find_near(edges: np.ndarray, target_edges: np.ndarray) -> sparse.csr_array:
    """Returns which edge pixels of the target (columns) lie within the tolerance of which edges."""
    radius = TOLERANCE * np.hypot(*target_edges.shape)
    reach = int(radius)
    numbers = np.full(target_edges.shape, -1)
    numbers[target_edges] = np.arange(target_edges.sum())
    numbers = np.pad(numbers, reach, constant_values=-1)
    rows, columns = [], []
    for down in range(-reach, reach + 1):
        for along in range(-reach, reach + 1):
            if np.hypot(down, along) <= radius:
                there = numbers[edges[:, 0] + reach + down, edges[:, 1] + reach + along]
                rows.append(np.flatnonzero(there >= 0))
                columns.append(there[there >= 0])
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (len(edges), int(target_edges.sum()))
    return sparse.csr_array((np.ones(len(row), np.int8), (row, column)), shape=shape)


def _find_matched(near: sparse.csr_array) -> np.ndarray:
    """Returns which edges get an edge pixel of the target of their own, in order, bool (edges,).

    Each edge takes a pixel if all edges before it can keep one, perhaps another one (Kuhn, 1955).
    So the first n edges, for any n, have as many pairs as the best matching of them: one pass gives
    the counts of all thresholds.

    SciPy's maximum_bipartite_matching cannot continue a matching of fewer edges: it starts anew at
    each of the 33 thresholds. For a 321 x 481 map with 25,000 edges it took 0.2 to 18 s, and this
    pass 0.15 to 0.65 s; for a megapixel it took over 300 s, and this pass 0.44 s.
    """
    owners = np.full(near.shape[1], _FREE).tolist()
    seen = np.full(near.shape[1], -1).tolist()  # by which edge's search; or _SETTLED
    matched = np.zeros(near.shape[0], bool)
    free = len(np.unique(near.indices))
    for edge in range(len(matched)):
        if not free:
            break
        matched[edge] = _give_way(near, edge, owners, seen)
        free -= int(matched[edge])
    return matched


def _give_way(near: sparse.csr_array, first: int, owners: list[int], seen: list[int]) -> bool:
    """Finds a free pixel for an edge; earlier edges move to other pixels to make room for it.

    Args:
        near: As in `_find_near`.
        first: The edge.
        owners: The edge that each pixel belongs to, or _FREE; is changed.
        seen: Is changed: pixels that no search can free are marked as settled, so that all searches
            that fail visit each pair only once.
    """
    waiting = [first]
    finders: dict[int, int] = {}  # by pixel: the edge that would take it from its owner
    left = {first: _FREE}  # by edge: the pixel that it would leave
    for edge in waiting:
        for pixel in near.indices[near.indptr[edge] : near.indptr[edge + 1]].tolist():
            if owners[pixel] == _FREE:
                finders[pixel] = edge
                while pixel != _FREE:
                    owners[pixel] = finders[pixel]
                    pixel = left[finders[pixel]]
                return True
            if seen[pixel] not in (first, _SETTLED):
                seen[pixel] = first
                finders[pixel] = edge
                left[owners[pixel]] = pixel
                waiting.append(owners[pixel])
    for pixel in finders:
        seen[pixel] = _SETTLED
    return False


def summarize(images: list[BoundaryCounts]) -> dict[str, Any]:
    """Returns the metrics of the benchmark.

    Args:
        images: The counts of each image, at least one.

    Returns:
        - ods: the best F-measure of one threshold for all images, with its threshold, precision and
          recall;
        - ois: the F-measure where each image has the threshold that is best for it; as a rule, and
          not by necessity, at least ods;
        - average_precision: the area under precision over recall;
        - curve: threshold, precision and recall, from the lowest threshold on.

        All in [0, 1], and 0 without an edge in the target: there is nothing to measure.
    """
    total = BoundaryCounts(
        np.sum([image.matched for image in images], axis=0),
        np.sum([image.detected for image in images], axis=0),
        sum(image.expected for image in images),
    )
    best = int(total.f_scores.argmax())
    own = [int(image.f_scores.argmax()) for image in images]
    matched = sum(int(image.matched[index]) for image, index in zip(images, own, strict=True))
    detected = sum(int(image.detected[index]) for image, index in zip(images, own, strict=True))
    alone = BoundaryCounts(np.array([matched]), np.array([detected]), total.expected)
    precision = total.matched / np.maximum(total.detected, 1)
    recall = total.matched / max(total.expected, 1)
    return {
        "ods": float(total.f_scores[best]) if total.expected else 0.0,
        "ods_threshold": float(THRESHOLDS[best]),
        "ods_precision": float(precision[best]),
        "ods_recall": float(recall[best]),
        "ois": float(alone.f_scores[0]) if total.expected else 0.0,
        "average_precision": _area(precision, recall),
        "curve": {
            "threshold": THRESHOLDS.tolist(),
            "precision": precision.tolist(),
            "recall": recall.tolist(),
        },
    }


def sample_boundaries(images: list[BoundaryCounts]) -> Sample:
    """Returns the images as ODS, OIS and average precision are computed from them.

    Args:
        images: As in `summarize`.
    """
    matched = np.stack([image.matched for image in images]).astype(np.float64)
    detected = np.stack([image.detected for image in images]).astype(np.float64)
    expected = np.array([image.expected for image in images], np.float64)
    own = [int(image.f_scores.argmax()) for image in images]
    alone = np.stack([values[range(len(images)), own] for values in (matched, detected)], axis=1)

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        total = (counts @ expected)[:, np.newaxis]
        hits, found = counts @ matched, counts @ detected
        f_scores = 2 * hits / np.maximum(found + total, 1)
        best = counts @ alone
        precision, recall = hits / np.maximum(found, 1), hits / np.maximum(total, 1)
        return {
            "ods": f_scores.max(axis=1),
            "ois": 2 * best[:, 0] / np.maximum(best[:, 1] + total[:, 0], 1),
            "average_precision": np.array(list(map(_area, precision, recall))),
        }

    return Sample(len(images), measure)


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    """Returns the area under the best precision at each recall or above."""
    order = np.argsort(recall, kind="stable")
    steps = np.diff(recall[order], prepend=0.0)
    best = np.maximum.accumulate(precision[order][::-1])[::-1]
    return float((steps * best).sum())
