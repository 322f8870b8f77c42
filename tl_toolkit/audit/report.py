"""The report on a set of images, and the files that it is written to."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_toolkit.audit.findings import Finding
from tl_toolkit.audit.kinds import KINDS
from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.sources.exclusions import read_exclusions
from tl_toolkit.sources.objects import is_address

__all__ = ["DataReport", "check_kinds"]


@dataclass(frozen=True)
class DataReport:
    """What is wrong with a set of images; nothing was moved, changed or deleted.

    Attributes:
        source: The folder, table or recipe.
        root: The folder that shown paths are relative to.
        images: Number of images.
        counts: Usable images by class in each split; "" stands for no split, and for no class.
        findings: All findings, the gravest kinds first.
        notes: Sentences on what was not checked, and on problems of the recipe.
        inside: Where the bytes of an image in a file with others lie, by its path.
    """

    source: str
    root: str
    images: int
    counts: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = field(default=())
    inside: Mapping[str, str] = field(default_factory=dict)

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Returns the findings of one kind.

        Args:
            kind: One of the kinds, as "leak".

        Raises:
            RecipeError: There is no such kind.
        """
        check_kinds([kind])
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def shorten(self, path: str) -> str:
        """Returns a path relative to the root, if it lies there.

        Args:
            path: Of a finding.
        """
        below = self.root.rstrip(os.sep) + os.sep
        return path.removeprefix(below)

    def tabulate(self) -> tuple[list[str], list[list[Any]]]:
        """Returns the columns and rows of a table with a row for each kind that was found."""
        rows: list[list[Any]] = []
        for kind in KINDS:
            of_kind = self.of(kind)
            if of_kind:
                images = len({path for finding in of_kind for path in finding.paths})
                first = of_kind[0]
                example = " = ".join(map(self.shorten, first.paths[:2]))
                text = f"{example}: {first.reason}" if example else first.reason
                rows.append([kind, len(of_kind), images or None, text])
        return ["finding", "times", "images", "first"], rows

    def as_json(self) -> dict[str, Any]:
        """Returns the report as plain values; paths are absolute."""
        return {
            "source": self.source,
            "images": self.images,
            "counts": {split: dict(by_class) for split, by_class in self.counts.items()},
            "found": {kind: len(self.of(kind)) for kind in KINDS if self.of(kind)},
            "findings": [
                {
                    "kind": finding.kind,
                    "paths": list(finding.paths),
                    "reason": finding.reason,
                    "excluded": list(finding.excluded),
                }
                for finding in self.findings
            ],
            "notes": list(self.notes),
        }

    def list_exclusions(self, kinds: Sequence[str] | None = None) -> dict[str, str]:
        """Returns the images to leave out, by path, and why.

        Of copies one stays, in test before validation before train; of copies with several labels
        none.

        Args:
            kinds: Kinds of findings; by default those whose images cannot be used, and exact
                copies.

        Raises:
            RecipeError: There is no such kind.
        """
        chosen = [kind for kind in KINDS if KINDS[kind].is_excluded] if kinds is None else kinds
        check_kinds(chosen)
        reasons: dict[str, str] = {}
        for finding in self.findings:
            for path in finding.excluded if finding.kind in chosen else ():
                reasons.setdefault(path, f"{finding.kind}: {finding.reason}")
        return reasons

    def write_exclusions(self, path: str | Path, kinds: Sequence[str] | None = None) -> int:
        """Writes the images to leave out as a table that `data.exclude` takes; rows there stay.

        Args:
            path: The file, CSV; paths in it are relative to its folder.
            kinds: As in `list_exclusions`.

        Returns:
            How many images it names.

        Raises:
            DataError: The file exists and is no such table.
            OutputError: It cannot be written.
            RecipeError: There is no such kind.
        """
        text, count = self.format_exclusions(path, kinds)
        write_atomically(Path(path), text.encode("utf-8", "surrogateescape"))
        return count

    def format_exclusions(
        self, path: str | Path, kinds: Sequence[str] | None = None
    ) -> tuple[str, int]:
        """Returns what `write_exclusions` writes, and how many images it names.

        Args:
            path: As there.
            kinds: As there.

        Raises:
            DataError: As there.
            RecipeError: As there.
        """
        place = Path(path).absolute()
        reasons = self.list_exclusions(kinds)
        if place.is_file():
            reasons = read_exclusions(place) | reasons
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(("path", "reason"))
        for image in sorted(reasons):
            name = image if is_address(image) else os.path.relpath(image, place.parent)
            writer.writerow((name, reasons[image]))
        return buffer.getvalue(), len(reasons)

    def write_sheet(self, path: str | Path) -> None:
        """Writes a page in one HTML file that shows the images of each finding.

        Args:
            path: The file; one that exists is replaced.

        Raises:
            OutputError: It cannot be written.
        """
        from tl_toolkit.audit.sheet import render_sheet

        write_atomically(Path(path), render_sheet(self))

    def groups(self) -> Iterator[tuple[str, tuple[Finding, ...]]]:
        """Yields each kind that was found, with its findings."""
        for kind in KINDS:
            if of_kind := self.of(kind):
                yield kind, of_kind


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuses words that are no kinds of findings.

    Args:
        kinds: The words.

    Raises:
        RecipeError: There are some.
    """
    for kind in kinds:
        if kind not in KINDS:
            near = closest(kind, KINDS)
            expected = f"expected one of {', '.join(KINDS)}"
            raise RecipeError(
                Problem("", f"{kind!r} is no finding", f"{expected}; {near}" if near else expected)
            )
