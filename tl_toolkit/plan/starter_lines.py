"""Lines of a first recipe: paths, classes, tables, and how a text is written in YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tl_toolkit.recipe.remote import is_address, name_source
from tl_toolkit.recipe.yaml_reader import read_scalar
from tl_toolkit.sources.image_folders import METADATA
from tl_toolkit.sources.listing import is_junk
from tl_toolkit.sources.tables import field_of_table

__all__ = [
    "FRACTION",
    "NAMED_COUNTS",
    "SPLIT_NAMES",
    "find_splits",
    "name_after",
    "quote",
    "remark",
    "write_classes",
    "write_paths",
    "write_table",
]

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}

NAMED_COUNTS = 20
"""Classes that are named; the others are counted."""

FRACTION = 0.2
"""Of the images, for validation."""


def write_paths(folders: Mapping[str, Path], place: Path, of_what: str) -> list[str]:
    """Returns lines of `data` for folders of splits.

    Args:
        folders: Folders by split, `train` among them.
        place: Folder that the recipe will be in.
        of_what: What a fraction is taken of, as "each class".
    """
    paths = {split: quote(_relative(path, place)) for split, path in folders.items()}
    lines = [f"  train: {paths['train']}"]
    if "validation" in paths:
        lines.append(f"  validation: {paths['validation']}")
    else:
        lines.append(remark(f"  validation: {FRACTION}", f"this fraction of {of_what}"))
    if "test" in paths:
        lines.append(f"  test: {paths['test']}")
    return lines


def write_classes(classes: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """Returns the line of `data` that leaves classes out, with the reasons above it.

    Args:
        classes: The classes to use.
        left_out: A sentence for each class that is not used; none writes no line.
    """
    if not left_out:
        return []
    reasons = [f"  # {words}" for words in left_out[:NAMED_COUNTS]]
    names = ", ".join(map(quote, classes))
    return [*reasons, remark(f"  classes: [{names}]", "or add images, and remove this line")]


def write_table(
    table: Path, place: Path, of_what: str, *, splits: Collection[str | None]
) -> list[str]:
    """Returns lines of `data` for a table.

    Args:
        table: The file or folder.
        place: Folder that the recipe will be in.
        of_what: As in `write_paths`.
        splits: The splits of its images. If validation is one of them no fraction is taken.
    """
    source = f"  {field_of_table(table)}: {quote(_relative(table, place))}"
    if "validation" in splits:
        return [source]
    return [source, remark(f"  validation: {FRACTION}", f"this fraction of {of_what}")]


def name_after(table: Path) -> Path:
    """Returns the folder, or a path of the name, that a recipe for a table is named after.

    Args:
        table: The file or folder.
    """
    if table.is_dir():
        return table
    return table.parent if table.name in METADATA else table.with_suffix("")


def remark(line: str, text: str) -> str:
    """Returns a line followed by a remark.

    Args:
        line: Line of a recipe.
        text: The remark.
    """
    return f"{line:<32} # {text}"


def quote(text: str) -> str:
    """Returns a path or a name as YAML: plain if it can be, else in double quotes.

    Args:
        text: The path or name.
    """
    is_plain = re.fullmatch(r"[A-Za-z0-9./_-]*[A-Za-z/_][A-Za-z0-9./_-]*", text)
    if is_plain and isinstance(read_scalar(text), str):
        return text
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(letter: str) -> str:
    """Returns a character as YAML has it between double quotes."""
    if letter in '"\\':
        return f"\\{letter}"
    if letter == " " or (letter.isprintable() and letter != "\N{BYTE ORDER MARK}"):
        return letter
    return f"\\U{ord(letter):08x}"


def _relative(path: Path, place: Path) -> str:
    """Returns a relative path if the recipe and its data are near, so that both can be moved.

    Of what stands for an address it is that.
    """
    if is_address(address := name_source(str(path))):
        return address
    relative = os.path.relpath(path, place)
    if relative.startswith("../.."):
        return str(path.absolute())
    return f"./{relative}" if relative.startswith("~") else relative


def find_splits(data_dir: Path) -> dict[str, Path]:
    """Returns the folders that are named after splits, else the folder itself for training.

    Args:
        data_dir: The folder.
    """
    below = {entry.name.lower(): entry for entry in sorted(data_dir.iterdir())
             if entry.is_dir() and not is_junk(entry.name)}  # fmt: skip
    folders = {
        split: below[name]
        for split, names in SPLIT_NAMES.items()
        for name in reversed(names)
        if name in below
    }
    return folders if "train" in folders else {"train": data_dir}
