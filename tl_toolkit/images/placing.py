"""The split of each image of a set that grows: new images never move those that have one."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tl_toolkit.images.splits import rank

__all__ = ["Group", "parse_times", "place_by_hash", "place_by_time", "place_exactly"]

_ORDER = ("test", "validation")
"""Splits in the order in which they take images; the rest trains."""

_EXIF_DATE = "%Y:%m:%d %H:%M:%S"


@dataclass(frozen=True)
class Group:
    """Images that stay together: one, equal ones, or those of a group.

    Attributes:
        key: What its split follows from: the digest of an image, or the name of the group.
        labels: The class of each image; "" where there are none.
        split: The split that it has already; "" for none.
        time: When its last image was taken, in seconds or any number that grows; 0 without times.
    """

    key: str
    labels: tuple[str, ...]
    split: str = ""
    time: float = 0.0


def place_by_hash(
    groups: Sequence[Group], fractions: Mapping[str, float], *, seed: int
) -> list[str]:
    """Places each group by a hash of its key and the seed, whatever other groups there are.

    So nothing moves when images are added or removed, and no earlier split need be known. The
    share of a split in a class of n images is near its fraction f, as that of n tosses of a coin:
    within 2 (f (1 - f) / n) ** 0.5 in 95 of 100 classes.

    Args:
        groups: The groups; those with a split keep it.
        fractions: The share of "validation" and of "test".
        seed: Another seed, other splits.

    Returns:
        The split of each group, in their order.
    """
    return [group.split or _place(group.key, fractions, seed) for group in groups]


def _place(key: str, fractions: Mapping[str, float], seed: int) -> str:
    position = int.from_bytes(rank(seed, key)[:8]) / 2**64
    for split in _ORDER:
        position -= fractions.get(split, 0.0)
        if position < 0:
            return split
    return "train"


def place_exactly(
    groups: Sequence[Group], fractions: Mapping[str, float], *, seed: int
) -> list[str]:
    """Places groups so that each class has its fractions, to the image where groups allow it.

    Groups are taken in the order of their hashes. Each split has an image of each class, if there
    are as many groups of it as splits.

    Args:
        groups: As in `place_by_hash`; groups that have a split are counted.
        fractions: As in `place_by_hash`.
        seed: As in `place_by_hash`.

    Returns:
        As in `place_by_hash`.
    """
    places = [group.split for group in groups]
    of_class: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        label = collections.Counter(group.labels).most_common(1)[0][0]
        of_class.setdefault(label, []).append(index)
    for indices in of_class.values():
        total = sum(len(groups[index].labels) for index in indices)
        free = [index for index in indices if not places[index]]
        free.sort(key=lambda index: rank(seed, groups[index].key))
        for split in _ORDER:
            if not fractions.get(split):
                continue
            there = sum(len(groups[index].labels) for index in indices if places[index] == split)
            missing = max(1, round(total * fractions[split])) - there
            for index in _take(free, groups, missing):
                places[index] = split
            free = [index for index in free if not places[index]]
    return [place or "train" for place in places]


def _take(free: Sequence[int], groups: Sequence[Group], missing: int) -> Iterator[int]:
    """Yields groups until so many images are there; the last group of a class stays free."""
    left = len(free)
    for index in free:
        size = len(groups[index].labels)
        if missing > 0 and left > 1 and size <= 2 * missing:
            yield index
            missing -= size
            left -= 1


def place_by_time(groups: Sequence[Group], fractions: Mapping[str, float]) -> list[str]:
    """Places the oldest groups in train, later ones in validation, the newest in test.

    Groups of one time stay together. Where groups have a split already, the borders stay between
    these: a new group goes to train if it is as old as one there, else to validation likewise, else
    to the last split.

    Args:
        groups: As in `place_by_hash`, with times.
        fractions: As in `place_by_hash`.

    Returns:
        As in `place_by_hash`.
    """
    splits = ["train", *(split for split in reversed(_ORDER) if fractions.get(split))]
    known = [group for group in groups if group.split]
    if known:
        borders = [
            max((group.time for group in known if group.split == split), default=float("-inf"))
            for split in splits[:-1]
        ]
    else:
        borders = _find_borders(groups, [fractions.get(split, 0.0) for split in splits[1:]])
    return [
        group.split
        or next(
            (split for split, border in zip(splits, borders, strict=False) if group.time <= border),
            splits[-1],
        )
        for group in groups
    ]


def _find_borders(groups: Sequence[Group], shares: Sequence[float]) -> list[float]:
    """Returns the last time of each split but the newest."""
    times = sorted(group.time for group in groups for _ in group.labels)
    borders, left = [], 1.0 - sum(shares)
    for share in shares:
        # The last image of the split; what has its time is in the split too.
        borders.append(times[max(0, round(left * len(times)) - 1)])
        left += share
    return borders


def parse_times(values: Sequence[str]) -> list[float]:
    """Returns times as numbers that can be compared.

    Args:
        values: All numbers, as 2021 or 1714557600; or all dates, in ISO 8601 as 2024-05-01 or
            2024-05-01T12:00:00+02:00, or as EXIF writes them. A date without a zone is UTC.

    Raises:
        ValueError: One is neither; its text is the value.
    """
    try:
        return [float(value) for value in values]
    except ValueError:
        return [_parse_date(value) for value in values]


def _parse_date(value: str) -> float:
    try:
        date = datetime.fromisoformat(value)
    except ValueError:
        try:
            date = datetime.strptime(value, _EXIF_DATE)  # noqa: DTZ007  is UTC below
        except ValueError:
            raise ValueError(value) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
