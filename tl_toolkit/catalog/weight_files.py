"""Inspects a weight file without TensorFlow: what it really is, and which layers it holds.

A file that is no weight file is recognized by its first bytes; HDF5 is opened only when it is
whole. Nothing in a file is trusted: links out of it, data stored elsewhere and sizes that it cannot
hold are refused before a tensor is read, and no model in it is ever rebuilt.
"""

import contextlib
import hashlib
import json
import os
import struct
from pathlib import Path

from tl_toolkit.catalog.foreign_files import HEAD_BYTES, describe_foreign_file
from tl_toolkit.catalog.hdf5 import SavedWeight, WeightsInfo, build_error, inspect_hdf5
from tl_toolkit.catalog.keras_archive import is_keras_archive
from tl_toolkit.catalog.records import WeightFile
from tl_toolkit.errors import OutputError
from tl_toolkit.runs.files import default_cache_dir, write_atomically

__all__ = [
    "SavedWeight",
    "WeightsInfo",
    "cache_path",
    "inspect_weights",
    "recall_weights",
]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def cache_path(file: WeightFile) -> Path:
    """Returns where a published file lies or will lie: $KERAS_HOME or ~/.keras, then models/.

    Args:
        file: Its record.
    """
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / file.name


def inspect_weights(path: str | Path) -> WeightsInfo:
    """Returns which layers a file holds, without reading a tensor.

    Args:
        path: The file.

    Raises:
        WeightsError: It is missing, damaged, no HDF5 file or Keras archive, or not safe to read.
            The text says what it is; for all but a whole file the first 4 KiB are enough.
    """
    path = Path(path)
    head = _read_head(path)
    offset = _find_superblock(head)
    if offset is None and is_keras_archive(path):
        return inspect_hdf5(path)
    if offset is None:
        what, hint = describe_foreign_file(path, head)
        raise build_error(path, what, hint)
    _check_length(path, head[offset:])
    return inspect_hdf5(path)


def recall_weights(path: str | Path) -> WeightsInfo:
    """Inspects a file as `inspect_weights` does, and remembers its layers until it changes.

    To open a file of many layers takes 0.2 s, and validation need not import the HDF5 library.

    Args:
        path: The file.

    Raises:
        WeightsError: As `inspect_weights`.
    """
    path = Path(path)
    head = _read_head(path)
    offset = _find_superblock(head)
    if offset is None:
        return inspect_weights(path)
    _check_length(path, head[offset:])
    status = path.stat()
    # The time of status change reveals an edit in place that kept the time of modification.
    identity = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    key = repr((str(path.resolve()), *identity)).encode()
    note = default_cache_dir() / "weights" / f"{hashlib.sha256(key).hexdigest()}.json"
    try:
        kind, layers = json.loads(note.read_text(encoding="utf-8"))
        return WeightsInfo(
            path,
            kind,
            {
                layer: tuple(SavedWeight(name, tuple(shape), key) for name, shape, key in weights)
                for layer, weights in layers.items()
            },
        )
    except (OSError, ValueError, TypeError):  # not known yet, or a damaged note
        info = inspect_weights(path)
    with contextlib.suppress(OutputError):  # a cache may be lost
        layers = {
            layer: [(weight.name, weight.shape, weight.key) for weight in weights]
            for layer, weights in info.layers.items()
        }
        write_atomically(note, json.dumps([info.kind, layers]))
    return info


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        saved_model = (path / "saved_model.pb").exists()
        what = "is a SavedModel" if saved_model else "is a folder"
        raise build_error(path, what, "the path of a file in it" if not saved_model else "")
    if path.exists() and not path.is_file():
        raise build_error(path, "is no regular file")
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise build_error(path, "is not there", "model.weights=PATH, or weights: random") from error
    except OSError as error:
        raise build_error(path, f"cannot be read: {error.strerror or error}") from error
    if not head:
        raise build_error(path, "is empty (0 bytes)", "fetch it again")
    return head


def _find_superblock(head: bytes) -> int | None:
    # The format lets a user block of 512, 1024, 2048, ... bytes come first.
    places = (0, 512, 1024, 2048)
    return next((place for place in places if head.startswith(_HDF5_MAGIC, place)), None)


def _check_length(path: Path, superblock: bytes) -> None:
    """Refuses a file that is shorter than its own header says.

    Raises:
        WeightsError: It was cut off. (HDF5 File Format Specification, section II.A.)
    """
    version = superblock[8] if len(superblock) > 8 else 255
    # Where the end-of-file address stands, when addresses have 8 bytes as Keras's always do.
    place = {0: 40, 1: 44, 2: 28, 3: 28}.get(version)
    if place is None or len(superblock) < place + 8:
        raise build_error(path, "is a damaged HDF5 file (its header is broken)", "fetch it again")
    if superblock[13 if version < 2 else 9] != 8:
        return
    expected = struct.unpack_from("<Q", superblock, place)[0]
    actual = path.stat().st_size
    if actual < expected:
        what = f"is cut off: {actual:,} of {expected:,} bytes"
        raise build_error(path, what, "fetch it again; the download or copy broke off")
