"""Images with their masks, matched by name: listed, not opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tl_toolkit.errors import Problem, nearest
from tl_toolkit.sources.folders import describe_unreadable, list_below
from tl_toolkit.sources.listing import IMAGE_SUFFIXES, Found, SourceFile, name_some

__all__ = ["PairFolders", "list_pairs"]


@dataclass(frozen=True)
class PairFolders:
    """How images and masks are told apart and matched.

    Attributes:
        images: Name of the folder of images in the folder of a split.
        masks: Name of the folder of masks beside it.
        ending: What the name of a mask has more than its image's, before the suffix.
    """

    images: str = "images"
    masks: str = "masks"
    ending: str = ""


def list_pairs(
    folder: Path, split: str, names: PairFolders, *, where: str
) -> tuple[list[SourceFile], list[Found]]:
    """Lists the images of a split with their masks, ordered by path, and what is wrong.

    A mask lies below the folder of masks as its image lies below that of images, and has its name
    but for the suffix, and for `names.ending` before it.

    Args:
        folder: Holds the two folders.
        split: One of SPLITS.
        names: What they are called.
        where: What messages call the folder, as "data.train".
    """
    places = {"images": folder / names.images, "masks": folder / names.masks}
    problems: list[Found] = []
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
    images = _by_name(places["images"])
    found = _by_name(places["masks"], names.ending)
    doubles = [*_tell_doubles(images, split, where), *_tell_doubles(found, split, where)]
    files = [
        SourceFile(images[name][0], split, (found[name][0],))
        for name in sorted(images.keys() & found.keys())
    ]
    problems += doubles
    problems += _tell_missing(images, found, split, where, places)
    if not images:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        what = f"{str(places['images'])!r} holds no images"
        expected = f"Images are files that end in {suffixes}."
        problems.append((split, Problem(where, what, expected)))
    return files, problems


def _by_name(folder: Path, ending: str = "") -> dict[str, list[str]]:
    """Returns the images below a folder by their path in it, without suffix and ending."""
    found: dict[str, list[str]] = {}
    root = os.path.abspath(folder)
    for path in list_below(root):
        name = os.path.splitext(os.path.relpath(path, root))[0]
        if name.endswith(ending):
            found.setdefault(name.removesuffix(ending) if ending else name, []).append(path)
    return found


def _tell_doubles(found: Mapping[str, list[str]], split: str, where: str) -> Iterator[Found]:
    for paths in found.values():
        if len(paths) > 1:
            expected = "Each image and its mask need a name of their own, whatever the suffix."
            yield split, Problem(where, f"{' and '.join(paths)} have one name", expected)


def _tell_missing(
    images: Mapping[str, object],
    masks: Mapping[str, object],
    split: str,
    where: str,
    places: Mapping[str, Path],
) -> Iterator[Found]:
    for kind, other, one, two in (
        ("mask", "image", images.keys() - masks.keys(), masks),
        ("image", "mask", masks.keys() - images.keys(), images),
    ):
        if not one:
            continue
        article = "a" if kind == "mask" else "an"
        count = f"{len(one)} {other}{'s' if len(one) > 1 else ''}"
        what = f"{count} without {article} {kind}: {name_some(sorted(one))}"
        near = None if min(one).isdigit() else nearest(min(one), two)  # numbers are all alike
        beside = f"; {min(one)!r} may be {near!r}" if near else ""
        there = f"{str(places[f'{kind}s'])!r}{beside}"
        expected = f"Each {other} needs {article} {kind} of its name in {there}"
        hint = "data.masks.ending=_mask if masks have longer names" if kind == "mask" else ""
        yield split, Problem(where, what, expected + ".", hint)
