"""The manifest: every inspected image, with its digest, class, split and verdict."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.runs.files import write_atomically, write_rows
from tl_toolkit.sources.listing import SPLITS

__all__ = ["USABLE", "VERDICTS", "Example", "Manifest"]

VERDICTS = ("good", "converted", "convertible", "broken")
USABLE = ("good", "converted")


@dataclass(frozen=True)
class Example:
    """One image.

    Attributes:
        path: The file that is decoded, or `builtin:digits/<index>`. For a converted image this is
            the converted file; its reason names the original.
        sha256: SHA-256 of that file's bytes (of the pixels of a built-in image), in hexadecimal; ""
            if unreadable.
        split: One of SPLITS.
        targets: As text, a value for each of the manifest's columns.
        verdict: One of VERDICTS, from the decoder.
        reason: Why it is not good, or what it was converted from; "" for a good one.
        fold: The part of a cross-validation that it is predicted in, from 1; 0 without one.
    """

    path: str
    sha256: str
    split: str
    targets: tuple[str, ...] = ()
    verdict: str = "good"
    reason: str = ""
    fold: int = 0

    @property
    def usable(self) -> bool:
        """Whether the decoder can read it."""
        return self.verdict in USABLE


_BEFORE = ("path", "sha256")
_AFTER = ("split", "verdict", "reason")
_AFTER_WITH_FOLDS = ("split", "fold", "verdict", "reason")


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

    def find_contradictions(self) -> list[tuple[Example, Example, str]]:
        """Returns pairs of equal images with different targets, and the column that differs.

        Of a column that is the path of a file the content is compared.
        """
        first: dict[str, Example] = {}
        pairs = []
        for entry in self.examples:
            if not entry.usable:
                continue
            earlier = first.setdefault(entry.sha256, entry)
            for place in self.places_of_targets:
                if earlier.targets[place] != entry.targets[place]:
                    pairs.append((earlier, entry, self.columns[place].removesuffix("_sha256")))
                    break
        return pairs

    def describe_leaks(self) -> list[dict[str, str]]:
        """Returns equal images in different splits, or with different targets, as plain values.

        Those with different targets have a value of `differs`, the column.
        """
        pairs = {(id(first), id(leak)): (first, leak, "") for first, leak in self.find_leaks()}
        for pair in self.find_contradictions():
            pairs[id(pair[0]), id(pair[1])] = pair
        return [self._describe_pair(*pair) for pair in pairs.values()]

    def _describe_pair(self, first: Example, entry: Example, column: str) -> dict[str, str]:
        pair = {
            "path": entry.path,
            "split": entry.split,
            "equals": first.path,
            "equals_split": first.split,
        }
        if column:
            place = self.columns.index(column)
            pair |= {
                "differs": column,
                "target": entry.targets[place],
                "equals_target": first.targets[place],
            }
        return pair

    @property
    def places_of_targets(self) -> list[int]:
        """Places of the columns that hold targets, or the content of files of targets."""
        return [
            place for place, name in enumerate(self.columns) if f"{name}_sha256" not in self.columns
        ]

    @property
    def digest(self) -> str:
        """SHA-256 over content, targets and split of the usable images in order, and the classes.

        Files of targets count with their content, not with their paths.
        """
        digest = hashlib.sha256(repr(self.classes).encode("utf-8", "surrogateescape"))
        counted = self.places_of_targets
        for entry in self.examples:
            if entry.usable:
                facts = (entry.sha256, *(entry.targets[place] for place in counted), entry.split)
                facts += (str(entry.fold),) if entry.fold else ()
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
        has_folds = any(entry.fold for entry in self.examples)
        rows: list[tuple[Any, ...]] = [
            (*_BEFORE, *self.columns, *(_AFTER_WITH_FOLDS if has_folds else _AFTER))
        ]
        for entry in self.examples:
            targets = entry.targets or ("",) * len(self.columns)
            fold = (entry.fold or "",) if has_folds else ()
            after = (entry.split, *fold, entry.verdict, entry.reason)
            rows.append((entry.path, entry.sha256, *targets, *after))
        write_rows(text, rows)
        # A file name need not be UTF-8; its bytes come back as they were.
        write_atomically(Path(path), text.getvalue().encode("utf-8", "surrogateescape"))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, classes: Sequence[str] = ()) -> Manifest:
        """Reads a file that `save` wrote.

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
                # A target may be called fold: only that place makes it the fold.
                has_folds = header[-4:] == _AFTER_WITH_FOLDS
                known = (*_BEFORE, *(_AFTER_WITH_FOLDS if has_folds else _AFTER))
                columns = tuple(name for name in header if name not in known)
                examples = tuple(_as_example(row, columns, has_folds) for row in reader)
        except (OSError, ValueError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(Problem(str(path), f"is not a readable manifest: {reason}")) from error
        return cls(examples, tuple(classes), columns)


def _as_example(
    row: Mapping[str | None, str | None], columns: Sequence[str], has_folds: bool
) -> Example:
    if None in row or None in row.values():
        raise ValueError("a row has more or fewer values than there are columns")
    values = {str(name): str(value) for name, value in row.items()}
    if values["split"] not in SPLITS or values["verdict"] not in VERDICTS:
        raise ValueError(f"unknown split or verdict: {values['split']!r}, {values['verdict']!r}")
    targets = tuple(values[name] for name in columns)
    names = ("path", "sha256", "split", "verdict", "reason")
    path, sha256, split, verdict, reason = (values[name] for name in names)
    fold = int(values["fold"] or 0) if has_folds else 0
    return Example(path, sha256, split, targets, verdict, reason, fold)
