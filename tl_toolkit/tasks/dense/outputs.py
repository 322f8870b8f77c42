"""The maps of a file as a prediction and in a table, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tl_toolkit.tasks.predictions import Table, name_columns

__all__ = ["MapReader", "MapPrediction", "build"]


def build(section: Any, classes: Sequence[str], state: Mapping[str, Any]) -> MapReader:
    """Returns how predictions are shown.

    Args:
        section: Not used.
        classes: Class names in the order of the outputs; none where pixels are of no class.
        state: Not used.
    """
    return MapReader(tuple(classes))


@dataclass(frozen=True)
class MapPrediction:
    """The maps of one file.

    Attributes:
        path: The file.
        maps: The task's maps by name, each of the file's own height and width, as `mask` and
            `probability` of a segmentation. Where `resize: crop` cut pixels off, integers are 255
            and floats 0. Empty when refused, and when it was written instead.
        shares: Share of the pixels of each class, most first; empty when refused, and for tasks
            without classes.
        error: Why the file was refused; None when it was not.
        files: The written files by kind: the task's `picture`, as `mask`, and `overlay`.
    """

    path: str
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Returns what `--format jsonl` prints: all but the maps themselves."""
        return {
            "path": self.path,
            "shares": dict(self.shares),
            "files": dict(self.files),
            "error": self.error,
        }


@dataclass(frozen=True)
class MapReader:
    """Shows maps.

    Attributes:
        classes: Class names in the order of the outputs.
        served: The output of an export that is read.
    """

    classes: tuple[str, ...]
    served: ClassVar[str] = ""

    def describe(self, path: Path, output: np.ndarray | None, error: str | None) -> MapPrediction:
        """Returns the prediction for a file that was refused.

        Args:
            path: The file.
            output: None.
            error: Why it was refused.

        Raises:
            TypeError: There are outputs: their maps take the model at the file's own size.
        """
        if output is not None:
            raise TypeError("maps are read by the task, at the size of the file")
        return MapPrediction(str(path), error=error)

    def tabulate(self, records: Sequence[Mapping[str, Any]], *, wide: bool = False) -> Table:
        """Returns the largest class of each file, and the pictures written.

        Args:
            records: Predictions.
            wide: Include the share of every class.
        """
        pictures: list[str] = next(
            (list(record["files"]) for record in records if record["files"]), []
        )
        if wide:
            rows = [
                [
                    record["path"],
                    *map(record["files"].get, pictures),
                    *map(record["shares"].get, self.classes),
                ]
                for record in records
            ]
            return Table(["path", *pictures, *name_columns("share", self.classes)], rows)
        has_classes = any(record["shares"] for record in records)
        rows = []
        for record in records:
            most = next(iter(record["shares"].items()), (None, None)) if has_classes else ()
            rows.append([record["path"], *most, *map(record["files"].get, pictures)])
        return Table(["file", *(["most of it", "share"] if has_classes else []), *pictures], rows)
