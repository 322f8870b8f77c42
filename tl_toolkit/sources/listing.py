"""The listing of a recipe's images, and the text of its messages."""

from __future__ import annotations

import collections
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tl_toolkit.catalog.records import RGB
from tl_toolkit.errors import Problem

SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
ARRAY_SUFFIXES = IMAGE_SUFFIXES | {".npy"}
"""Endings of images with other channels than RGB, arrays among them."""
MAX_PIXELS = 178_956_970
"""Where Pillow refuses too: twice its Image.MAX_IMAGE_PIXELS."""

PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
"""All that Pillow may open: of others it starts programs (EPS), or reads without a limit (FITS)."""

JUNK_FOLDERS = frozenset(
    {
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin",
        "system volume information", "lost+found", "__macosx", "__pycache__",
    }
)  # fmt: skip
"""Folders that disk stations, archives and systems add, in lower case: thumbnails, not images."""

LINK_OUT = "link out of the folder"
LINK_TO_NOTHING = "link to nothing"
LINKED_FOLDER = "linked folder"
UNREADABLE_FOLDER = "folder that cannot be read"

Links = Literal["refuse", "follow", "ignore"]
"""What to do about linked folders, and linked files outside the folder; see `data.links`."""

Depth = Literal["top", "all"]
"""Which folders are classes; see `data.class_folders`."""

MAX_BYTES = 1 << 29  # TensorFlow counts the bytes of a string in int32; images stay far below.
_NAMED_LINKS = 5
_ADVICE = {
    LINK_OUT: "data.links=follow uses the linked files",
    LINK_TO_NOTHING: "these links lead nowhere:",
}
MAX_NAMED = 20  # How many files a message names before it only counts.

# A field of the recipe's `data` section, or dotted one of another, and what is wrong with it.
FieldProblem = tuple[str, Problem]


class SourceFile(NamedTuple):
    """One image that a recipe names.

    Attributes:
        path: Absolute path, or `builtin:digits/<index>`.
        split: One of SPLITS, or None if fractions decide.
        targets: As text, a value for each column of the listing.
        group: What it has in common with other images, which must lie in the same split; "" for
            nothing.
    """

    path: str
    split: str | None
    targets: tuple[str, ...] = ()
    group: str = ""


class Ignored(NamedTuple):
    """A file that is not listed as an image.

    Attributes:
        path: The file.
        reason: Why it is not listed.
    """

    path: str
    reason: str


class Excluded(NamedTuple):
    """Images that a recipe leaves out by name.

    Attributes:
        table: The file that names them; "" for none.
        images: How many of the listed images it names.
        missing: Those of its paths where no file is, in words; "" for none.
    """

    table: str = ""
    images: int = 0
    missing: str = ""

    def describe(self) -> str:
        """Returns how many images are left out, as "3 images left out by exclude.csv", or ""."""
        if not self.table:
            return ""
        count = "1 image" if self.images == 1 else f"{self.images:,} images"
        lost = f"; it names files that are not there: {self.missing}" if self.missing else ""
        return f"{count} left out by {self.table}{lost}"


def is_lost(entry: Ignored) -> bool:
    """Returns whether images may be missing for it: a link, or a folder that cannot be read.

    Args:
        entry: A file or folder that is not listed.
    """
    return entry.reason.startswith((LINK_OUT, LINK_TO_NOTHING, LINKED_FOLDER, UNREADABLE_FOLDER))


def is_junk(name: str) -> bool:
    """Returns whether a folder is hidden or was added by a system, so that no image in it counts.

    Args:
        name: Its name.
    """
    return name.startswith(".") or name.lower() in JUNK_FOLDERS


