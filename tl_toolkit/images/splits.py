"""The images of validation and test: sampled by content, equal images and groups together."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.images.manifest import Example
from tl_toolkit.sources.listing import name_some

__all__ = [
    "check_groups",
    "is_training",
    "join_groups",
    "keep_few",
    "keep_fraction",
    "rank",
    "sample_splits",
]


def sample_splits(
    examples: Sequence[Example],
    fractions: Mapping[str, float],
    *,
    seed: int,
    stratify: int | None = 0,
    groups: Sequence[str] = (),
) -> list[Example]:
    """Moves a fraction of the training images of each class to other splits.

    The choice depends on the seed and on their content alone: neither names nor order matter, and a
    new image moves hardly any other. Equal images stay together, whatever their labels.

    Args:
        examples: Images; usable ones in "train" are divided, all others stay in their splits.
        fractions: The share of each split in each class, as {"validation": 0.2}.
        seed: Another seed samples another split.
        stratify: Place of the target that splits are stratified by; None for none.
        groups: The group of each example, whose images stay together; none by default.

    Returns:
        The examples in their order, with their splits.

    Raises:
        DataError: A class has fewer distinct images than there are splits.
    """
    keys = join_groups(examples, groups)
    joined: dict[str, list[str]] = {}
    for entry, key in zip(examples, keys, strict=True):
        if is_training(entry):
            joined.setdefault(key, []).append(_group_of(entry, stratify))
    _check_distinct_images(joined, len(fractions) + 1, what="groups" if groups else "images")
    totals = collections.Counter(label for labels in joined.values() for label in labels)
    free = sorted(joined, key=lambda key: rank(seed, key))
    chosen: dict[str, str] = {}
    for done, (split, fraction) in enumerate(fractions.items()):
        targets = {label: max(1, round(total * fraction)) for label, total in totals.items()}
        sampled = _sample(free, joined, targets, reserve=len(fractions) - done)
        chosen.update(dict.fromkeys(sampled, split))
        free = [sha256 for sha256 in free if sha256 not in sampled]
    result = [
        replace(entry, split=chosen.get(key, "train")) if is_training(entry) else entry
        for entry, key in zip(examples, keys, strict=True)
    ]
    _check_sampled(result, fractions, totals, stratify, is_grouped=bool(groups))
    return result


def join_groups(examples: Sequence[Example], groups: Sequence[str] = ()) -> list[str]:
    """Returns a key of each image, equal for images that must stay together.

    Those are equal images, images of one group, and what is connected by both. A key is the digest
    of one of them.

    Args:
        examples: The images.
        groups: The group of each; none by default.
    """
    if not groups:
        return [entry.sha256 for entry in examples]
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent]
            node = parent
        return node

    for entry, group in zip(examples, groups, strict=True):
        image, named = find(("image", entry.sha256)), find(("group", group))
        parents[max(image, named)] = min(image, named)
    first: dict[tuple[str, str], str] = {}
    for entry in examples:
        root = find(("image", entry.sha256))
        first[root] = min(first.get(root, entry.sha256), entry.sha256)
    return [first[find(("image", entry.sha256))] for entry in examples]


def check_groups(examples: Sequence[Example], groups: Sequence[str]) -> None:
    """Refuses groups whose images lie in several splits, as a table may place them.

    Args:
        examples: Images with their splits.
        groups: The group of each.

    Raises:
        DataError: There are such groups.
    """
    splits: dict[str, set[str]] = {}
    for entry, group in zip(examples, groups, strict=True):
        if entry.usable:
            splits.setdefault(group, set()).add(entry.split)
    torn = sorted(group for group, names in splits.items() if len(names) > 1)
    if torn:
        places = " and ".join(sorted(splits[torn[0]]))
        raise DataError(
            Problem(
                "data.group",
                f"images of {name_some(map(repr, torn))} lie in {places}",
                "All images of a group are expected in one split.",
                "one split for each group in the table's column split, or none",
            )
        )


def _group_of(entry: Example, stratify: int | None) -> str:
    return "" if stratify is None else entry.targets[stratify]


def is_training(entry: Example) -> bool:
    """Returns whether an image trains.

    Args:
        entry: The image.
    """
    return entry.usable and entry.split == "train"


def _sample(
    free: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    targets: Mapping[str, int],
    *,
    reserve: int,
) -> set[str]:
    """Samples groups of equal images, in order, for one split.

    Args:
        free: Groups not yet sampled.
        groups: The labels in each group, one per image.
        targets: How many images of each class to sample.
        reserve: Groups of each class to leave for other splits.
    """
    missing = dict(targets)
    left = collections.Counter(label for sha256 in free for label in set(groups[sha256]))
    sampled: set[str] = set()

    def take(sha256: str) -> None:
        sampled.add(sha256)
        left.subtract(set(groups[sha256]))
        for label in groups[sha256]:
            missing[label] -= 1

    def is_spare(sha256: str) -> bool:
        return all(left[label] > reserve for label in groups[sha256])

    for sha256 in free:
        counts = collections.Counter(groups[sha256])
        if is_spare(sha256) and all(count <= missing[label] for label, count in counts.items()):
            take(sha256)
    of_label: dict[str, list[str]] = {}
    for sha256 in free:
        for label in set(groups[sha256]):
            of_label.setdefault(label, []).append(sha256)
    for label in targets:
        if missing[label] != targets[label]:
            continue
        # Takes the smallest group where all that are left are larger than the share.
        fitting = [sha256 for sha256 in of_label.get(label, ()) if is_spare(sha256)]
        if fitting:
            take(min(fitting, key=lambda sha256: len(groups[sha256])))
    return sampled


def rank(seed: int, sha256: str) -> bytes:
    """Returns what images are ordered by before they are sampled.

    Args:
        seed: Another seed, another order.
        sha256: Digest of the image.
    """
    return hashlib.sha256(f"{seed}:{sha256}".encode()).digest()


def _check_distinct_images(
    groups: Mapping[str, Sequence[str]], needed: int, *, what: str = "images"
) -> None:
    distinct = collections.Counter(label for labels in groups.values() for label in set(labels))
    few = {label: count for label, count in sorted(distinct.items()) if count < needed}
    if few:
        named = name_some(f"{label!r} ({count})" for label, count in few.items() if label)
        number = next(iter(few.values()))  # without classes, all images are counted together
        raise DataError(
            Problem(
                "data",
                f"too few different {what} {f'of {named}' if named else f'({number})'} to split",
                f"At least {needed}{' of each class' if named else ''} are needed, one for each "
                "split.",
                f"add {what}, or name a folder for each split",
            )
        )


def _check_sampled(
    examples: Sequence[Example],
    fractions: Mapping[str, float],
    labels: Iterable[str],
    stratify: int | None,
    *,
    is_grouped: bool = False,
) -> None:
    present = {(entry.split, _group_of(entry, stratify)) for entry in examples if entry.usable}
    missing = [
        f"{label!r} for {split}"
        for split in ("train", *fractions)
        for label in sorted(labels)
        if (split, label) not in present
    ]
    if missing:
        raise DataError(
            Problem(
                "data",
                f"no image is left of {name_some(missing)}",
                "Images of a group, and equal images, stay in one split."
                if is_grouped
                else "Equal images stay in one split, also where their labels differ.",
                "more groups, a smaller fraction, or ~data.group"
                if is_grouped
                else "remove the copies, or name a folder for each split",
            )
        )


def keep_few(examples: Sequence[Example], per_class: int, *, seed: int) -> list[Example]:
    """Keeps some usable training images of each class, and all images of other splits.

    A class with fewer images keeps all of them. A larger number keeps the same images and more.

    Args:
        examples: Images with their splits.
        per_class: How many to keep, at least 1.
        seed: Another seed samples other images.
    """
    by_class: dict[str, list[int]] = {}
    for index, entry in enumerate(examples):
        if is_training(entry):
            by_class.setdefault(entry.targets[0], []).append(index)
    dropped: set[int] = set()
    for indices in by_class.values():
        ordered = sorted(indices, key=lambda index: (rank(seed, examples[index].sha256), index))
        dropped.update(ordered[per_class:])
    return [entry for index, entry in enumerate(examples) if index not in dropped]


def keep_fraction(
    examples: Sequence[Example], fraction: float, *, seed: int, stratify: int | None
) -> list[Example]:
    """Keeps a fraction of the usable training images of each class, and all of other splits.

    A larger fraction keeps the same images and more.

    Args:
        examples: Images with their splits.
        fraction: What is kept of each class, above 0 to 1; at least one image.
        seed: Another seed samples other images.
        stratify: As in `sample_splits`.
    """
    groups: dict[str, list[int]] = {}
    for index, entry in enumerate(examples):
        if is_training(entry):
            groups.setdefault(_group_of(entry, stratify), []).append(index)
    dropped: set[int] = set()
    for indices in groups.values():
        ordered = sorted(indices, key=lambda index: (rank(seed, examples[index].sha256), index))
        dropped.update(ordered[max(1, round(fraction * len(indices))) :])
    return [entry for index, entry in enumerate(examples) if index not in dropped]
