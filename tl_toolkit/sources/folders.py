"""Images in a folder per class, listed by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tl_toolkit.errors import Problem, closest
from tl_toolkit.sources.listing import (
    IMAGE_SUFFIXES,
    LINK_OUT,
    LINK_TO_NOTHING,
    LINKED_FOLDER,
    UNREADABLE_FOLDER,
    FieldProblem,
    Ignored,
    Links,
    SourceFile,
    describe_ignored,
    is_junk,
    name_some,
    normalize,
)

_EXPECTED = "A folder is expected that holds one folder of images per class"
_OPENED_FOLDERS = 1000
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class ClassFolders:
    """The contents of the folder of one split.

    Attributes:
        folder: Absolute path.
        split: Its split, which is also the recipe's field that names the folder.
        where: Its name in messages, as "data.train".
        links: As in `read_folders`.
        classes: Paths of images by class folder, sorted.
        loose: Files beside the class folders.
        ignored: Files and folders that are not listed.
    """

    folder: Path
    split: str
    where: str
    links: Links = "refuse"
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
            for path in self.classes.get(normalize(name), ()):
                yield SourceFile(path, split, (name,))


def read_folders(
    folder: Path, split: str, where: str, *, links: Links = "refuse"
) -> tuple[ClassFolders, list[FieldProblem]]:
    """Lists the images below each class folder, and problems that keep it from being listed.

    Names of classes are in Unicode's composed form. Hidden folders and those that systems add
    (`listing.JUNK_FOLDERS`) are left out.

    Args:
        folder: Holds the class folders.
        split: Its split.
        where: Name of the folder in messages, as "data.train".
        links: Whether linked folders, and linked files outside the folder, are listed; "refuse"
            leaves them out as "ignore" does, see `check_unused`.
    """
    contents = ClassFolders(Path(os.path.abspath(folder)), split, where, links)
    try:
        with os.scandir(contents.folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        return contents, [(split, describe_unreadable(contents.folder, where, _EXPECTED, error))]
    walk = _Walk(os.path.realpath(contents.folder), links, contents.ignored)
    problems: list[FieldProblem] = []
    for entry in ordered:
        if not entry.is_dir():
            if entry.name.startswith("."):
                continue
            if _suffix(entry.name) not in IMAGE_SUFFIXES and not os.path.exists(entry.path):
                contents.ignored.append(Ignored(entry.path, LINKED_FOLDER))  # of a missing disk
            else:
                contents.loose.append(entry.path)
        elif is_junk(entry.name):
            walk.leave_out_junk(entry)
        elif entry.is_symlink() and links != "follow":
            contents.ignored.append(Ignored(entry.path, LINKED_FOLDER))
        elif normalize(entry.name) in contents.classes:
            what = f"{str(contents.folder)!r} holds two folders of one name, {entry.name!r}"
            expected = "They differ in the encoding of letters only; put their images into one."
            problems.append((split, Problem(where, what, expected)))
        else:
            contents.classes[normalize(entry.name)] = sorted(walk.list_images(entry.path))
    contents.ignored.extend(
        Ignored(path, "image beside the class folders")
        for path in contents.loose
        if contents.classes and _suffix(path) in IMAGE_SUFFIXES
    )
    contents.ignored.sort()
    return contents, problems


@dataclass
class _Walk:
    """Lists images below folders.

    Attributes:
        root: Real path of the folder of all; files outside it are reached by links only.
        links: As in `read_folders`.
        ignored: Receives what is not listed.
    """

    root: str
    links: Links
    ignored: list[Ignored]

    def list_images(self, folder: str) -> Iterator[str]:
        """Yields the images below a folder, in no order.

        Args:
            folder: The folder; if it is a link, its target is listed.
        """
        waiting, linked, seen = [folder], list[str](), set[str]()
        while waiting or linked:
            # Linked folders come last: what is found without them has the path without them.
            current = waiting.pop() if waiting else linked.pop(0)
            real = os.path.realpath(current)
            if real in seen:
                continue
            seen.add(real)
            try:
                with os.scandir(current) as entries:
                    ordered = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.ignored.append(Ignored(current, f"{UNREADABLE_FOLDER} ({error.strerror})"))
                continue
            for entry in ordered:
                if entry.is_dir() and is_junk(entry.name):
                    self.leave_out_junk(entry)
                elif entry.name.startswith("."):
                    continue
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_dir() and self.links == "follow":
                    linked.append(entry.path)
                elif reason := self._why_ignored(entry):
                    self.ignored.append(Ignored(entry.path, reason))
                else:
                    yield entry.path

    def leave_out_junk(self, entry: os.DirEntry[str]) -> None:
        """Notes a folder that a system has added; hidden ones are not counted.

        Args:
            entry: The folder.
        """
        if not entry.name.startswith("."):
            self.ignored.append(Ignored(entry.path, f"folder {entry.name}"))

    def _why_ignored(self, entry: os.DirEntry[str]) -> str:
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if os.path.isdir(target):
                return LINKED_FOLDER
            if not os.path.isfile(target):
                return LINK_TO_NOTHING
            if (
                not _is_below(target, self.root)
                and self.links != "follow"
                and _suffix(entry.name) in IMAGE_SUFFIXES
            ):
                return LINK_OUT
        elif not entry.is_file(follow_symlinks=False):
            return "special file"
        suffix = _suffix(entry.name)
        return "" if suffix in IMAGE_SUFFIXES else suffix or "file without extension"


def _is_below(path: str, folder: str) -> bool:
    real = os.path.realpath(folder)
    return os.path.commonpath([path, real]) == real


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def list_below(
    folder: str, *, links: Links = "refuse", ignored: list[Ignored] | None = None
) -> list[str]:
    """Returns the images below a folder, whatever class they are of, sorted by path.

    Args:
        folder: The folder.
        links: As in `read_folders`.
        ignored: Receives what is not listed.
    """
    walk = _Walk(os.path.realpath(folder), links, [] if ignored is None else ignored)
    return sorted(walk.list_images(folder))


def describe_unused(ignored: Sequence[Ignored], where: str) -> Iterator[Problem]:
    """Yields problems of folders with images that would be left out: linked, or not readable.

    Args:
        ignored: What was not listed.
        where: Name of the folder in messages, as "data.train".
    """
    linked = [entry.path for entry in ignored if entry.reason == LINKED_FOLDER]
    if linked := [path for path in linked if _may_hold_images(path)]:
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


def _may_hold_images(folder: str) -> bool:
    """Returns whether there is an image below a folder, or more folders than are opened here."""
    waiting = [folder]
    for _ in range(_OPENED_FOLDERS):
        if not waiting:
            return False
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif _suffix(entry.name) in IMAGE_SUFFIXES:
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
    wanted = None if classes is None else {normalize(name) for name in classes}
    used = []
    for entry in contents.ignored:
        name = Path(entry.path).relative_to(contents.folder).parts[0]
        own = str(contents.folder / name)
        # A link to a folder of the same class leaves no image out.
        is_link = entry.reason == LINKED_FOLDER and entry.path != own
        is_again = is_link and _is_below(os.path.realpath(entry.path), own)
        if not is_again and (wanted is None or normalize(name) in wanted):
            used.append(entry)
    return [(contents.split, problem) for problem in describe_unused(used, contents.where)]


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
    images = [path for path in contents.loose if _suffix(path) in IMAGE_SUFFIXES]
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
        problem = Problem(contents.where, _describe_no_class(contents), f"{_EXPECTED}.")
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
    expected = f"Images are files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
    return Problem(contents.where, what, f"{expected} ({beside})." if beside else f"{expected}.")