def normalize(name: str) -> str:
    """Returns a name as it is compared: in Unicode's composed form.

    Folders that were unpacked on a Mac have decomposed names, which look the same.

    Args:
        name: Of a class, a file or a column.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class Listing:
    """The images of a recipe, in an order that depends on their names only.

    Attributes:
        classes: Class names in the order of the model's outputs; none where outputs are no classes.
        files: The images.
        fractions: Splits still to be sampled from the files without a split, and their shares.
        ignored: Files beside them that are not listed as images; hidden files are not counted.
        columns: Names of the targets of each file.
        stratify: The column that splits are stratified by; "" for none.
        excluded: Images that are left out by name.
    """

    classes: tuple[str, ...]
    files: tuple[SourceFile, ...]
    fractions: Mapping[str, float] = field(default_factory=dict)
    ignored: tuple[Ignored, ...] = ()
    columns: tuple[str, ...] = ("label",)
    stratify: str = "label"
    excluded: Excluded = Excluded()

    def count(self) -> dict[str | None, dict[str, int]]:
        """Returns the number of images of each class in each split (None: fractions decide).

        Where splits are not stratified all images are counted together, under "".
        """
        counts: dict[str | None, dict[str, int]] = {}
        place = self.columns.index(self.stratify) if self.stratify else None
        names = ("",) if place is None else self.classes
        for file in self.files:
            of_split = counts.setdefault(file.split, dict.fromkeys(names, 0))
            of_split["" if place is None else file.targets[place]] += 1
        return counts

    def describe_ignored(self) -> str:
        """Describes ignored files, as "3 files ignored: 2 .txt, 1 linked folder", or ""."""
        return describe_ignored(self.ignored)


def find_fractions(
    files: Sequence[SourceFile], values: Mapping[str, object]
) -> tuple[tuple[SourceFile, ...], dict[str, float]]:
    """Clears the split of training images if a fraction of them belongs in other splits.

    Args:
        files: Listed images.
        values: The recipe's fields validation and test: a fraction, a folder, or None.

    Returns:
        The files, and the fraction of each split that no file was listed for.
    """
    listed = {file.split for file in files}
    fractions = {
        split: value
        for split, value in values.items()
        if isinstance(value, float) and split not in listed
    }
    split = None if fractions else "train"
    return tuple(
        file._replace(split=split) if file.split in (None, "train") else file for file in files
    ), fractions


def describe_ignored(ignored: Sequence[Ignored]) -> str:
    """Returns how many files were ignored for each reason, or "".

    Args:
        ignored: The files.
    """
    if not ignored:
        return ""
    counts = collections.Counter(entry.reason for entry in ignored)
    reasons = sorted(counts, key=lambda reason: (-counts[reason], reason))[:5]
    kinds = ", ".join(f"{counts[reason]} {reason}" for reason in reasons)
    text = f"{len(ignored)} file{'s' if len(ignored) > 1 else ''} ignored: {kinds}"
    for reason, advice in _ADVICE.items():
        links = [entry.path for entry in ignored if entry.reason == reason]
        named = ", ".join(os.path.join(*path.split(os.sep)[-2:]) for path in links[:_NAMED_LINKS])
        more = f" and {len(links) - _NAMED_LINKS} more" if len(links) > _NAMED_LINKS else ""
        text += f"; {advice} {named}{more}" if links else ""
    return text


def name_some(names: Iterable[str]) -> str:
    """Returns names joined by commas: the first MAX_NAMED, and how many more there are.

    Args:
        names: The names.
    """
    names = list(names)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def count_threads() -> int:
    """Returns how many images to decode at a time; each may need half a gigabyte for that."""
    return min(8, os.cpu_count() or 1)


def is_below(path: str, folder: str) -> bool:
    """Returns whether a real path lies in a folder, or is the folder.

    Args:
        path: A path without links.
        folder: The folder, perhaps with links.
    """
    real = os.path.realpath(folder)
    return os.path.commonpath([path, real]) == real


def suffixes_of(channels: int) -> Set[str]:
    """Returns the endings of names of images: arrays are images but for RGB.

    Args:
        channels: Channels of the images.
    """
    return IMAGE_SUFFIXES if channels == RGB else ARRAY_SUFFIXES


def suffix_of(path: str) -> str:
    """Returns the ending of a file's name in lower case, as ".jpg"; "" for none.

    Args:
        path: The file.
    """
    return os.path.splitext(path)[1].lower()
