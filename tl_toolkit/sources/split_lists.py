"""Lists of names that say which images are of which split, as PASCAL VOC has them."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.errors import Problem
from tl_toolkit.sources.listing import FieldProblem, name_some, normalize
from tl_toolkit.sources.table_rows import SPLIT_WORDS, refuse_file

__all__ = ["read_split_lists"]

_FIELD = "data.masks.lists"


def read_split_lists(folder: Path) -> tuple[dict[str, str], list[FieldProblem]]:
    """Returns the split of each name, and why lists cannot be used.

    A list is a text file that is called after a split, as train.txt or val.txt, with a name and no
    suffix in each line; of a second word, as VOC has it in lists of one class, nothing is taken.

    Args:
        folder: Holds the lists; other files in it are left alone.
    """
    expected = "A folder with train.txt, and val.txt if you like, is expected, a name a line."
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".txt")
    except OSError as error:
        what = f"{str(folder)!r} cannot be read: {error.strerror}"
        return {}, [("data.masks.lists", Problem(_FIELD, what, expected))]
    splits: dict[str, str] = {}
    twice: list[str] = []
    for file in files:
        split = SPLIT_WORDS.get(file.stem.lower())
        if split is None:
            continue
        try:
            if fault := refuse_file(file):
                raise ValueError(fault)
            lines = file.read_text("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            what = f"{str(file)!r} cannot be read: {getattr(error, 'strerror', None) or error}"
            return {}, [("data.masks.lists", Problem(_FIELD, what, expected))]
        for name in (normalize(line.split()[0]) for line in lines if line.strip()):
            if splits.setdefault(name, split) != split:
                twice.append(f"{name} ({splits[name]}, {split})")
    if twice:
        what = f"{str(folder)!r} lists images in two splits: {name_some(twice)}"
        return {}, [("data.masks.lists", Problem(_FIELD, what, "Each image belongs in one split."))]
    if "train" not in splits.values():
        what = f"{str(folder)!r} lists no image to train from"
        return {}, [("data.masks.lists", Problem(_FIELD, what, expected))]
    return splits, []
