"""Images in a folder per class, listed by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tl_toolkit.errors import Problem, closest
from tl_toolkit.sources.listing import (
    IMAGE_SUFFIXES,
    FieldProblem,
    Ignored,
    SourceFile,
    describe_ignored,
    name_some,
)

_EXPECTED = "A folder is expected that holds one folder of images per class"
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class ClassFolders:
    """The contents of the folder of one split.

    Attributes:
        folder: Absolute path.
        split: Its split, which is also the recipe's field that names the folder.
        where: Its name in messages, as "data.train".
        classes: Paths of images by class folder, sorted.
        loose: Files beside the class folders.
        ignored: Files and folders that are not listed.
    """

    folder: Path
    split: str
    where: str
    classes: dict[str, list[str]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)

    def select(self, classes: Sequence[str], split: str | None) -> Iterator[SourceFile]:
        """Yields the images of some classes, ordered by class name and path.

        Args:
            classes: The classes.
            split: The split that the images get; None if fractions decide.
        """
        for name in sorted(classes):
            for path in self.classes.get(name, ()):
                yield SourceFile(path, split, (name,))


def read_folders(folder: Path, split: str, where: str) -> tuple[ClassFolders, list[FieldProblem]]:
    """Lists the images below each class folder, and problems that keep it from being listed.

    Args:
        folder: Holds the class folders.
        split: Its split.
        where: Name of the folder in messages, as "data.train".
    """
    contents = ClassFolders(Path(os.path.abspath(folder)), split, where)
    try:
        with os.scandir(contents.folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        return contents, [(split, describe_unreadable(contents.folder, where, _EXPECTED, error))]
    root = os.path.realpath(contents.folder)
    for entry in ordered:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            contents.classes[entry.name] = sorted(_walk(entry.path, root, contents.ignored))
        elif entry.is_dir():
            contents.ignored.append(Ignored(entry.path, "linked folder"))
        else:
            contents.loose.append(entry.path)
    contents.ignored.sort()
    return contents, []


def _walk(folder: str, root: str, ignored: list[Ignored]) -> Iterator[str]:
    """Yields the images below a folder; links are followed to files inside `root` only."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                ordered = list(entries)
        except OSError as error:
            ignored.append(Ignored(current, f"folder that cannot be read ({error.strerror})"))
            continue
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
                continue
            reason = _why_ignored(entry, root)
            if reason:
                ignored.append(Ignored(entry.path, reason))
            else:
                yield entry.path


def list_below(folder: str) -> list[str]:
    """Returns the images below a folder, whatever class they are of, sorted by path.

    Args:
        folder: The folder.
    """
    return sorted(_walk(folder, os.path.realpath(folder), []))


def _why_ignored(entry: os.DirEntry[str], root: str) -> str:
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if os.path.isdir(target):
            return "linked folder"
        if not os.path.isfile(target):
            return "link to nothing"
        if os.path.commonpath([root, target]) != root:
            return "link out of the folder"
    elif not entry.is_file(follow_symlinks=False):
        return "special file"
    suffix = os.path.splitext(entry.name)[1].lower()
    return "" if suffix in IMAGE_SUFFIXES else suffix or "file without extension"


def describe_unreadable(path: Path, where: str, expected: str, error: Exception) -> Problem:
    """Returns why a folder or table cannot be read, with the nearest name if it does not exist.

    Args:
        path: The folder or table.
        where: Its name in messages.
        expected: The expected content for messages, without a full stop.
        error: The error of opening it.
    """
    name = repr(str(path))
    if isinstance(error, FileNotFoundError):
        near = _nearest(path)
        return Problem(where, f"{name} does not exist", f"{expected}{'; ' if near else '.'}{near}")
    if isinstance(error, NotADirectoryError):
        is_table = path.suffix.lower() == ".csv" and where != "--data"  # which takes both
        hint = f"data.csv: {path}" if is_table else ""
        return Problem(where, f"{name} is a file", f"{expected}.", hint)
    reason = getattr(error, "strerror", None) or error
    return Problem(where, f"{name} cannot be read: {reason}", f"{expected}.")


def _nearest(path: Path) -> str:
    try:
        return closest(path.name, os.listdir(path.parent))
    except OSError:
        return f"the nearest folder that exists is {str(_first_existing(path))!r}."


def _first_existing(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.is_dir())


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
        return [(contents.split, Problem(contents.where, what, f"{_EXPECTED}.", hint))]
    if not selected and len(names) == 1:
        what = f"{name} holds one class only ({names[0]})"
        return [(contents.split, Problem(contents.where, what, "At least 2 folders are needed."))]
    return check_classes(contents, classes, selected=selected)


def _describe_no_class(contents: ClassFolders) -> str:
    images = [path for path in contents.loose if Path(path).suffix.lower() in IMAGE_SUFFIXES]
    content = f"{len(images)} image{'s' if len(images) != 1 else ''}" if images else "nothing"
    linked = [Path(entry.path).name for entry in contents.ignored]
    links = f" (linked folders are not followed: {name_some(linked)})" if linked else ""
    return f"{str(contents.folder)!r} holds {content} and no folder per class{links}"


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
        problem = Problem(contents.where, _describe_no_class(contents), f"{_EXPECTED}.")
        return [(contents.split, problem)]
    problems = []
    missing = [label for label in classes if label not in contents.classes and not partial]
    extra = [] if selected else sorted(contents.classes.keys() - set(classes))
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
    empty = [label for label in classes if contents.classes.get(label) == []]
    if empty:
        problems.append((contents.split, _describe_empty(contents, empty)))
    return problems


def _describe_empty(contents: ClassFolders, empty: Sequence[str]) -> Problem:
    folders = tuple(str(contents.folder / name) + os.sep for name in empty)
    beside = describe_ignored(
        [entry for entry in contents.ignored if entry.path.startswith(folders)]
    )
    what = f"{str(contents.folder)!r} has no images of {name_some(map(repr, empty))}"
    expected = f"Images are files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
    return Problem(contents.where, what, f"{expected} ({beside})." if beside else f"{expected}.")
