"""Images that annotations of COCO list, and where these lie."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tl_toolkit.errors import DataError, Problem, closest
from tl_toolkit.sources.coco import COCO, EXPECTED, read_coco
from tl_toolkit.sources.listing import FieldProblem, Links, SourceFile, name_some
from tl_toolkit.sources.outside import OutsideCheck
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
        path: The file.
        split: One of SPLITS.
        classes: The classes, one of them for pixels of no object.
        images: Folder of the images, relative to the file. Without one of that name they are looked
            for beside the file and where COCO has them: instances_train2017.json has them in
            ../train2017.
        where: Name of the file in messages, as "data.train".
        links: Whether images may lie outside that folder: with "follow" alone.
    """
    path = path.absolute()
    try:
        annotated = read_coco(path)
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
        return [], [*problems, (split, Problem(where, f"{str(path)!r} has no images", EXPECTED))]
    folder = _find_images(path, images, [image.name for _, image in entries[:20]])
    leaves = OutsideCheck(folder)
    files = [
        SourceFile(os.path.normpath(folder / image.name), split, (f"{COCO}{path}#{number}",))
        for number, image in entries
    ]
    names = [file.path for file in files]
    checks = {
        "that are no files": [name for name in names if not os.path.isfile(name)],
        "outside the folder of images": [
            name for name in names if links != "follow" and leaves(name)
        ],
        "twice": [name for name, after in zip(names, names[1:], strict=False) if name == after],
    }
    for words, wrong in checks.items():
        if wrong:
            what = f"{str(path)!r} names {len(wrong)} images {words}: {name_some(wrong)}"
            expected = f"Images are expected in {str(folder)!r}."
            hint = (
                "data.masks.images=FOLDER, relative to the file" if words.endswith("files") else ""
            )
            hint = "data.links=follow to use them" if words.startswith("outside") else hint
            problems.append((split, Problem(where, what, expected, hint)))
    return files, problems


def _find_images(path: Path, images: str, names: Sequence[str]) -> Path:
    """Returns the folder that holds most of some images, the first one of equals."""
    part = path.stem.removeprefix("instances_")
    above = path.parent.parent
    beside = [path.parent / images, path.parent]
    folders = [*beside, above / part, above / images / part, above / images, above]
    most = max(folders, key=lambda folder: sum(os.path.isfile(folder / name) for name in names))
    return Path(os.path.normpath(most))
