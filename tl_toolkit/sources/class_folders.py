"""Folders per class that hold a table of something else: which of the two is meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tl_toolkit.sources.folder_checks import may_hold_images
from tl_toolkit.sources.image_folders import find_metadata
from tl_toolkit.sources.listing import IMAGE_SUFFIXES, is_junk
from tl_toolkit.sources.table_rows import SPLIT_WORDS
from tl_toolkit.sources.tables import read_header

__all__ = ["prefers_folders"]


def prefers_folders(source: Path, *labels: str) -> bool:
    """Returns whether a folder is one of class folders, whatever tables lie in it.

    Shards of Parquet or TFRecord beside class folders of images are features or the like, and so
    is a metadata file that names no classes.

    Args:
        source: The folder; a file is none.
        labels: Columns that name classes in a metadata file.
    """
    if not source.is_dir() or not _holds_classes(source):
        return False
    named = read_header(source, expected="")[0] if find_metadata(source) else ()
    return not set(labels) & set(named)


def _holds_classes(folder: Path) -> bool:
    """Returns whether at least two folders in it, or in a folder of a split, hold images."""
    below = list(_list_folders(folder))
    splits = [entry for entry in below if entry.name.lower() in SPLIT_WORDS]
    classes = [entry for entry in below if entry not in splits]
    return _has_two(classes) or any(_has_two(_list_folders(split)) for split in splits)


def _has_two(folders: Iterable[Path]) -> bool:
    holding = (entry for entry in folders if may_hold_images(str(entry), IMAGE_SUFFIXES))
    return next(holding, None) is not None and next(holding, None) is not None


def _list_folders(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    yield from (entry for entry in entries if entry.is_dir() and not is_junk(entry.name))
