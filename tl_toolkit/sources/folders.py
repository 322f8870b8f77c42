"""Images in a folder per class, listed by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from tl_toolkit.errors import Problem, closest
from tl_toolkit.sources.listing import (
    IMAGE_SUFFIXES,
    LINK_OUT,
    LINK_TO_NOTHING,
    LINKED_FOLDER,
    UNREADABLE_FOLDER,
    Depth,
    FieldProblem,
    Ignored,
    Links,
    SourceFile,
    is_below,
    is_junk,
    normalize,
    suffix_of,
)

EXPECTED = "A folder is expected that holds one folder of images per class"
"""What messages on such a folder say, without a full stop."""


@dataclass(frozen=True)
class ClassFolders:
    """The contents of the folder of one split.

    Attributes:
        folder: Absolute path.
        split: Its split, which is also the recipe's field that names the folder.
        where: Its name in messages, as "data.train".
        links: As in `read_folders`.
        suffixes: Endings of the images' names.
        classes: Paths of images by class folder, sorted.
        loose: Files beside the class folders.
        ignored: Files and folders that are not listed.
    """

    folder: Path
    split: str
    where: str
    links: Links = "refuse"
    suffixes: Set[str] = IMAGE_SUFFIXES
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
    folder: Path,
    split: str,
    where: str,
    *,
    links: Links = "refuse",
    suffixes: Set[str] = IMAGE_SUFFIXES,
    class_folders: Depth = "top",
) -> tuple[ClassFolders, list[FieldProblem]]:
    """Lists the images below each class folder, and problems that keep it from being listed.

    Names of classes are in Unicode's composed form. Hidden folders and those that systems add
    (`listing.JUNK_FOLDERS`) are left out.

    Args:
        folder: Holds the class folders.
        split: Its split.
        where: Name of the folder in messages, as "data.train".
        links: Whether linked folders, and linked files outside the folder, are listed; "refuse"
            leaves them out as "ignore" does, see `folder_checks.check_unused`.
        suffixes: Endings of the images' names.
        class_folders: Whether the images below a folder are of its class, or each folder with
            images is one, named by its path with slashes.
    """
    contents = ClassFolders(Path(os.path.abspath(folder)), split, where, links, suffixes)
    try:
        with os.scandir(contents.folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        return contents, [(split, describe_unreadable(contents.folder, where, EXPECTED, error))]
    walk = _Walk(os.path.realpath(contents.folder), links, contents.ignored, suffixes)
    problems: list[FieldProblem] = []
    for entry in ordered:
        if not _is_folder(entry):
            if entry.name.startswith("."):
                continue
            if suffix_of(entry.name) not in suffixes and not os.path.exists(entry.path):
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
            images = sorted(walk.list_images(entry.path))
            if class_folders == "top" or not images:
                contents.classes[normalize(entry.name)] = images
                continue
            for path in images:
                inner = os.path.relpath(os.path.dirname(path), contents.folder)
                contents.classes.setdefault(_name_class(inner), []).append(path)
    contents.ignored.extend(
        Ignored(path, "image beside the class folders")
        for path in contents.loose
        if contents.classes and suffix_of(path) in suffixes
    )
    contents.ignored.sort()
    return contents, problems


def _name_class(folder: str) -> str:
    """Returns the class of a folder by its relative path."""
    return normalize("/".join(folder.split(os.sep)))


@dataclass
class _Walk:
    """Lists images below folders.

    Attributes:
        root: Real path of the folder of all; files outside it are reached by links only.
        links: As in `read_folders`.
        ignored: Receives what is not listed.
        suffixes: Endings of the images' names.
    """

    root: str
    links: Links
    ignored: list[Ignored]
    suffixes: Set[str]

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
                if _is_folder(entry) and is_junk(entry.name):
                    self.leave_out_junk(entry)
                elif entry.name.startswith("."):
                    continue
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif _is_folder(entry) and self.links == "follow":
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
                not is_below(target, self.root)
                and self.links != "follow"
                and suffix_of(entry.name) in self.suffixes
            ):
                return LINK_OUT
        elif not entry.is_file(follow_symlinks=False):
            return "special file"
        suffix = suffix_of(entry.name)
        return "" if suffix in self.suffixes else suffix or "file without extension"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:  # too many links, a name that is too long
        return False


def list_below(
    folder: str,
    *,
    links: Links = "refuse",
    ignored: list[Ignored] | None = None,
    suffixes: Set[str] = IMAGE_SUFFIXES,
) -> list[str]:
    """Returns the images below a folder, whatever class they are of, sorted by path.

    Args:
        folder: The folder.
        links: As in `read_folders`.
        ignored: Receives what is not listed.
        suffixes: Endings of the images' names.
    """
    walk = _Walk(os.path.realpath(folder), links, [] if ignored is None else ignored, suffixes)
    return sorted(walk.list_images(folder))


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
