"""What was found out about images before: verdicts by content, and contents by file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tl_toolkit.errors import OutputError
from tl_toolkit.runs.files import write_atomically

_YOUNG = 2_000_000_000  # nanoseconds


class _Memory:
    """A dictionary in one JSON file.

    A cache may be lost but may do no harm: a damaged file counts as empty, a folder that cannot be
    written is let be, and of two writers at a time one may lose what it found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new: dict[str, Any] = {}
        self._known = self._read()

    def save(self) -> None:
        """Writes what is new together with what others wrote meanwhile."""
        if not self._new:
            return
        try:
            write_atomically(self._path, json.dumps({**self._read(), **self._new}, sort_keys=True))
        except OutputError:
            return

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(key): self._check(value) for key, value in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def _check(self, value: Any) -> Any:
        raise NotImplementedError


class Verdicts(_Memory):
    """The verdicts of one version of the decoder.

    Args:
        folder: Where the file lies.
        version: What a verdict hangs on beside the content: decoder and libraries.
    """

    def __init__(self, folder: Path, version: str) -> None:
        super().__init__(folder / f"verdicts-{version}.json")

    def get(self, sha256: str) -> tuple[str, str] | None:
        """Returns (verdict, reason) of an image, or None if it is not known."""
        return self._known.get(sha256) or self._new.get(sha256)

    def add(self, sha256: str, verdict: str, reason: str) -> None:
        """Remembers a verdict; may be called by several threads."""
        self._new[sha256] = (verdict, reason)

    def _check(self, value: Any) -> tuple[str, str]:
        verdict, reason = value
        if verdict not in ("good", "convertible", "broken") or not isinstance(reason, str):
            raise ValueError(f"no verdict: {verdict!r}, {reason!r}")
        return str(verdict), reason


class KnownFiles(_Memory):
    """The contents of files that have not been touched since they were read.

    As in `make` and Git, a file with the same place on the disk, size and time of change is taken
    to be the same. One that changed a moment before it was read is not remembered: it could change
    again within the clock's resolution.

    Args:
        folder: Where the file lies.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "files.json")

    def get(self, path: str, stat: os.stat_result) -> str | None:
        """Returns the SHA-256 of a file's bytes, or None if it is not known."""
        found = self._known.get(os.path.abspath(path))
        return found[-1] if found and found[:-1] == _identify(stat) else None

    def add(self, path: str, stat: os.stat_result, sha256: str) -> None:
        """Remembers a file as it was when `stat` was taken, before it was read."""
        if time.time_ns() - stat.st_mtime_ns > _YOUNG:
            self._new[os.path.abspath(path)] = [*_identify(stat), sha256]

    def _check(self, value: Any) -> list[Any]:
        *identity, sha256 = value
        if len(identity) != 4 or not isinstance(sha256, str):
            raise ValueError(f"no file: {value!r}")
        return [*identity, sha256]


def _identify(stat: os.stat_result) -> list[int]:
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns]
