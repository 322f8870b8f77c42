"""Groups of images that look the same: copies, and near copies of another size or compression."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["MOST_BITS", "group_near", "group_pairs", "join_named", "name_near", "pair_near"]

MOST_BITS = 5
"""Bits in which the hashes of near duplicates differ at most."""

_LIKENESS = 0.98
"""Least correlation of their pixels. Of 1,772 photos of clothing and insects no two with hashes so
near were above 0.969; of their copies at half the size, at JPEG quality 30 or a fifth brighter 99 %
were above 0.985."""

_BANDS = ((0, 22), (22, 21), (43, 21))
"""First bit and length of the parts of a hash. If two hashes differ in at most 5 bits, one of three
parts differs in at most one: exact matches of each part, and of it with one bit changed, find all
(multi-index hashing: Norouzi et al., 2012). With two million values a part, few others match."""

_MOST_MATCHES = 32
"""Images that are compared in a place of the index; they are ordered there by their pixels. More
lie there only where many images have one outline, which one chain of near pairs joins as well."""

_CHUNK = 1 << 13  # pictures that are compared at a time, in 25 MB each


def group_near(hashes: Sequence[str], signatures: Sequence[bytes]) -> list[list[int]]:
    """Returns groups of at least two images that near pairs connect, each in order.

    Args:
        hashes: As in `pair_near`.
        signatures: As in `pair_near`.
    """
    return group_pairs(pair_near(hashes, signatures), len(hashes))


def group_pairs(pairs: np.ndarray, count: int) -> list[list[int]]:
    """Returns the groups of images that pairs connect, each in order.

    Args:
        pairs: Of `pair_near`.
        count: Number of images.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    numbers = connected_components(links, directed=False)[1]
    members = np.unique(pairs)
    groups: dict[int, list[int]] = {}
    for index in members.tolist():
        groups.setdefault(int(numbers[index]), []).append(index)
    return list(groups.values())


def name_near(hashes: Sequence[str], signatures: Sequence[bytes]) -> list[str]:
    """Returns a name for each image that looks like another one, equal for both; else "".

    Args:
        hashes: As in `pair_near`.
        signatures: As in `pair_near`.
    """
    names = [""] * len(hashes)
    for number, indices in enumerate(group_near(hashes, signatures)):
        for index in indices:
            names[index] = f"near {number}"
    return names


def join_named(*links: Sequence[str]) -> list[list[int]]:
    """Returns the groups of images that names connect, in order; "" connects nothing.

    Args:
        links: Names by image: two images that have one in common are in one group.
    """
    parents = list(range(len(links[0])))

    def find(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for names in links:
        first: dict[str, int] = {}
        for index, name in enumerate(names):
            if name:
                earlier, own = find(first.setdefault(name, index)), find(index)
                parents[max(earlier, own)] = min(earlier, own)
    members: dict[int, list[int]] = {}
    for index in range(len(parents)):
        members.setdefault(find(index), []).append(index)
    return list(members.values())


def pair_near(hashes: Sequence[str], signatures: Sequence[bytes]) -> np.ndarray:
    """Returns pairs of images that look the same, without comparing all with all.

    Args:
        hashes: Of `Content`, by image; one without a hash has no pair.
        signatures: Of `Content`, by image.

    Returns:
        int64 (pairs, 2), the smaller index first, in order.
    """
    places = np.array([index for index, value in enumerate(hashes) if value], np.int64)
    if len(places) < 2:
        return np.zeros((0, 2), np.int64)
    values = np.array([int(hashes[index], 16) for index in places], np.uint64)
    pictures = _Pictures([signatures[index] for index in places])
    found = [np.zeros(0, np.int64)]
    for start, length in _BANDS:
        part = (values >> np.uint64(start)) & np.uint64((1 << length) - 1)
        for first, second in _match_part(part, pictures.ranks, length):
            near = np.bitwise_count(values[first] ^ values[second]) <= MOST_BITS
            first, second = first[near], second[near]
            alike = pictures.are_alike(first, second)
            low, high = np.minimum(first, second)[alike], np.maximum(first, second)[alike]
            found.append(low * len(places) + high)
    codes = np.unique(np.concatenate(found))
    return np.stack([places[codes // len(places)], places[codes % len(places)]], axis=1)


def _match_part(
    part: np.ndarray, ranks: np.ndarray, length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of images whose part of the hash is equal, or differs in one bit.

    Args:
        part: uint64 (n,), `length` bits of each hash.
        ranks: uint64 (n,), the order of images with one part.
        length: Number of bits.
    """
    keys = (part << np.uint64(32)) | ranks
    order = np.argsort(keys)
    keys, sorted_part = keys[order], part[order]
    for offset in range(1, min(_MOST_MATCHES, len(part) - 1) + 1):
        equal = np.flatnonzero(sorted_part[offset:] == sorted_part[:-offset])
        if not len(equal):
            break
        yield order[equal], order[equal + offset]
    for bit in range(length):
        changed = np.uint64(1 << bit)
        own = np.flatnonzero((part & changed) == 0)  # the others are found from the other side
        wanted = part[own] | changed
        begin = np.searchsorted(keys, (wanted << np.uint64(32)) | ranks[own])
        for offset in range(-_MOST_MATCHES // 2, _MOST_MATCHES // 2):
            place = begin + offset
            inside = (place >= 0) & (place < len(keys))
            hit = inside.copy()
            hit[inside] = sorted_part[place[inside]] == wanted[inside]
            if hit.any():
                yield own[hit], order[place[hit]]


class _Pictures:
    """Small pictures of images, compared by the correlation of their pixels.

    Args:
        signatures: Of `Content`.

    Attributes:
        ranks: uint64 (n,), the place of each in an order in which like pictures are near.
    """

    def __init__(self, signatures: Sequence[bytes]) -> None:
        pixels = np.frombuffer(b"".join(signatures), np.uint8)
        self._pixels = pixels.reshape(len(signatures), -1)
        direction = np.random.default_rng(0).standard_normal(self._pixels.shape[1])
        places = np.concatenate([
            self._standardize(slice(start, start + _CHUNK)) @ direction.astype(np.float32)
            for start in range(0, len(signatures), _CHUNK)
        ])  # fmt: skip
        self.ranks = np.argsort(np.argsort(places)).astype(np.uint64)

    def are_alike(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Returns for each pair whether its pictures correlate, bool (pairs,).

        Args:
            first: Indices of pictures.
            second: Likewise.
        """
        alike = np.zeros(len(first), bool)
        for start in range(0, len(first), _CHUNK):
            part = slice(start, start + _CHUNK)
            products = self._standardize(first[part]) * self._standardize(second[part])
            alike[part] = products.sum(axis=1) >= _LIKENESS
        return alike

    def _standardize(self, places: slice | np.ndarray) -> np.ndarray:
        """Returns pictures as vectors of length 1 without their mean."""
        vectors = self._pixels[places].astype(np.float32)
        vectors -= vectors.mean(axis=1, keepdims=True)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return np.asarray(vectors)
