"""Paths of what commands and recipes name by addresses on object stores, up to date."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from tl_toolkit.errors import DataError, Problem, WeightsError
from tl_toolkit.recipe.remote import (
    find_object_fault,
    find_source_fault,
    is_address,
    mirror_of,
    mirror_of_file,
    mirror_of_source,
)
from tl_toolkit.sources.class_folders import prefers_folders
from tl_toolkit.sources.objects import ObjectPath, as_path
from tl_toolkit.sources.remote import copy_files, copy_packed, list_remote

__all__ = ["find_model_file", "find_run_files", "find_source", "find_weights_file"]


def find_source(source: str | os.PathLike[str], where: str) -> Path:
    """Returns a folder or table by its path; of an address what stands for it, up to date.

    An address is that of a file by its ending (.csv, .json, .parquet and the like), unless there is
    none of that name; else of a folder. Files with images in them are copied, unless they lie
    beside class folders.

    Args:
        source: A path or an address.
        where: Its name in messages.

    Raises:
        DataError: As in `list_remote`.
    """
    path = as_path(source)
    if not isinstance(path, ObjectPath):
        return path
    address = f"{path}/" if os.fspath(source).endswith("/") else str(path)
    if fault := find_source_fault(address):
        raise DataError(Problem(where, fault))
    place = _bring(address, where)
    if place.is_dir() and not prefers_folders(place, "label", "labels"):
        copy_packed(where, place)
    return place


def _bring(address: str, where: str) -> Path:
    place, folder = mirror_of_source(address), mirror_of(address)
    try:
        list_remote({where: place})
    except DataError:
        if place == folder:
            raise
        # A folder of such a name, as Spark writes it: paths that were typed have lost a slash.
        with contextlib.suppress(DataError):
            list_remote({where: folder})
            return folder
        raise
    return place


def find_run_files(
    field: str,
    address: str,
    needed: Collection[str],
    optional: Collection[str],
    *,
    again: bool = True,
) -> Path:
    """Returns the folder with copies of a run's files, up to date.

    Args:
        field: Its name in messages.
        address: The run's folder on an object store.
        needed: Names of files in it.
        optional: Names of files that it may have.
        again: As in `list_remote`.

    Raises:
        DataError: One that is needed is missing, or cannot be read.
        OutputError: The cache cannot be written.
    """
    folder = mirror_of(address)
    copy_files(field, folder, needed, optional, again=again)
    return folder


def find_model_file(address: str) -> Path:
    """Returns the path of the copy of a model on an object store; one of this process is kept.

    Args:
        address: Its file.

    Raises:
        DataError: There is no such object, or it cannot be read.
        OutputError: The cache cannot be written.
    """
    place = mirror_of_file(address)
    list_remote({"model.base.model": place}, again=False)
    return place


def find_weights_file(weights: str, *, again: bool = True) -> Path:
    """Returns the path of a weight file; of an address that of its copy, up to date.

    Args:
        weights: A path or an address.
        again: As in `list_remote`.

    Raises:
        WeightsError: There is no such object, or it cannot be read.
        OutputError: The cache cannot be written.
    """
    if not is_address(weights):
        return Path(weights)
    if fault := find_object_fault(weights):
        raise WeightsError(Problem("model.weights", fault))
    place = mirror_of_file(weights)
    try:
        list_remote({"model.weights": place}, again=again)
    except DataError as error:
        where = f"model.weights: {weights}"
        raise WeightsError([replace(it, where=where) for it in error.problems]) from error
    return place
