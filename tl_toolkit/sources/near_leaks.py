"""Images that look like one of another split, as far as an earlier check of the data knows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.sources.known_files import CacheTable, KnownFiles, encode_path
from tl_toolkit.sources.leaks import Leak, split_of
from tl_toolkit.sources.listing import SourceFile
from tl_toolkit.sources.objects import stat_image

__all__ = ["NearPairs", "find_known_near"]

_VERSION = "1"
"""Changes with what counts as near, so that pairs that were found before are not used again."""


class NearPairs(CacheTable):
    """Pairs of images that look the same, by the digests of their bytes: one of all sets.

    Args:
        folder: The cache folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            "near (version TEXT, first TEXT, second TEXT, PRIMARY KEY (version, first, second)) "
            "WITHOUT ROWID",
        )

    def add(self, first: str, second: str) -> None:
        """Remembers a pair.

        Args:
            first: SHA-256 of one of the images.
            second: That of the other.
        """
        pair = (first, second) if first < second else (second, first)
        self.new[pair] = (_VERSION, *pair)

    def list_pairs(self) -> list[tuple[str, str]]:
        """Returns all pairs."""
        query = "SELECT first, second FROM near WHERE version = ? ORDER BY first, second"
        return [(first, second) for first, second in self.read_all(query, _VERSION)]

    def list_files(self) -> list[tuple[bytes, str]]:
        """Returns the paths of files that are in a pair, with their digests as last seen."""
        query = (
            "SELECT path, sha256 FROM files WHERE sha256 IN (SELECT first FROM near WHERE version "
            "= ? UNION SELECT second FROM near WHERE version = ?) ORDER BY path"
        )
        return [(path, sha256) for path, sha256 in self.read_all(query, _VERSION, _VERSION)]


def find_known_near(files: Sequence[SourceFile], *, cache_dir: Path | None = None) -> list[Leak]:
    """Returns images that `tltool data check` found to look like one of another split, each once.

    Pairs join to groups, through images too that are not listed. No image is read: a file that it
    never saw, or that changed since, is in no group.

    Args:
        files: Listed images; one without a split counts as of "train".
        cache_dir: Where it keeps what it found; by default TL_TOOLKIT_CACHE or the user's cache.
    """
    folder = cache_dir or default_cache_dir()
    table = NearPairs(folder)
    seen = table.list_files()
    if not seen:
        return []
    listed = {encode_path(file.path): file for file in files}
    known, groups = KnownFiles(folder), _group(table.list_pairs())
    first: dict[str, tuple[SourceFile, str]] = {}
    leaks = []
    for path, sha256 in seen:
        file = listed.get(path)
        group = groups.get(sha256)
        if file is None or group is None or not _is_same(file.path, sha256, known):
            continue
        earlier, digest = first.setdefault(group, (file, sha256))
        if split_of(earlier) != split_of(file) and digest != sha256:
            leaks.append(
                Leak(file.path, split_of(file), earlier.path, split_of(earlier), is_near=True)
            )
    return leaks


def _group(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns one digest of its group for each digest that is in a pair."""
    parents: dict[str, str] = {}

    def find(digest: str) -> str:
        while (parent := parents.setdefault(digest, digest)) != digest:
            parents[digest] = parents[parent]
            digest = parents[digest]
        return digest

    for first, second in pairs:
        parents[find(first)] = find(second)
    return {digest: find(digest) for digest in list(parents)}


def _is_same(path: str, sha256: str, known: KnownFiles) -> bool:
    try:
        return known.get(path, stat_image(path)) == sha256
    except OSError:
        return False
