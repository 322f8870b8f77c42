"""What the cache of this host holds of feature stores on object stores."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from tl_toolkit.features.shards import SENT, Shard, delete_shard
from tl_toolkit.features.store import FeatureCache
from tl_toolkit.sources.copies import list_mirrors

__all__ = ["StoreCopies", "list_store_copies"]

_KEY = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class StoreCopies:
    """The shards of a feature store on an object store that lie on this host.

    Attributes:
        address: Of the store.
        folder: The folder that they lie in.
        sent: Those that the store holds, too.
        unsent: Those that it may lack: this host computed them, offline or until it was cut off.
    """

    address: str
    folder: Path
    sent: tuple[Shard, ...]
    unsent: tuple[Shard, ...]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(shard.size for shard in (*self.sent, *self.unsent))

    def clear(self) -> tuple[int, int]:
        """Deletes those that the store holds, too; returns how many there were, and their bytes.

        What another process is writing stays.
        """
        for shard in self.sent:
            delete_shard(shard.path)
        FeatureCache(self.folder).sweep()
        for key in {shard.path.parent for shard in self.sent}:
            with contextlib.suppress(OSError):  # not empty
                key.rmdir()
        return len(self.sent), sum(shard.size for shard in self.sent)


def list_store_copies() -> list[StoreCopies]:
    """Returns the copies of each feature store on an object store, by its address."""
    found = []
    for address, folder in list_mirrors().items():
        # A folder of images may hold as many folders as images, which take long to look into.
        if not any(_KEY.fullmatch(path.name) for path in folder.glob("[!.]*")):
            continue
        sent: list[Shard] = []
        unsent: list[Shard] = []
        for shard in FeatureCache(folder).shards():
            (sent if (shard.path / SENT).exists() else unsent).append(shard)
        if sent or unsent:
            found.append(StoreCopies(address, folder, tuple(sent), tuple(unsent)))
    return found
