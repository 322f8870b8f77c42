"""Where files and objects lie that a table or annotations name."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

from tl_toolkit.errors import DataError
from tl_toolkit.recipe.remote import find_object_fault
from tl_toolkit.sources.objects import is_address, list_beside
from tl_toolkit.sources.stores import Facts

__all__ = ["Presence", "join"]


def join(folder: str, name: str) -> str:
    """Returns the path or the address of what a name in a folder means.

    Args:
        folder: A path or an address.
        name: Relative to it; a whole path or address stays.
    """
    if is_address(name):
        return name.rstrip("/")
    if not is_address(folder) or name.startswith("/"):
        return os.path.normpath(os.path.join(folder, name))
    scheme, _, place = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(f'{place}/{name}')}"


class Presence:
    """Says whether files and objects are there, and lists each folder of a store once for it.

    Args:
        below: Address of a folder below which a name may hold any sign; "" for none. Elsewhere no
            store is asked for what may hold credentials.
        is_strict: Whether a folder that cannot be read is an error; else it holds nothing.
    """

    def __init__(self, below: str = "", *, is_strict: bool = True) -> None:
        self._below = f"{below}/"
        self._is_strict = is_strict
        self._listed: dict[str, Mapping[str, Facts]] = {}

    def __call__(self, path: str) -> bool:
        """Returns whether a file is there, or an object; offline by the last listing.

        Args:
            path: The file or the address.

        Raises:
            DataError: The store cannot be read, and that is an error.
        """
        if not is_address(path):
            return os.path.isfile(path)
        if not path.startswith(self._below) and find_object_fault(path):
            return False
        folder, _, name = path.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = self._list(folder)
        return name in self._listed[folder]

    def _list(self, folder: str) -> Mapping[str, Facts]:
        try:
            return list_beside(folder)
        except DataError:
            if self._is_strict:
                raise
            return {}
