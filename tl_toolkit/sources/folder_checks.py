"""Checks the folders of classes, and says what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from tl_toolkit.errors import Problem, closest
from tl_toolkit.sources.folders import EXPECTED, ClassFolders
from tl_toolkit.sources.listing import (
    IMAGE_SUFFIXES,
    LINKED_FOLDER,
    UNREADABLE_FOLDER,
    FieldProblem,
    Ignored,
    describe_ignored,
    is_below,
    name_some,
    normalize,
    suffix_of,
)

_OPENED_FOLDERS = 1000
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


def describe_unused(
    ignored: Sequence[Ignored], where: str, suffixes: Set[str] = IMAGE_SUFFIXES
) -> Iterator[Problem]:
    """Yields problems of folders with images that would be left out: linked, or not readable.

    Args:
        ignored: What was not listed.
        where: Name of the folder in messages, as "data.train".
        suffixes: Endings of the images' names.
    """
    linked = [entry.path for entry in ignored if entry.reason == LINKED_FOLDER]
    if linked := [path for path in linked if may_hold_images(path, suffixes)]:
        named = name_some(f"{path} (to {os.path.realpath(path)})" for path in linked)
        what = f"linked folders are not followed: {named}"
        expected = "Images in them would be left out."
        can_set = where.startswith("data.")
        hint = "data.links=follow to use them, data.links=ignore to leave them out"
        yield Problem(where, what, expected, hint if can_set else "")
    unreadable = [entry for entry in ignored if entry.reason.startswith(UNREADABLE_FOLDER)]
    if unreadable:
        what = f"folders cannot be read: {name_some(entry.path for entry in unreadable)}"
        yield Problem(where, what, "Images in them would be left out.", "chmod u+rx FOLDER")


def may_hold_images(folder: str, suffixes: Set[str]) -> bool:
    """Returns whether there is an image below a folder, or more folders than are opened here.

    Args:
        folder: The folder.
        suffixes: Endings of the images' names.
    """
    waiting = [folder]
    for _ in range(_OPENED_FOLDERS):
        if not waiting:
            return False
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif suffix_of(entry.name) in suffixes:
                        return True
        except OSError:
            return True
    return True


def check_unused(contents: ClassFolders, classes: Sequence[str] | None) -> list[FieldProblem]:
    """Returns problems of folders with images that the recipe does not leave out.

    Args:
        contents: Contents of the folder of a split.
        classes: The classes that the recipe names; None if it names none. Folders of other classes
            may be left out.
    """
    if contents.links == "ignore":
        return []
    # Of a class that is named by its path, its first folder.
    wanted = None if classes is None else {
        part for name in classes for part in (normalize(name), normalize(name).split("/")[0])
    }  # fmt: skip
    used = []
    for entry in contents.ignored:
        name = Path(entry.path).relative_to(contents.folder).parts[0]
        own = str(contents.folder / name)
        # A link to a folder of the same class leaves no image out.
        is_link = entry.reason == LINKED_FOLDER and entry.path != own
        is_again = is_link and is_below(os.path.realpath(entry.path), own)
        if not is_again and (wanted is None or normalize(name) in wanted):
            used.append(entry)
    return [
        (contents.split, problem)
        for problem in describe_unused(used, contents.where, contents.suffixes)
    ]


def check_distinct(folders: Mapping[str, Path]) -> Iterator[FieldProblem]:
    """Yields a problem for each split that names the folder of an earlier split.

    Args:
        folders: Folders by split.
    """
    seen: dict[str, str] = {}
    for name, folder in folders.items():
        first = seen.setdefault(os.path.realpath(folder), name)
        if first != name:
            what = f"{str(folder)!r} is the folder of data.{first} as well"
            yield name, Problem(f"data.{name}", what, "Each split needs images of its own.")


def check_training(
    contents: ClassFolders, classes: Sequence[str], *, selected: bool
) -> list[FieldProblem]:
    """Returns the problems of a training folder.

    Args:
        contents: Contents of the folder.
        classes: The classes to train on.
        selected: Whether the recipe names the classes, and folders of other classes may exist.
    """
    name = repr(str(contents.folder))
    names = sorted(contents.classes)
    if not selected and len(names) > 1 and {entry.lower() for entry in names} <= _SPLIT_NAMES:
        what = f"{name} holds splits, not classes ({', '.join(names)})"
        training = [entry for entry in names if "train" in entry.lower()]
        hint = f"{contents.where}: {contents.folder / training[0]}" if training else ""
        return [(contents.split, Problem(contents.where, what, f"{EXPECTED}.", hint))]
    if not selected and len(names) == 1:
        what = f"{name} holds one class only ({names[0]})"
        return [(contents.split, Problem(contents.where, what, "At least 2 folders are needed."))]
    return check_classes(contents, classes, selected=selected)


def _hint_classes(contents: ClassFolders) -> str:
    """Returns what to do with images of all classes in one folder."""
    if not any(suffix_of(path) in contents.suffixes for path in contents.loose):
        return ""
    return "a folder per class with its images, or a table (data.csv) with columns path and label"


def _describe_no_class(contents: ClassFolders) -> str:
    images = [path for path in contents.loose if suffix_of(path) in contents.suffixes]
    content = f"{len(images)} image{'s' if len(images) != 1 else ''}" if images else "nothing"
    return f"{str(contents.folder)!r} holds {content} and no folder per class"


def check_classes(
    contents: ClassFolders, classes: Sequence[str], *, selected: bool = False, partial: bool = False
) -> list[FieldProblem]:
    """Compares the class folders of a split with the classes of the recipe.

    Args:
        contents: Contents of the folder of the split.
        classes: The classes.
        selected: Whether folders of other classes may exist.
        partial: Whether some of the classes are enough.
    """
    if not contents.classes:
        problem = Problem(
            contents.where, _describe_no_class(contents), f"{EXPECTED}.", _hint_classes(contents)
        )
        return [(contents.split, problem)]
    problems = []
    wanted = {normalize(label): label for label in classes}
    missing = [wanted[name] for name in wanted if name not in contents.classes and not partial]
    extra = [] if selected else sorted(contents.classes.keys() - wanted.keys())
    if missing:
        near = closest(missing[0], extra or contents.classes)
        # Only a recipe's own `classes` can ask for more than the training folder holds.
        field = "classes" if contents.split == "train" else contents.split
        expected = f"A folder is expected for each class{'; ' if near else '.'}{near}"
        what = f"{str(contents.folder)!r} has no folder for {name_some(map(repr, missing))}"
        problems.append((field, Problem(contents.where, what, expected)))
    if extra:
        what = (
            f"{str(contents.folder)!r} has folders of other classes: {name_some(map(repr, extra))}"
        )
        expected = f"The classes are {name_some(map(repr, classes))}."
        problems.append((contents.split, Problem(contents.where, what, expected)))
    empty = [name for name in wanted if contents.classes.get(name) == []]
    if empty:
        problems.append((contents.split, _describe_empty(contents, empty)))
    return problems


def _describe_empty(contents: ClassFolders, empty: Sequence[str]) -> Problem:
    folders = tuple(str(contents.folder / name) + os.sep for name in empty)
    beside = describe_ignored(
        [entry for entry in contents.ignored if entry.path.startswith(folders)]
    )
    what = f"{str(contents.folder)!r} has no images of {name_some(map(repr, empty))}"
    expected = f"Images are files that end in {', '.join(sorted(contents.suffixes))}"
    hint = "data.channels=N where arrays of N bands are the images" if ".npy" in beside else ""
    beside = f" ({beside})" if beside else ""
    return Problem(contents.where, what, f"{expected}{beside}.", hint)
