"""The manifest: every inspected image, with its content, class, split and verdict."""

from __future__ import annotations

import collections
import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.sources.listing import SPLITS, name_some

__all__ = ["USABLE", "VERDICTS", "Example", "Manifest", "sample_splits", "keep_few"]

VERDICTS = ("good", "converted", "convertible", "broken")
USABLE = ("good", "converted")


@dataclass(frozen=True)
class Example:
    """One image.

    Attributes:
        path: The file that is decoded, or `builtin:digits/<index>`. For a converted image this is
            the converted file; its reason names the original.
        sha256: Of that file's bytes (of the pixels of a built-in image), in hex; "" if unreadable.
        split: One of SPLITS.
        targets: As text, a value for each of the manifest's columns.
        verdict: One of VERDICTS: what the decoder makes of it.
        reason: Why it is not good, or what it was converted from; "" for a good one.
    """

    path: str
    sha256: str
    split: str
    targets: tuple[str, ...] = ()
    verdict: str = "good"
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether the decoder reads it."""
        return self.verdict in USABLE


_BEFORE = ("path", "sha256")
_AFTER = ("split", "verdict", "reason")


@dataclass(frozen=True)
class Manifest:
    """All images of a run.

    Attributes:
        examples: Each image once, also those that cannot be used.
        classes: Class names in the order of the model's outputs.
        columns: Names of the targets of each example. A column that is the path of a file has a
            second one, `<name>_sha256`, of its content.
    """

    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ("label",)

    def of(self, split: str) -> tuple[Example, ...]:
        """Returns the usable images of a split, in the manifest's order.

        Args:
            split: One of SPLITS.
        """
        return tuple(entry for entry in self.examples if entry.split == split and entry.usable)

    def count(self, column: str = "label") -> dict[str, dict[str, int]]:
        """Returns the usable images of each class in each split that has any.

        Args:
            column: The column that names the classes; "" counts all together, under "".
        """
        place = self.columns.index(column) if column else None
        names = self.classes if column else ("",)
        counts = {split: dict.fromkeys(names, 0) for split in SPLITS}
        for entry in self.examples:
            if entry.usable:
                counts[entry.split]["" if place is None else entry.targets[place]] += 1
        return {split: of_split for split, of_split in counts.items() if any(of_split.values())}

    def find_leaks(self) -> list[tuple[Example, Example]]:
        """Returns pairs of equal images that lie in different splits."""
        first: dict[str, Example] = {}
        leaks = []
        for entry in self.examples:
            if entry.usable:
                earlier = first.setdefault(entry.sha256, entry)
                if earlier.split != entry.split:
                    leaks.append((earlier, entry))
        return leaks

    def describe_leaks(self) -> list[dict[str, str]]:
        """Returns the pairs of `find_leaks` as plain values, for a file of the run."""
        return [
            {
                "path": leak.path,
                "split": leak.split,
                "equals": first.path,
                "equals_split": first.split,
            }
            for first, leak in self.find_leaks()
        ]

    @property
    def digest(self) -> str:
        """SHA-256 over content, targets and split of the usable images in order, and the classes.

        Files of targets count with their content, not with their paths.
        """
        digest = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogateescape"))
        counted = [
            place for place, name in enumerate(self.columns) if f"{name}_sha256" not in self.columns
        ]
        for entry in self.examples:
            if entry.usable:
                facts = (entry.sha256, *(entry.targets[place] for place in counted), entry.split)
                digest.update(repr(facts).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the examples as CSV, atomically; the class order is not part of it.

        Args:
            path: The file.

        Raises:
            OutputError: The file cannot be written.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*_BEFORE, *self.columns, *_AFTER))
        for entry in self.examples:
            targets = entry.targets or ("",) * len(self.columns)
            row = (entry.path, entry.sha256, *targets, entry.split, entry.verdict, entry.reason)
            writer.writerow(row)
        # A file name need not be UTF-8; its bytes come back as they were.
        write_atomically(Path(path), text.getvalue().encode("utf-8", "surrogateescape"))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, classes: Sequence[str] = ()) -> Manifest:
        """Reads what `save` wrote.

        Args:
            path: The CSV file.
            classes: The class order.

        Raises:
            DataError: It is missing or is not a manifest.
        """
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
                reader = csv.DictReader(file)
                header = tuple(reader.fieldnames or ())
                missing = [name for name in (*_BEFORE, *_AFTER) if name not in header]
                if missing:
                    raise ValueError(f"it has no column {', '.join(missing)}")
                columns = tuple(name for name in header if name not in (*_BEFORE, *_AFTER))
                examples = tuple(_as_example(row, columns) for row in reader)
        except (OSError, ValueError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(Problem(str(path), f"is not a readable manifest: {reason}")) from error
        return cls(examples, tuple(classes), columns)


def _as_example(row: Mapping[str | None, str | None], columns: Sequence[str]) -> Example:
    if None in row or None in row.values():
        raise ValueError("a row has more or fewer values than there are columns")
    values = {str(name): str(value) for name, value in row.items()}
    if values["split"] not in SPLITS or values["verdict"] not in VERDICTS:
        raise ValueError(f"unknown split or verdict: {values['split']!r}, {values['verdict']!r}")
    targets = tuple(values[name] for name in columns)
    names = ("path", "sha256", "split", "verdict", "reason")
    path, sha256, split, verdict, reason = (values[name] for name in names)
    return Example(path, sha256, split, targets, verdict, reason)


def sample_splits(
    examples: Sequence[Example],
    fractions: Mapping[str, float],
    *,
    seed: int,
    stratify: int | None = 0,
) -> list[Example]:
    """Moves a fraction of the training images of each class to other splits.

    The choice depends on the seed and on their content alone: neither names nor order matter, and a
    new image moves hardly any other. Equal images stay together, whatever their labels.

    Args:
        examples: Images; the usable ones in "train" are divided, the rest stays as it is.
        fractions: The share of each split in each class, as {"validation": 0.2}.
        seed: Another seed samples another split.
        stratify: Place of the target whose values each split has its share of; None for none.

    Returns:
        The examples in their order, with their splits.

    Raises:
        DataError: A class has fewer distinct images than there are splits.
    """
    groups: dict[str, list[str]] = {}
    for entry in examples:
        if _is_training(entry):
            groups.setdefault(entry.sha256, []).append(_group_of(entry, stratify))
    _check_distinct_images(groups, len(fractions) + 1)
    totals = collections.Counter(label for labels in groups.values() for label in labels)
    free = sorted(groups, key=lambda sha256: _rank(seed, sha256))
    chosen: dict[str, str] = {}
    for done, (split, fraction) in enumerate(fractions.items()):
        wanted = {label: max(1, round(total * fraction)) for label, total in totals.items()}
        sampled = _sample(free, groups, wanted, reserve=len(fractions) - done)
        chosen.update(dict.fromkeys(sampled, split))
        free = [sha256 for sha256 in free if sha256 not in sampled]
    result = [
        replace(entry, split=chosen.get(entry.sha256, "train")) if _is_training(entry) else entry
        for entry in examples
    ]
    _check_sampled(result, fractions, totals, stratify)
    return result


def _group_of(entry: Example, stratify: int | None) -> str:
    return "" if stratify is None else entry.targets[stratify]


def _is_training(entry: Example) -> bool:
    return entry.usable and entry.split == "train"


def _sample(
    free: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    wanted: Mapping[str, int],
    *,
    reserve: int,
) -> set[str]:
    """Samples groups of equal images, in order, for one split.

    Args:
        free: Groups not yet sampled.
        groups: The labels in each group, one per image.
        wanted: How many images of each class to sample.
        reserve: Groups of each class to leave for other splits.
    """
    missing = dict(wanted)
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
    for label in wanted:
        # Where only groups larger than the share are left, the smallest of them.
        fitting = [sha256 for sha256 in free if label in groups[sha256] and is_spare(sha256)]
        if missing[label] == wanted[label] and fitting:
            take(min(fitting, key=lambda sha256: len(groups[sha256])))
    return sampled


def _rank(seed: int, sha256: str) -> bytes:
    return hashlib.sha256(f"{seed}:{sha256}".encode()).digest()


def _check_distinct_images(groups: Mapping[str, Sequence[str]], needed: int) -> None:
    distinct = collections.Counter(label for labels in groups.values() for label in set(labels))
    few = {label: count for label, count in sorted(distinct.items()) if count < needed}
    if few:
        named = name_some(f"{label!r} ({count})" for label, count in few.items() if label)
        number = next(iter(few.values()))  # without classes, all images are counted together
        raise DataError(
            Problem(
                "data",
                f"too few different images {f'of {named}' if named else f'({number})'} to split",
                f"At least {needed}{' of each class' if named else ''} are needed, one for each "
                "split.",
                "add images, or name a folder for each split",
            )
        )


def _check_sampled(
    examples: Sequence[Example],
    fractions: Mapping[str, float],
    labels: Iterable[str],
    stratify: int | None,
) -> None:
    held = {(entry.split, _group_of(entry, stratify)) for entry in examples if entry.usable}
    missing = [
        f"{label!r} for {split}"
        for split in ("train", *fractions)
        for label in sorted(labels)
        if (split, label) not in held
    ]
    if missing:
        raise DataError(
            Problem(
                "data",
                f"no image is left of {name_some(missing)}",
                "Equal images stay in one split, also where their labels differ.",
                "remove the copies, or name a folder for each split",
            )
        )


def keep_few(examples: Sequence[Example], per_class: int, *, seed: int) -> list[Example]:
    """Keeps some usable training images of each class, and all images of other splits.

    A class with fewer keeps what it has. A larger number keeps the same images and more.

    Args:
        examples: Images with their splits.
        per_class: How many to keep, at least 1.
        seed: Another seed samples other images.
    """
    by_class: dict[str, list[int]] = {}
    for index, entry in enumerate(examples):
        if _is_training(entry):
            by_class.setdefault(entry.targets[0], []).append(index)
    dropped: set[int] = set()
    for indices in by_class.values():
        ordered = sorted(indices, key=lambda index: (_rank(seed, examples[index].sha256), index))
        dropped.update(ordered[per_class:])
    return [entry for index, entry in enumerate(examples) if index not in dropped]
