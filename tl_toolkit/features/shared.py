"""Shards in an object store that hosts share: each maps copies of its own into memory.

    <address>/<key>/<shard>/{images.npy, 0.npy, ..., whole.json}

`whole.json` is written last: what a killed writer has left is no shard, and nobody reads it.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tl_toolkit.catalog.published import is_offline
from tl_toolkit.features.shards import DRAFT_PREFIX, IMAGES, SENT, WHOLE, is_whole
from tl_toolkit.runs.lock_files import is_lock
from tl_toolkit.runs.locks import hold
from tl_toolkit.sources.stores import Facts, copy_object, fetch_object, list_objects, put_object

__all__ = ["SharedShards"]

_FIELD = "features.location"


class SharedShards:
    """The shards of one key in an object store; offline those of this host are all.

    Args:
        address: The store's address and the key.
        folder: Receives copies of the shards; holds those of this host.
        has_room: Returns whether so many bytes more may be copied to this host.

    Attributes:
        address: As above.
    """

    def __init__(self, address: str, folder: Path, has_room: Callable[[int], bool]) -> None:
        self.address = address
        self._folder = folder
        self._has_room = has_room
        self._images: dict[str, frozenset[bytes]] = {}

    def pull(self, missing: Sequence[bytes]) -> None:
        """Copies the shards that hold any of these images, and gives the store what it lacks.

        The store lacks a shard if the process that made it was killed before it had sent it.

        Args:
            missing: SHA-256 of the content of images that this host has no features of.

        Raises:
            DataError: The store cannot be read or written.
        """
        if is_offline():
            return
        files = self._list()
        whole = {name for name, of_shard in files.items() if WHOLE in of_shard}
        own = {path.name for path in self._folder.glob("[!.]*/")}
        for name in own & whole:
            _mark(self._folder / name)
        for name in sorted(own - whole):
            if is_whole(self._folder / name):
                self.push(self._folder / name)
        wanted = set(missing)
        for name in sorted(whole - own):
            if wanted & self._read_images(name, files[name]):
                wanted -= self._copy(name, files[name])

    def push(self, shard: Path) -> None:
        """Sends a shard to the store, its description last.

        Args:
            shard: Its folder on this host.

        Raises:
            DataError: The store cannot be written.
        """
        if is_offline():
            return
        names = {path.name for path in shard.iterdir() if not is_lock(path.name)} - {SENT}
        for name in sorted(names, key=lambda name: (name == WHOLE, name)):
            put_object(_FIELD, f"{self.address}/{shard.name}/{name}", shard / name)
        _mark(shard)

    def _list(self) -> dict[str, dict[str, Facts]]:
        """Returns the files of each shard that is there, whole or not."""
        files: dict[str, dict[str, Facts]] = {}
        for path, facts in list_objects(f"{_FIELD}: {self.address}", self.address).items():
            shard, _, name = path.partition("/")
            files.setdefault(shard, {})[name] = facts
        return files

    def _read_images(self, shard: str, files: Mapping[str, Facts]) -> frozenset[bytes]:
        if shard not in self._images:
            images: frozenset[bytes] = frozenset()
            with contextlib.suppress(FileNotFoundError, KeyError, ValueError):
                address = f"{self.address}/{shard}/{IMAGES}"
                encoded = fetch_object(address, files[IMAGES].size)
                digests = np.load(io.BytesIO(encoded), allow_pickle=False)
                images = frozenset(digest.tobytes() for digest in digests)
            self._images[shard] = images
        return self._images[shard]

    def _copy(self, shard: str, files: Mapping[str, Facts]) -> frozenset[bytes]:
        """Copies a shard to this host if it is whole and there is room; returns its images."""
        if not self._has_room(sum(facts.size for facts in files.values())):
            return frozenset()
        copied: frozenset[bytes] = frozenset()
        with contextlib.suppress(OSError), self._draft() as draft:  # who writes there says why
            for name in files:
                if "/" not in name:
                    copy_object(f"{self.address}/{shard}/{name}", draft / name)
            if is_whole(draft):
                _mark(draft)
                copied = self._images[shard]
                with contextlib.suppress(OSError):  # another process was faster
                    draft.rename(self._folder / shard)
        return copied

    @contextlib.contextmanager
    def _draft(self) -> Iterator[Path]:
        draft = self._folder / f"{DRAFT_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        draft.mkdir(parents=True)
        try:
            with hold(draft):
                yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _mark(shard: Path) -> None:
    """Notes that the store holds a shard."""
    with contextlib.suppress(OSError):  # it counts as not sent, and is not deleted then
        if not (shard / SENT).exists():
            (shard / SENT).touch()
