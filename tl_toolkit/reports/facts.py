"""What a run's files say, as sections of its report are built from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tl_toolkit.images.manifest import Manifest
from tl_toolkit.images.thumbnails import make_thumbnail
from tl_toolkit.reports.sections import Gallery, Text, Tile
from tl_toolkit.sources.objects import common_folder

__all__ = ["MOST_SHOWN", "SIDE", "RunFacts"]

MOST_SHOWN = 8
"""Images of a gallery."""

SIDE = 128
"""Pixels of the longer side of a thumbnail."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of a finished run.

    Attributes:
        classes: Names of the outputs.
        manifest: Its images.
        metrics: What metrics.json holds.
        predictions: The cells of predictions.csv by column, for each split.
        state: What task.json holds; {} without one.
        section: The task's section of the recipe.
        recipe: What to type for its recipe.
        explain: Returns a heat map for each path, and the index of the output that it explains, as
            a data URI or "" where there is none; None where heat maps are left out.
        predict: Returns the task, and a prediction for each path; None where no model is at hand.
    """

    classes: Sequence[str]
    manifest: Manifest
    metrics: Mapping[str, Any]
    predictions: Mapping[str, Mapping[str, Sequence[str]]]
    state: Mapping[str, Any]
    section: Any
    recipe: str = "RECIPE"
    explain: Callable[[Sequence[str], Sequence[int]], Sequence[str]] | None = None
    predict: Callable[[Sequence[str]], Any] | None = None

    @property
    def split(self) -> str:
        """The split that the run is judged by: test, else validation; "" without either."""
        return next((name for name in ("test", "validation") if name in self.predictions), "")

    @property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """The predictions of that split."""
        return self.predictions.get(self.split, {})

    @cached_property
    def measured(self) -> Mapping[str, Any]:
        """The metrics of that split."""
        metrics: Mapping[str, Any] = self.metrics.get(self.split, {})
        return metrics

    def build_gallery(
        self,
        title: str,
        images: Sequence[int] | np.ndarray,
        lines: Sequence[Sequence[str]],
        outputs: Sequence[int] | np.ndarray,
    ) -> Gallery:
        """Returns images of the split that the run is judged by, with heat maps if there are any.

        Args:
            title: What they have in common.
            images: Their indices.
            lines: What stands below each.
            outputs: The output that the heat map of each explains.
        """
        paths = [self.columns["path"][int(image)] for image in images]
        maps: Sequence[str] = [""] * len(paths)
        if self.explain is not None:
            maps = self.explain(paths, [int(output) for output in outputs])
        return self.show_files(title, paths, lines, maps)

    def show_files(
        self,
        title: str,
        paths: Sequence[str],
        lines: Sequence[Sequence[str]],
        maps: Sequence[str] = (),
    ) -> Gallery:
        """Returns images by their files.

        Args:
            title: What they have in common.
            paths: The files.
            lines: What stands below each.
            maps: Heat maps as data URIs, "" for one that is missing; none for none at all.
        """
        tiles = []
        for path, heat, below in zip(paths, maps or [""] * len(paths), lines, strict=True):
            pictures = {"image": make_thumbnail(path, SIDE)}
            if heat:
                pictures["heat map"] = heat
            tiles.append(Tile(self.shorten(path), pictures, below))
        return Gallery(title, tiles)

    def describe_heat(self, explained: str) -> Text:
        """Returns what the heat maps show, or why there are none.

        Args:
            explained: What they speak for, as "the predicted class".
        """
        if self.explain is None:
            return Text(
                "Heat maps are left out of the report of a short run: tltool report draws them."
            )
        return Text(f"Bright in a heat map (Grad-CAM) is what speaks for {explained}.")

    def shorten(self, path: str) -> str:
        """Returns a path below the folder that holds all images of the run.

        Args:
            path: One of them.
        """
        return path.removeprefix(os.path.join(self._folder, ""))

    @cached_property
    def _folder(self) -> str:
        return common_folder(example.path for example in self.manifest.examples)
