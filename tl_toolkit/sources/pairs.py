"""Images with their masks, matched by name: listed, not opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from tl_toolkit.errors import Problem, nearest
from tl_toolkit.sources.folder_checks import describe_unused
from tl_toolkit.sources.folders import describe_unreadable, list_below
from tl_toolkit.sources.listing import (
    IMAGE_SUFFIXES,
    FieldProblem,
    Ignored,
    Links,
    SourceFile,
    name_some,
    normalize,
)
from tl_toolkit.sources.split_lists import read_split_lists

__all__ = ["PairFolders", "list_pairs"]


@dataclass(frozen=True)
class PairFolders:
    """How images and masks are named and matched.

    Attributes:
        images: Name of the folder of images in the folder of a split.
        masks: Name of the folder of masks beside it.
        ending: End of a mask's name, before the suffix, that its image's name lacks.
        links: What to do about links, as in `read_folders`.
        suffixes: Endings of the images' names.
        lists: Folder of lists of the images of each split, in the folder of the training images;
            "" for none: all images are of the split.
    """

    images: str = "images"
    masks: str = "masks"
    ending: str = ""
    links: Links = "refuse"
    suffixes: Set[str] = IMAGE_SUFFIXES
    lists: str = ""


def list_pairs(
    folder: Path,
    split: str,
    names: PairFolders,
    *,
    where: str,
    ignored: list[Ignored] | None = None,
) -> tuple[list[SourceFile], list[FieldProblem]]:
    """Lists the images of a split with their masks, ordered by path, and their problems.

    A mask has the path in the folder of masks that its image has in the folder of images, but for
    the suffix, and for `names.ending` before it. Where lists name the images, these have the splits
    of the lists, and others are left out; of a list without any mask nothing is used.

    Args:
        folder: Holds the two folders.
        split: One of SPLITS.
        names: Names of the folders and masks.
        where: Name of the folder in messages, as "data.train".
        ignored: Receives what is not listed.
    """
    ignored = [] if ignored is None else ignored
    places = {"images": folder / names.images, "masks": folder / names.masks}
    problems: list[FieldProblem] = []
    for kind, place in places.items():
        expected = f"A folder of {kind} is expected (data.masks.{kind} has its name)"
        if not place.is_dir():
            missing = place if folder.is_dir() else folder
            error = FileNotFoundError() if not missing.exists() else NotADirectoryError()
            problems.append((split, describe_unreadable(missing, where, expected, error)))
            if missing is folder:
                break
    if problems:
        return [], problems
    beside: list[Ignored] = []
    images = _by_name(places["images"], "", names.links, beside, names.suffixes)
    masks = _by_name(places["masks"], names.ending, names.links, beside, IMAGE_SUFFIXES)
    ignored += beside
    if names.links != "ignore":
        problems += [(split, problem) for problem in describe_unused(beside, where, names.suffixes)]
        if problems:
            return [], problems
    splits, faults = _read_lists(folder, names, images, masks)
    if faults:
        return [], [*problems, *faults]
    if names.lists:
        images = {name: paths for name, paths in images.items() if name in splits}
        masks = {name: paths for name, paths in masks.items() if name in splits}
    doubles = [*_describe_doubles(images, split, where), *_describe_doubles(masks, split, where)]
    files = [
        SourceFile(images[name][0], splits.get(name, split), (masks[name][0],))
        for name in sorted(images.keys() & masks.keys())
    ]
    problems += doubles
    problems += _describe_missing(images, masks, split, where, places)
    if not images:
        suffixes = ", ".join(sorted(names.suffixes))
        what = f"{str(places['images'])!r} holds no images"
        expected = f"Images are files that end in {suffixes}."
        problems.append((split, Problem(where, what, expected)))
    return files, problems


def _read_lists(
    folder: Path,
    names: PairFolders,
    images: Mapping[str, object],
    masks: Mapping[str, object],
) -> tuple[dict[str, str], list[FieldProblem]]:
    """Returns the split of each listed image, without those of a split that has no mask at all."""
    if not names.lists:
        return {}, []
    splits, problems = read_split_lists(folder / names.lists)
    labelled = {splits[name] for name in masks.keys() & splits.keys()}
    splits = {name: split for name, split in splits.items() if split in labelled | {"train"}}
    missing = sorted(splits.keys() - images.keys())
    if missing:
        what = f"{names.lists!r} lists {len(missing)} names without an image: {name_some(missing)}"
        expected = f"Images are expected in {str(folder / names.images)!r}."
        problems = [("data.masks.lists", Problem("data.masks.lists", what, expected))]
    return splits, problems


def _by_name(
    folder: Path, ending: str, links: Links, ignored: list[Ignored], suffixes: Set[str]
) -> dict[str, list[str]]:
    """Returns the images below a folder by their path in it, without suffix and ending."""
    by_name: dict[str, list[str]] = {}
    root = os.path.abspath(folder)
    for path in list_below(root, links=links, ignored=ignored, suffixes=suffixes):
        name = normalize(os.path.splitext(os.path.relpath(path, root))[0])
        if name.endswith(ending):
            by_name.setdefault(name.removesuffix(ending) if ending else name, []).append(path)
    return by_name


def _describe_doubles(
    by_name: Mapping[str, list[str]], split: str, where: str
) -> Iterator[FieldProblem]:
    for paths in by_name.values():
        if len(paths) > 1:
            expected = "Each image and its mask need a name of their own, whatever the suffix."
            yield split, Problem(where, f"{' and '.join(paths)} have one name", expected)


def _describe_missing(
    images: Mapping[str, object],
    masks: Mapping[str, object],
    split: str,
    where: str,
    places: Mapping[str, Path],
) -> Iterator[FieldProblem]:
    for kind, partner, unpaired, candidates in (
        ("mask", "image", images.keys() - masks.keys(), masks),
        ("image", "mask", masks.keys() - images.keys(), images),
    ):
        if not unpaired:
            continue
        article = "a" if kind == "mask" else "an"
        count = f"{len(unpaired)} {partner}{'s' if len(unpaired) > 1 else ''}"
        what = f"{count} without {article} {kind}: {name_some(sorted(unpaired))}"
        first = min(unpaired)
        near = None if first.isdigit() else nearest(first, candidates)  # all numbers are near
        beside = f"; {first!r} may be {near!r}" if near else ""
        there = f"{str(places[f'{kind}s'])!r}{beside}"
        expected = f"Each {partner} needs {article} {kind} of its name in {there}"
        hint = "data.masks.ending=_mask if masks have longer names" if kind == "mask" else ""
        yield split, Problem(where, what, expected + ".", hint)
