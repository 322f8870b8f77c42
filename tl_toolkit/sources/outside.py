"""Files that a table names outside its own folder."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["OutsideCheck"]


class OutsideCheck:
    """Says whether a file lies outside a folder, or a link leads there.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._root = os.path.join(os.path.realpath(folder), "")
        self._folders: dict[str, bool] = {}

    def __call__(self, path: str) -> bool:
        """Returns whether a file lies outside.

        Args:
            path: The file.
        """
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
