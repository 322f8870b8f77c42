"""Images that annotations of COCO list, and where these lie."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tl_toolkit.errors import DataError, Problem, closest
from tl_toolkit.recipe.remote import hide_credentials, is_address, name_object
from tl_toolkit.sources.coco import COCO, EXPECTED, read_coco
from tl_toolkit.sources.listing import FieldProblem, Links, SourceFile, name_some
from tl_toolkit.sources.outside import OutsideCheck
from tl_toolkit.sources.places import Presence, join
from tl_toolkit.sources.table_rows import SPLIT_WORDS

__all__ = ["find_annotations", "find_background", "is_annotations", "list_coco"]


def is_annotations(path: Path) -> bool:
    """Returns whether a recipe means a file of annotations by a path: one that ends in .json.

    Args:
        path: The path.
    """
    return path.suffix.lower() == ".json"


def find_annotations(folder: Path) -> dict[str, Path]:
    """Returns the files of annotations that a folder holds, by split; none without training.

    These are annotations/instances_train2017.json and the like, as COCO has them; or a file
    _annotations.coco.json in each folder of a split, beside its images.

    Args:
        folder: The folder.
    """
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("annotations/instances_*.json")):
        word = re.match(r"[a-z]*", file.stem.lower().removeprefix("instances_"))
        split = (
            "train" if word and word[0] == "default" else SPLIT_WORDS.get(word[0] if word else "")
        )
        if split:
            found.setdefault(split, file)
    for name, split in SPLIT_WORDS.items():
        file = folder / name / "_annotations.coco.json"
        if split not in found and file.is_file():
            found[split] = file
    return found if "train" in found else {}


def find_background(categories: Sequence[str], classes: Sequence[str]) -> str:
    """Returns the class of pixels without an object: the only one that is no category.

    Args:
        categories: Names of the categories.
        classes: The classes.

    Raises:
        ValueError: There is none, or several; the text says what to do.
    """
    others = [name for name in classes if name not in categories]
    others = others or [name for name in classes if name.strip("_").lower() == "background"]
    if len(others) == 1:
        return others[0]
    if not others:
        raise ValueError("all are categories; expected one more, for pixels of no object")
    near = next(filter(None, (closest(name, categories) for name in others)), "")
    listed = (
        f"{name_some(map(repr, others))} are no categories; expected one, for pixels of no object"
    )
    return _refuse(
        f"{listed}; its categories are {name_some(map(repr, categories))}. {near}".rstrip()
    )


def _refuse(words: str) -> str:
    raise ValueError(words)


def list_coco(
    path: Path,
    split: str,
    classes: Sequence[str],
    *,
    images: str = "images",
    where: str,
    links: Links = "refuse",
) -> tuple[list[SourceFile], list[FieldProblem]]:
    """Lists the images of a file of annotations, ordered by name, with the paths of their masks.

    Args:
        path: The file, or the copy of one on an object store.
        split: One of SPLITS.
        classes: The classes, one of them for pixels of no object.
        images: Folder of the images, relative to the file, or its address. Without one of that name
            they are looked for beside the file and where COCO has them: instances_train2017.json
            has them in ../train2017.
        where: Name of the file in messages, as "data.train".
        links: Whether images may lie outside that folder: with "follow" alone.

    Raises:
        DataError: A store cannot be read.
    """
    file = name_object(str(path.absolute()))
    try:
        annotated = read_coco(path.absolute())
    except DataError as error:
        return [], [(split, Problem(where, one.what, one.expected)) for one in error.problems]
    problems: list[FieldProblem] = []
    try:
        find_background(annotated.categories, classes)
    except ValueError as error:
        hint = f"data.classes=[background, {', '.join(annotated.categories[:3])}]"
        problems.append(("classes", Problem("data.classes", str(error), hint=hint)))
    entries = sorted(annotated.images.items(), key=lambda item: (item[1].name, item[0]))
    if not entries:
        return [], [*problems, (split, Problem(where, f"{file!r} has no images", EXPECTED))]
    folder, is_there = _find_images(file, images, [image.name for _, image in entries[:20]])
    files = [
        SourceFile(join(folder, image.name), split, (f"{COCO}{file}#{number}",))
        for number, image in entries
    ]
    leaves = (lambda path: False) if links == "follow" else OutsideCheck(folder)
    faults = _check_images([entry.path for entry in files], is_there, leaves)
    expected = f"Images are expected in {folder!r}."
    problems += [
        (split, Problem(where, f"{file!r} {what}", expected, hint)) for what, hint in faults
    ]
    return files, problems


def _check_images(
    names: Sequence[str], is_there: Callable[[str], bool], leaves: Callable[[str], bool]
) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with images in the order of their names, and what to type."""
    missing = [name for name in names if not is_there(name)]
    outside = [name for name in names if leaves(name)]
    twice = [name for name, after in zip(names, names[1:], strict=False) if name == after]
    checks = [
        ("that are no files", missing, "data.masks.images=FOLDER, relative to the file"),
        ("outside the folder of images", outside, "data.links=follow to use them"),
        ("twice", twice, ""),
    ]
    for words, wrong, hint in checks:
        if wrong:
            named = name_some(map(hide_credentials, wrong))
            yield f"names {len(wrong)} images {words}: {named}", hint


def _find_images(file: str, images: str, names: Sequence[str]) -> tuple[str, Presence]:
    """Returns the folder that holds most of some images, the first one of equals, and its files."""
    beside, name = os.path.split(file)
    part = os.path.splitext(name)[0].removeprefix("instances_")
    is_whole = is_address(images) or os.path.isabs(images)
    named = [join(images, part)] if is_whole else [f"../{images}/{part}", f"../{images}"]
    first, *others = (join(beside, place) for place in (images, ".", f"../{part}", *named, ".."))
    best = first, Presence(first)
    most = _count(*best, names)
    refused: DataError | None = None
    for folder in dict.fromkeys(others):
        if most == len(names):  # no later folder holds more, and listing one takes requests
            break
        if not _may_hold(folder, file):
            continue
        is_there = Presence(folder)
        try:
            count = _count(folder, is_there, names)
        except DataError as error:  # a guess may be a folder that nobody may list
            refused = error
            continue
        if count > most:
            best, most = (folder, is_there), count
    if refused is not None and not most:
        raise refused
    return best


def _count(folder: str, is_there: Callable[[str], bool], names: Sequence[str]) -> int:
    return sum(is_there(join(folder, name)) for name in names)


def _may_hold(folder: str, file: str) -> bool:
    """Returns whether a folder is asked for: of a store those in the bucket of the annotations."""
    return not is_address(folder) or folder.split("/")[:3] == file.split("/")[:3]
