"""Files and objects that a table names outside its own folder."""

from __future__ import annotations

import os
from pathlib import Path

from tl_toolkit.recipe.remote import is_address, name_object

__all__ = ["OutsideCheck"]


class OutsideCheck:
    """Says whether a file or an object lies outside a folder, or a link leads there.

    Args:
        folder: The folder; or the address of one on an object store, or what stands for it.
    """

    def __init__(self, folder: Path | str) -> None:
        self._address = name_object(str(folder))
        self._root = os.path.join(os.path.realpath(folder), "")
        self._folders: dict[str, bool] = {}

    def __call__(self, path: str) -> bool:
        """Returns whether a file or an object lies outside.

        Args:
            path: The file or the address.
        """
        if is_address(path):
            return not path.startswith(f"{self._address}/")
        if "\0" in path:
            return False  # no file has such a name
        folder = os.path.dirname(path)
        if folder not in self._folders:
            real = os.path.join(os.path.realpath(folder), "")
            self._folders[folder] = not real.startswith(self._root)
        is_outside = self._folders[folder]
        if os.path.islink(path):
            is_outside = not os.path.realpath(path).startswith(self._root)
        return is_outside
