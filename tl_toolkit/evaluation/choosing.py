"""Which images are nearest to one, and which are worth a label."""

from __future__ import annotations

import warnings

import numpy as np

__all__ = ["choose_images", "find_nearest"]

_CANDIDATES = 10
"""Images that are clustered for each that is chosen: the most uncertain ones (Zhdanov, 2019)."""


def find_nearest(
    vectors: np.ndarray, asked: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of the nearest vectors by cosine, the nearest first, and their likeness.

    Args:
        vectors: float (n, features), n >= 1.
        asked: float (features,).
        count: How many, at most n.

    Returns:
        int (count,), and float (count,) in -1..1.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(count, len(vectors)), metric="cosine")
    distances, places = search.fit(vectors).kneighbors(asked[np.newaxis])
    return places[0], 1 - distances[0]


def choose_images(vectors: np.ndarray, uncertainty: np.ndarray, count: int) -> np.ndarray:
    """Returns the places of images to label: uncertain ones, that differ from each other.

    Diverse mini-batches (Zhdanov, 2019): the most uncertain images, ten for each that is wanted,
    are clustered by k-means with their uncertainty as weight, and of each cluster the image nearest
    to its centre is taken. Vectors are scaled to length 1, so that distances are those of cosines.

    Args:
        vectors: float (n, features).
        uncertainty: float (n,), at least 0.
        count: How many, at least 1; all where there are no more.

    Returns:
        int (min(n, count),), the most uncertain first.
    """
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    order: np.ndarray = np.argsort(-uncertainty, kind="stable")
    if len(order) <= count:
        return order
    candidates = order[: _CANDIDATES * count]
    points = normalize(vectors[candidates].astype(np.float64))
    weights = np.maximum(uncertainty[candidates], 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer different images than clusters
        clusters = KMeans(count, n_init=1, random_state=0).fit(points, sample_weight=weights)
    distances = np.linalg.norm(points - clusters.cluster_centers_[clusters.labels_], axis=1)
    chosen: dict[int, int] = {}
    for place in np.argsort(distances, kind="stable"):
        chosen.setdefault(int(clusters.labels_[place]), int(place))
    places = [*chosen.values()]
    # Equal images make fewer clusters: the most uncertain of the others fill the room.
    places += [place for place in range(len(candidates)) if place not in set(places)]
    return np.asarray(candidates[np.sort(places[:count])])
