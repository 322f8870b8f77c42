"""The record of a recipe's base: of the catalog, or of a Keras model of the user's own.

A record of the catalog costs nothing. That of a model is read off its graph, which needs Keras; the
module for it is imported by name, so that recipes with a base of the catalog do not need Keras.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.lookup import Architecture, find_architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.recipe.schema import OwnBase, Recipe
from tl_toolkit.runs.files import hash_file
from tl_toolkit.runtime import start_tensorflow
from tl_toolkit.sources.remote import list_remote

__all__ = ["describe_file", "find_base", "find_record", "open_own_bases"]

_KEPT = 16
_records: dict[tuple[str, str, tuple[int, int] | None, int], Architecture] = {}


def find_base(recipe: Recipe) -> Architecture:
    """Returns the record of a recipe's base; a model of the user's own is read once.

    Args:
        recipe: The recipe.

    Raises:
        RecipeError: There is no such architecture, or the model cannot be a base.
        WeightsError: The model's file is missing or damaged.
        DataError: It lies on an object store, which cannot be read.
    """
    base = recipe.model.base
    if isinstance(base, OwnBase):
        list_remote({"model.base.model": base.model}, again=False)
        data = recipe.data
        return describe_file(base.model, base.preprocessing, data.image_size, data.channels)
    return find_architecture(base)


def describe_file(
    path: Path,
    preprocessing: str = "raw",
    image_size: tuple[int, int] | None = None,
    channels: int = RGB,
) -> Architecture:
    """Returns the record of a Keras model in a file; the copy of a known file is not read.

    Args:
        path: The file.
        preprocessing: Name of a pixel rule.
        image_size: (height, width) of the images; by default the model's own.
        channels: Channels of the images.

    Raises:
        RecipeError: The model cannot be a base.
        WeightsError: The file is missing or damaged.
    """
    if not path.is_file():
        return _describe(
            path, preprocessing, image_size, channels
        )  # raises the error that explains it
    status = path.stat()
    sha256 = _hash(path, status.st_mtime_ns, status.st_size, status.st_ino)
    key = sha256, preprocessing, image_size, channels
    if key not in _records:
        while len(_records) >= _KEPT:
            del _records[next(iter(_records))]
        open_own_bases().try_own_model(path)
        _records[key] = _describe(path, preprocessing, image_size, channels)
    record = _records[key]
    return replace(record, file=str(path), settings={**record.settings, "path": str(path)})


def find_record(name: str, image_size: tuple[int, int] | None = None) -> Architecture:
    """Returns the record of an architecture, or of a Keras model by its file.

    Args:
        name: A name in the catalog, or a path that ends in .keras.
        image_size: As in `describe_file`.

    Raises:
        RecipeError: There is no such architecture, or the model cannot be a base.
        WeightsError: The file is missing or damaged.
    """
    if name.endswith(".keras"):
        return describe_file(Path(name).absolute(), image_size=image_size)
    return find_architecture(name)


def open_own_bases() -> Any:
    """Imports `tl_toolkit.architectures.own`, which needs TensorFlow."""
    return _open("own")


@lru_cache(maxsize=_KEPT)
def _hash(path: Path, mtime_ns: int, size: int, inode: int) -> str:
    """Returns the SHA-256 of a file; the other arguments say whether it is still the same."""
    return hash_file(path)


def _describe(
    path: Path, preprocessing: str, image_size: tuple[int, int] | None, channels: int
) -> Architecture:
    records = _open("own_record")
    record: Architecture = records.describe_own_base(
        path, preprocessing=preprocessing, image_size=image_size, channels=channels
    )
    return record


def _open(module: str) -> Any:
    start_tensorflow()
    return import_module(f"tl_toolkit.architectures.{module}")
