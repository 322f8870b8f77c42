"""Verdicts of earlier scans by content, in the database of known files."""

from __future__ import annotations

from pathlib import Path

from tl_toolkit.sources.known_files import CacheTable

__all__ = ["Verdicts"]

_VERDICTS = ("good", "convertible", "broken")


class Verdicts(CacheTable):
    """The verdicts of one version of the decoder.

    Args:
        folder: The cache folder.
        version: The versions that a verdict depends on: of the decoder and of libraries.
    """

    def __init__(self, folder: Path, version: str) -> None:
        super().__init__(
            folder,
            "verdicts (version TEXT, sha256 TEXT, verdict TEXT NOT NULL, reason TEXT NOT NULL, "
            "PRIMARY KEY (version, sha256)) WITHOUT ROWID",
        )
        self._version = version

    def get(self, sha256: str) -> tuple[str, str] | None:
        """Returns (verdict, reason) of an image, or None if it is not known.

        Args:
            sha256: The digest of its bytes.
        """
        row = self.new.get(sha256)
        if row is not None:
            return row[2], row[3]
        query = "SELECT verdict, reason FROM verdicts WHERE version = ? AND sha256 = ?"
        stored = self.read(query, self._version, sha256)
        if stored is None or stored[0] not in _VERDICTS or not isinstance(stored[1], str):
            return None
        return stored[0], stored[1]

    def add(self, sha256: str, verdict: str, reason: str) -> None:
        """Remembers a verdict; may be called by several threads.

        Args:
            sha256: The digest of the image's bytes.
            verdict: good, convertible or broken.
            reason: Why, for a verdict that is not good.
        """
        self.new[sha256] = (self._version, sha256, verdict, reason)
