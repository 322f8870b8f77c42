"""What two runs predicted of the same images, from their files."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.results import refuse_damaged
from tl_toolkit.tasks.predictions import Columns

__all__ = ["SavedPredictions", "pair_predictions", "read_columns", "read_predictions"]


@dataclass(frozen=True)
class SavedPredictions:
    """A run's predictions for the images of a split.

    Attributes:
        images: For each its content and targets, by which it is known in another run.
        rows: The cells of each image by column, in the same order.
    """

    images: Sequence[Hashable]
    rows: Sequence[Mapping[str, str]]

    def select(self, images: Sequence[Hashable]) -> Columns:
        """Returns the columns of some images.

        Args:
            images: Some of `images`, in the order that is wanted.
        """
        by_image = dict(zip(self.images, self.rows, strict=True))
        chosen = [by_image[image] for image in images]
        return {name: [row[name] for row in chosen] for name in (chosen[0] if chosen else ())}


def read_predictions(folder: RunFolder) -> dict[str, SavedPredictions]:
    """Returns the predictions of a run by split; {} where it holds none.

    Args:
        folder: The run.

    Raises:
        DataError: Its manifest.csv or predictions.csv cannot be read.
    """
    if not folder.predictions.is_file():
        return {}
    manifest = Manifest.load(folder.manifest)
    known = {example.path: example for example in manifest.examples}
    counts: Counter[Any] = Counter()
    found: dict[str, tuple[list[Hashable], list[Mapping[str, str]]]] = {}
    for row in _read_rows(folder):
        example = known.get(row["path"])
        if example is None or not example.sha256:
            continue
        targets = tuple(example.targets[place] for place in manifest.places_of_targets)
        image = (row["split"], example.sha256, targets)
        counts[image] += 1  # the same image may be there twice
        images, rows = found.setdefault(row["split"], ([], []))
        images.append((*image, counts[image]))
        rows.append(row)
    return {split: SavedPredictions(*parts) for split, parts in found.items()}


def read_columns(folder: RunFolder) -> dict[str, Columns]:
    """Returns the cells of predictions.csv by column, for each split; {} where there is none.

    Args:
        folder: The run.

    Raises:
        DataError: It cannot be read.
    """
    if not folder.predictions.is_file():
        return {}
    found: dict[str, list[Mapping[str, str]]] = {}
    for row in _read_rows(folder):
        found.setdefault(row["split"], []).append(row)
    return {
        split: {name: [row[name] for row in rows] for name in rows[0]}
        for split, rows in found.items()
    }


def _read_rows(folder: RunFolder) -> list[dict[str, str]]:
    refuse_damaged(folder, folder.predictions)
    try:
        with open(
            folder.predictions, encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, csv.Error) as error:
        raise DataError(Problem(str(folder.predictions), f"cannot be read: {error}")) from error
    if rows and not {"path", "split"} <= set(rows[0]):
        raise DataError(Problem(str(folder.predictions), "has no columns path and split"))
    return rows


def pair_predictions(run: SavedPredictions, other: SavedPredictions) -> tuple[Columns, Columns]:
    """Returns the columns of the images that both have, with the same targets, in one order.

    Args:
        run: Of a split.
        other: Of the same split of another run.
    """
    both = set(other.images)
    shared = [image for image in run.images if image in both]
    return run.select(shared), other.select(shared)
