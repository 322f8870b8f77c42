"""What was found out about images before, kept by their content."""

from __future__ import annotations

import json
from pathlib import Path

from tl_toolkit.errors import OutputError
from tl_toolkit.runs import write_atomically


class Verdicts:
    """The verdicts of one version of the decoder, in one JSON file.

    A cache may be lost but may do no harm: a damaged file counts as empty, a folder that cannot be
    written is let be, and of two writers at a time one may lose what it found.

    Args:
        folder: Where the file lies.
        version: What a verdict hangs on beside the content: decoder and libraries.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self._path = folder / f"verdicts-{version}.json"
        self._known = self._read()
        self._new: dict[str, tuple[str, str]] = {}

    def get(self, sha256: str) -> tuple[str, str] | None:
        """Returns (verdict, reason) of an image, or None if it is not known."""
        return self._known.get(sha256) or self._new.get(sha256)

    def add(self, sha256: str, verdict: str, reason: str) -> None:
        """Remembers a verdict; may be called by several threads."""
        self._new[sha256] = (verdict, reason)

    def save(self) -> None:
        """Writes what is new together with what others wrote meanwhile."""
        if not self._new:
            return
        verdicts = {**self._read(), **self._new}
        try:
            write_atomically(self._path, json.dumps(verdicts, sort_keys=True))
        except OutputError:
            return

    def _read(self) -> dict[str, tuple[str, str]]:
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                str(sha256): _check(verdict, reason) for sha256, (verdict, reason) in stored.items()
            }
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}


def _check(verdict: object, reason: object) -> tuple[str, str]:
    if verdict not in ("good", "convertible", "broken") or not isinstance(reason, str):
        raise ValueError(f"no verdict: {verdict!r}, {reason!r}")
    return str(verdict), reason
