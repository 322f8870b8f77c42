"""Shards: files with the features of some images, written once and then only read.

    <shard>/{whole.json, images.npy, 0.npy, 1.npy, ...}

`images.npy` holds the SHA-256 of each image's content, the numbered files a tensor of the cut each,
with an example for each image. `whole.json` holds the sizes of all files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tl_toolkit.runs.lock_files import is_lock

__all__ = [
    "DRAFT_PREFIX",
    "IMAGES",
    "SENT",
    "WHOLE",
    "Shard",
    "ShardWriter",
    "StoredExamples",
    "delete_shard",
    "describe_shard",
    "is_whole",
    "map_shard",
    "read_images",
]

DRAFT_PREFIX = ".draft-"
"""Prefix of the names of folders that are no shards yet, or no longer."""

SENT = ".sent"
"""An empty file in a shard that an object store holds, too: it may be deleted without loss."""

WHOLE = "whole.json"
IMAGES = "images.npy"
"""Names of the files that hold the sizes of all files, and the digests of the images."""


@dataclass(frozen=True)
class Shard:
    """A shard as it lies on disk.

    Attributes:
        path: Its folder.
        size: Bytes of all its files.
        images: How many images it holds the features of.
        used: When it was last read or written, in seconds since 1970.
        made_by: A description of the prefix that computed it: base and cut.
        data: Where its images come from; "" if an older version wrote it.
    """

    path: Path
    size: int
    images: int
    used: float
    made_by: str
    data: str = ""


class StoredExamples:
    """The features of chosen images, mapped into memory from one or more shards.

    Args:
        shards: The tensors of each shard.
        shard: For each example, the index of its shard.
        row: For each example, its place in the shard.
    """

    def __init__(
        self, shards: Sequence[list[np.ndarray]], shard: np.ndarray, row: np.ndarray
    ) -> None:
        self._shards = shards
        self._shard = shard
        self._row = row

    @property
    def example_bytes(self) -> int:
        """Bytes of one example, all its tensors together, as float32."""
        return sum(4 * int(np.prod(tensor.shape[1:])) for tensor in self._shards[0])

    def take(self, indices: np.ndarray) -> list[np.ndarray]:
        """Returns examples by their places.

        Args:
            indices: int (n,), in any order.

        Returns:
            float32 (n, ...) of each tensor.
        """
        shard, row = self._shard[indices], self._row[indices]
        if len(self._shards) == 1:
            return [tensor[row].astype(np.float32, copy=False) for tensor in self._shards[0]]
        examples = [
            np.empty((len(indices), *tensor.shape[1:]), np.float32) for tensor in self._shards[0]
        ]
        for number, tensors in enumerate(self._shards):
            (places,) = np.nonzero(shard == number)
            for target, tensor in zip(examples, tensors, strict=True):
                target[places] = tensor[row[places]]
        return examples


class ShardWriter:
    """Appends examples to the files of a draft.

    Plain files, not mapped ones: a disk that is full then raises an error instead of a signal.

    Args:
        folder: The draft, an empty folder.
        count: How many examples will be written.
        shapes: Shapes of each tensor, without the batch.
        dtype: float32 or float16.
    """

    def __init__(
        self, folder: Path, count: int, shapes: Sequence[tuple[int, ...]], dtype: str
    ) -> None:
        self._folder = folder
        self._count = count
        self._written = 0
        self._dtype = np.dtype(dtype)
        self._files: list[IO[bytes]] = []
        for number, shape in enumerate(shapes):
            file = open(folder / f"{number}.npy", "wb")
            self._files.append(file)
            header = {"descr": self._dtype.str, "fortran_order": False, "shape": (count, *shape)}
            np.lib.format.write_array_header_1_0(file, header)

    def add(self, tensors: Sequence[np.ndarray]) -> None:
        """Appends examples.

        Args:
            tensors: (n, ...) of each tensor.
        """
        for file, tensor in zip(self._files, tensors, strict=True):
            data: Any = np.ascontiguousarray(tensor, self._dtype)
            file.write(data)
        self._written += len(tensors[0])

    def finish(self, images: Sequence[bytes], made_by: str, data: str = "") -> None:
        """Completes the shard, and forces all of it to the disk.

        Args:
            images: SHA-256 of the content of each image, in the order of the examples.
            made_by: A description of the prefix that computed them.
            data: Where the images come from.

        Raises:
            ValueError: The number of examples is not the one that was announced.
        """
        if self._written != self._count:
            raise ValueError(f"expected {self._count} examples, got {self._written}")
        self.close()
        digests = np.frombuffer(b"".join(images), np.uint8).reshape(len(images), -1)
        np.save(self._folder / IMAGES, digests)
        files = [path for path in self._folder.iterdir() if not is_lock(path.name)]
        sizes = {path.name: path.stat().st_size for path in files}
        about = {"made_by": made_by, "data": data, "images": self._count, "sizes": sizes}
        (self._folder / WHOLE).write_text(json.dumps(about))
        # After a power cut a name may be there before the bytes are: those must come first.
        for path in (*files, self._folder / WHOLE):
            with open(path, "rb+") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Closes the files; may be called again."""
        for file in self._files:
            file.close()


def read_images(path: Path) -> list[bytes]:
    """Returns the SHA-256 of the images of a shard, in the order of its examples.

    Args:
        path: The shard's folder.

    Raises:
        OSError: The file is gone.
        ValueError: The file is torn.
    """
    try:
        return [image.tobytes() for image in np.load(path / IMAGES)]
    except EOFError as error:  # torn from its first byte on
        raise ValueError(f"{path} is torn") from error


def describe_shard(path: Path) -> Shard:
    """Reads the description of a shard, without its tensors.

    Args:
        path: The shard's folder.

    Raises:
        OSError: It is gone.
        ValueError: It is torn.
    """
    about = _read_whole(path)
    try:
        size = sum(about["sizes"].values())
        used = (path / WHOLE).stat().st_mtime
        return Shard(
            path, size, about["images"], used, about["made_by"], str(about.get("data", ""))
        )
    except KeyError as error:
        raise ValueError(f"{path} is torn") from error


def map_shard(path: Path) -> list[np.ndarray]:
    """Maps the tensors of a shard into memory and marks it as used.

    Args:
        path: The shard's folder.

    Returns:
        An array for each tensor. It stays readable when the shard is deleted.

    Raises:
        OSError: It is gone or torn.
    """
    if not is_whole(path):
        raise OSError(f"{path} is not whole")
    tensors = len(_read_whole(path)["sizes"]) - 1
    with contextlib.suppress(OSError):  # a read-only cache is used too
        os.utime(path / WHOLE)
    return [np.load(path / f"{number}.npy", mmap_mode="r") for number in range(tensors)]


def is_whole(path: Path) -> bool:
    """Returns whether all files of a shard are there, in the sizes that they were written in.

    Args:
        path: The shard's folder.
    """
    try:
        sizes = _read_whole(path)["sizes"]
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def delete_shard(path: Path) -> None:
    """Removes a shard in one step, and only then deletes its files.

    Args:
        path: The shard's folder; nothing happens if it is gone.
    """
    gone = path.with_name(f"{DRAFT_PREFIX}{os.getpid()}-{path.name}")
    with contextlib.suppress(OSError):
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _read_whole(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((path / WHOLE).read_text())
    return about
