"""A file or folder that a run writes: its place, and what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, overload

__all__ = ["Artifact"]


class _HasPath(Protocol):
    @property
    def path(self) -> Path: ...


class Artifact:
    """One line of a run's list of artifacts.

    As an attribute of a folder it is a path, as one of the folder's class the artifact itself:
    `RunFolder(path).metrics` is a Path, `RunFolder.metrics.about` says what is in it.

    Args:
        relative: Its path below the run's folder, with slashes.
        about: What it holds, as a sentence.

    Attributes:
        name: Name of the attribute.
    """

    def __init__(self, relative: str, about: str) -> None:
        self.name = ""
        self.relative = relative
        self.about = about
        self.__doc__ = about  # what `help` and editors show

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, folder: None, owner: type) -> Artifact: ...

    @overload
    def __get__(self, folder: _HasPath, owner: type) -> Path: ...

    def __get__(self, folder: _HasPath | None, owner: type) -> Artifact | Path:
        return self if folder is None else folder.path / self.relative

    def __set__(self, folder: object, value: object) -> None:
        raise AttributeError(f"{self.name}: the place of an artifact is fixed")

    def __repr__(self) -> str:
        return f"Artifact({self.relative!r})"
