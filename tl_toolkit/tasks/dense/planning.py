"""Images with maps of targets beside them, and the maps of a base that pixels are read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.catalog.taps import check_taps, units_read
from tl_toolkit.errors import DataError, Problem, closest
from tl_toolkit.plan.tasks import Proposal, Survey, TaskPlanning, splits_of
from tl_toolkit.recipe.schema import Masks, Pixels
from tl_toolkit.recipe.tree import FieldPath
from tl_toolkit.sources.coco_listing import find_annotations, is_annotations, list_coco
from tl_toolkit.sources.folder_checks import check_distinct
from tl_toolkit.sources.listing import (
    SPLITS,
    FieldProblem,
    Ignored,
    Listing,
    SourceFile,
    find_fractions,
    suffixes_of,
)
from tl_toolkit.sources.pairs import PairFolders, list_pairs
from tl_toolkit.tasks.dense.proposals import propose

__all__ = ["Planning"]

_HEAD = {"name": "head", "epochs": 10, "learning_rate": 3e-3}
"""The phase that trains a head which cannot be solved, as `init` has it."""


class Planning(TaskPlanning):
    """The light half of tasks with one output per pixel."""

    counted_as: ClassVar[str] = "with mask"
    folders: ClassVar[str] = "images/ and masks/, PASCAL VOC's or COCO's"

    @property
    def ranking_score(self) -> str:
        """The score that epochs are compared by: bases are ranked on sampled pixels, too."""
        return self.recipe.task.score

    def begin_ranking(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the fields of a recipe whose linear head reads each base's own maps.

        Args:
            values: As in `TaskPlanning.begin_ranking`.
        """
        pixels = {"per_image": self._pixels.per_image, "sampling": self._pixels.sampling}
        return {**values, "pixels": pixels}

    def begin_with_head(
        self, values: Mapping[str, Any], is_random: Callable[[], bool]
    ) -> dict[str, Any]:
        """Returns the fields of a recipe with one phase: of a head, or of random weights.

        Args:
            values: Fields of the recipe that `init` writes.
            is_random: Whether its weights are random, after all overrides.
        """
        return {**values, "phases": values["phases"][:1] if is_random() else [_HEAD]}

    def survey(self) -> Survey:
        """Lists images and masks; opens none."""
        splits = splits_of(self.data)
        problems: list[FieldProblem] = list(check_distinct(splits.folders))
        listed: list[SourceFile] = []
        ignored: list[Ignored] = []
        for name, folder in splits.folders.items():
            files, wrong = self._list(folder, name, f"data.{name}", ignored)
            listed += files
            problems += wrong
        paired, fractions = find_fractions(listed, splits.fractions)
        listing = Listing(
            self.data.classes or (),
            paired,
            fractions,
            ignored=tuple(ignored),
            columns=("mask",),
            stratify="",
        )
        return self.as_survey(listing, problems)

    def _list(
        self,
        source: Path,
        split: str,
        where: str,
        ignored: list[Ignored],
        classes: Sequence[str] | None = None,
    ) -> tuple[list[SourceFile], list[FieldProblem]]:
        """Lists a folder of images and masks, or a file of annotations."""
        if not is_annotations(source):
            files = find_annotations(source)
            if split in files and not (source / self._pair_folders.images).is_dir():
                what = f"{str(source)!r} holds annotations of COCO"
                expected = "The file of a split is expected in the place of a folder."
                return [], [(split, Problem(where, what, expected, f"{where}={files[split]}"))]
            return list_pairs(source, split, self._pair_folders, where=where, ignored=ignored)
        if not self.recipe.task.has_classes:
            what = f"{str(source)!r}: annotations of COCO have classes, and no other targets"
            expected = "A folder of images and masks is expected."
            return [], [(split, Problem(where, what, expected))]
        folders = self._pair_folders
        chosen = classes or self.data.classes or ()
        return list_coco(
            source, split, chosen, images=folders.images, where=where, links=folders.links
        )

    @property
    def _pair_folders(self) -> PairFolders:
        masks = self.data.masks or Masks()
        suffixes = suffixes_of(self.data.channels)
        return PairFolders(
            masks.images, masks.masks, masks.ending, self.data.links, suffixes, masks.lists or ""
        )

    @property
    def _pixels(self) -> Pixels:
        return self.recipe.pixels or Pixels()

    def list_for_evaluation(self, source: Path, classes: Sequence[str]) -> Listing:
        """Lists images and masks, all in the split "test".

        Args:
            source: The folder, of whose lists the last split is taken; or a file of COCO.
            classes: Classes of the run.

        Raises:
            DataError: Folders, images or masks are missing.
        """
        files, problems = self._list(source, "test", "--data", [], classes)
        if problems:
            raise DataError([problem for _, problem in problems])
        held = {file.split for file in files}
        last = next(split for split in SPLITS[::-1] if split in held)  # where lists name several
        files = [file._replace(split="test") for file in files if file.split == last]
        return Listing(tuple(classes), tuple(files), columns=("mask",), stratify="")

    def check(
        self, architecture: Architecture, classes: Sequence[str]
    ) -> Iterator[tuple[FieldPath, Problem]]:
        """Yields problems of maps that the base does not have, and weights of unknown classes.

        Args:
            architecture: The record of the base.
            classes: In the order of the outputs.
        """
        pixels = self._pixels
        if pixels.taps is None and not architecture.taps:
            what = f"model.base = {architecture.name!r}"
            expected = "expected a base whose maps cover the image in whole cells, or pixels.taps."
            yield ("model", "base"), Problem("", what, expected, "base: mobilenet")
        for index, problem in check_taps(architecture, pixels.taps or (), "pixels.taps"):
            yield ("pixels", "taps", index), problem
        weights = pixels.class_weights
        for name in weights if isinstance(weights, Mapping) else ():
            if classes and name not in classes:
                what = f"pixels.class_weights: {name!r} is no class"
                yield ("pixels", "class_weights", name), Problem("", what, closest(name, classes))

    def readable_units(self, architecture: Architecture) -> tuple[str, ...] | None:
        """Returns the units up to the last map that pixels are read from.

        Args:
            architecture: The record of the base.
        """
        units = units_read(architecture, self._pixels.taps)
        return None if units is None else tuple(units)

    @staticmethod
    def propose(source: Path, place: Path, image_size: int, channels: int = RGB) -> Proposal | None:
        """Recognizes folders of images and of masks, PASCAL VOC and COCO as segmentation.

        Args:
            source: The folder.
            place: Folder that the recipe will be in.
            image_size: Side of the images.
            channels: Channels of the images.

        Raises:
            DataError: Images or masks are missing.
        """
        return propose(source, place, channels)
