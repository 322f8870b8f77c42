"""Images with maps of targets beside them, and the maps of a base that pixels are read from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.catalog.taps import check_taps, units_read
from tl_toolkit.errors import DataError, Problem, closest
from tl_toolkit.plan.tasks import Proposal, Survey, TaskPlanning, splits_of
from tl_toolkit.recipe.schema import Masks, Pixels
from tl_toolkit.recipe.tree import FieldPath
from tl_toolkit.sources.folder_checks import check_distinct
from tl_toolkit.sources.listing import (
    PILLOW_FORMATS,
    FieldProblem,
    Ignored,
    Listing,
    SourceFile,
    find_fractions,
    suffixes_of,
)
from tl_toolkit.sources.pairs import PairFolders, list_pairs
from tl_toolkit.tasks.dense.spec import BATCH_SIZE

__all__ = ["Planning"]

_OPENED = 50
"""Masks that `propose` opens, at most one more."""

_MOST_CLASSES = 64
_BORDER = 255
"""The value of pixels of no class in the masks of PASCAL VOC and many after it."""

# No file holds the names of the classes, which a valid recipe must have.
_MASKS = (
    "  # The classes, in the order of their values in the masks; put yours here:",
    "  # classes: [background, cat]",
    "  # masks:",
    "  #   ids: [0, 1]                # their values, if not 0, 1, 2, ...",
    "  #   ignore: 255                # the value of pixels of no class, if there are any",
)


class Planning(TaskPlanning):
    """The light half of tasks with one output per pixel."""

    counted_as: ClassVar[str] = "with mask"
    folders: ClassVar[str] = "images/ and masks/"

    def survey(self) -> Survey:
        """Lists images and masks; opens none."""
        splits = splits_of(self.data)
        problems: list[FieldProblem] = list(check_distinct(splits.folders))
        listed: list[SourceFile] = []
        ignored: list[Ignored] = []
        for name, folder in splits.folders.items():
            files, wrong = list_pairs(
                folder, name, self._pair_folders, where=f"data.{name}", ignored=ignored
            )
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

    @property
    def _pair_folders(self) -> PairFolders:
        masks = self.data.masks or Masks()
        suffixes = suffixes_of(self.data.channels)
        return PairFolders(masks.images, masks.masks, masks.ending, self.data.links, suffixes)

    @property
    def _pixels(self) -> Pixels:
        return self.recipe.pixels or Pixels()

    def list_for_evaluation(self, source: Path, classes: Sequence[str]) -> Listing:
        """Lists a folder of images and masks, all in the split "test".

        Args:
            source: The folder.
            classes: Classes of the run.

        Raises:
            DataError: Folders, images or masks are missing.
        """
        files, problems = list_pairs(source, "test", self._pair_folders, where="--data")
        if problems:
            raise DataError([problem for _, problem in problems])
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
        """Recognizes folders of images and of masks, in splits or not, as segmentation.

        Args:
            source: The folder.
            place: Folder that the recipe will be in.
            image_size: Side of the images.
            channels: Channels of the images.

        Raises:
            DataError: Images or masks are missing.
        """
        from tl_toolkit.plan.starter_lines import find_splits, remark, write_paths

        folders = dict(find_splits(source)) if source.is_dir() else {"train": source}
        if not all((folders["train"] / name).is_dir() for name in ("images", "masks")):
            return None
        unlabelled = []
        if "test" in folders and not (folders["test"] / "masks").is_dir():
            images = folders.pop("test")
            command = f"tltool predict latest {shlex.quote(str(images))}"
            unlabelled = [f"  # {images.name}/ has no masks: {command}"]
        problems: list[FieldProblem] = []
        pairs = PairFolders(suffixes=suffixes_of(channels))
        masks: list[str] = []
        numbers = {}
        for name, folder in folders.items():
            files, wrong = list_pairs(folder, name, pairs, where=f"data.{name}")
            numbers[name] = len(files)
            masks += [file.targets[0] for file in files]
            problems += wrong
        if problems:
            raise DataError([problem for _, problem in problems])
        return Proposal(
            opening=f"{numbers['train']:,} images to train from, each with a mask",
            counts=(),
            task=[remark("task: segmentation", "or edges, or normals: those have no classes")],
            data=[*write_paths(folders, place, "the images"), *_propose_masks(masks), *unlabelled],
            batch_size=BATCH_SIZE,
            head=("    hidden:", "      - units: 256"),
            folder=source,
            reason="the folders images and masks",
            next_step="name the classes in it",
        )


def _propose_masks(paths: Sequence[str]) -> list[str]:
    """Returns lines that name the classes by the values in some of the masks."""
    from tl_toolkit.plan.starter_lines import remark

    places = sorted({round(at * (len(paths) - 1) / _OPENED) for at in range(_OPENED + 1)})
    values = _read_values([paths[place] for place in places]) if paths else set()
    if not 2 <= len(values) <= _MOST_CLASSES:
        return list(_MASKS)
    in_order = sorted(values)
    ignored = in_order[-1] == _BORDER and in_order[:-1] == list(range(len(in_order) - 1))
    ignored = ignored and len(in_order) > 2
    ids = in_order[:-1] if ignored else in_order
    names = ", ".join(f"class_{value}" for value in ids)
    is_counted = ids == list(range(len(ids)))
    return [
        f"  # {len(places)} masks were opened; they hold {', '.join(map(str, in_order))}.",
        remark(f"  classes: [{names}]", "in the order of their values; put your names here"),
        "  masks:",
        f"    {'# ' if is_counted else ''}ids: [{', '.join(map(str, ids))}]",
        remark(f"    ignore: {_BORDER}", "pixels of no class; or name it as a class")
        if ignored
        else f"    # ignore: {_BORDER}                # the value of pixels of no class, if any",
    ]


def _read_values(paths: Sequence[str]) -> set[int]:
    """Returns the values in masks of one channel of 8 bits; none if one is of another kind."""
    from PIL import Image

    values: set[int] = set()
    for path in paths:
        try:
            with Image.open(path, formats=PILLOW_FORMATS) as image:
                if image.mode not in ("L", "P"):
                    return set()
                values |= {value for value, count in enumerate(image.histogram()) if count}
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return set()
    return values
