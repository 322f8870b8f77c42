"""The versions of a model in a folder: numbered folders, of which the highest is served."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.events import Handler, message, warning
from tl_toolkit.serving.worker import Worker

if TYPE_CHECKING:
    from tl_toolkit.serving.saved_model import ServedModel

__all__ = ["Stamp", "Versions", "list_versions", "read_stamp"]

GRAPH = "saved_model.pb"

POLL_SECONDS = 1.0
"""Between two readings of a watched folder."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, number, size and time of each file of a version."""

Load = Callable[[Path, int], "ServedModel"]


def list_versions(folder: Path) -> dict[int, Path]:
    """Returns the folders of a model's versions, the highest first.

    Args:
        folder: The folder that holds them; names that are no numbers are left out.
    """
    paths = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name.isascii() and path.name.isdecimal() and (path / GRAPH).is_file():
                paths[int(path.name)] = path
    return dict(sorted(paths.items(), reverse=True))


def read_stamp(path: Path) -> Stamp:
    """Returns what tells the files of a version from those that were there before.

    Args:
        path: The folder of the version.
    """
    stamps = []
    with contextlib.suppress(OSError):  # it is being replaced
        for file in sorted(path.rglob("*")):
            status = file.stat()
            stamps.append((str(file), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(stamps)


@dataclass
class Versions:
    """The version that is served, and those that take its place.

    Attributes:
        folder: The folder of all versions.
        load: Loads one, ready to answer.
        report: Receives what is loaded, and what cannot be.
        current: The version that is served.
        loading: The number of one that is being loaded, or None.
        failed: Why others could not be loaded, by their numbers.
    """

    folder: Path
    load: Load
    report: Handler
    current: ServedModel | None = None
    loading: int | None = None
    failed: dict[int, str] = field(default_factory=dict)
    _stamp: Stamp = ()
    _refused: set[tuple[int, Stamp]] = field(default_factory=set)

    def load_first(self) -> None:
        """Loads the highest version.

        Raises:
            DataError: There is none, or it cannot be loaded.
        """
        versions = list_versions(self.folder)
        if not versions:
            raise DataError(
                Problem(
                    where=str(self.folder),
                    what=f"holds no numbered folder with a {GRAPH}",
                    expected="A folder is served by its versions, as export/saved_model of a run.",
                    hint="tltool export RUN --to saved_model",
                )
            )
        number, path = next(iter(versions.items()))
        stamp = read_stamp(path)
        try:
            self.current = self.load(path, number)
        except Exception as error:  # a damaged file raises whatever its reader meets
            raise DataError(
                Problem(
                    str(path),
                    f"cannot be loaded: {_first_line(error)}",
                    hint="tltool export RUN --to saved_model, which writes it anew",
                )
            ) from error
        self._stamp = stamp

    @property
    def model(self) -> ServedModel:
        """The version that is served."""
        if self.current is None:
            raise RuntimeError("no version is loaded yet")
        return self.current

    async def watch(self) -> None:
        """Loads each version that takes the place of the one that is served, for ever.

        The highest one does, also where a higher one was removed, and files of the same number that
        were replaced do. One that is being written is waited for: it is loaded when two readings of
        it are equal. What cannot be loaded is left aside until its files change.
        """
        before: tuple[int, Stamp] | None = None
        worker = Worker("versions")
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                newer = await worker.run(self._find)
                if newer is not None and newer[:2] == before:
                    await self._replace(*newer, worker)
                before = None if newer is None else newer[:2]
        finally:
            worker.close()

    def _find(self) -> tuple[int, Stamp, Path] | None:
        """Returns the highest version that can be loaded, unless it is served."""
        for number, path in list_versions(self.folder).items():
            stamp = read_stamp(path)
            if (number, stamp) in self._refused:
                continue
            is_current = number == self.model.version and stamp == self._stamp
            return None if is_current else (number, stamp, path)
        return None

    async def _replace(self, number: int, stamp: Stamp, path: Path, worker: Worker) -> None:
        self.loading = number
        try:
            loaded = await worker.run(self.load, path, number)
        except Exception as error:  # a damaged file raises whatever its reader meets
            self.failed[number] = _first_line(error)
            self._refused.add((number, stamp))
            self.report(
                warning(
                    f"version {number} cannot be loaded, {self.model.version} stays: "
                    f"{_first_line(error)}"
                )
            )
            return
        finally:
            self.loading = None
        self.failed.pop(number, None)
        self.current, self._stamp = loaded, stamp
        self.report(message(f"version {number} answers now"))
        del loaded
        await worker.run(gc.collect)  # the functions of the old one refer to each other

    def describe(self) -> Mapping[int, tuple[str, str]]:
        """Returns state and error of each version, as TensorFlow Serving words them."""
        states = {number: ("END", text) for number, text in self.failed.items()}
        states[self.model.version] = ("AVAILABLE", "")
        if self.loading is not None and self.loading != self.model.version:
            states[self.loading] = ("LOADING", "")
        return dict(sorted(states.items(), reverse=True))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
