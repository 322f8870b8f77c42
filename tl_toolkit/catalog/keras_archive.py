"""Reads the HDF5 file inside a whole Keras model (.keras); the model in it is never rebuilt."""

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["ARCHIVE_START", "is_keras_archive", "open_hdf5", "read_layer_names"]

ARCHIVE_START = b"PK\x03\x04"

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_MAX_EXPANSION = 32  # as in catalog.hdf5; Keras stores weights without compression
_MAX_CONFIG = 64 << 20


def is_keras_archive(path: Path) -> bool:
    """Returns whether a file is a zip archive with Keras weights in it.

    Args:
        path: The file.
    """
    try:
        with open(path, "rb") as file:
            if not file.read(4) == ARCHIVE_START:
                return False
        with zipfile.ZipFile(path) as archive:
            return _WEIGHTS in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Opens an HDF5 file, or the one in a Keras archive, for reading.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is compressed more than any weights are.
    """
    import h5py  # Slow to import.

    if not is_keras_archive(path):
        with h5py.File(path, "r") as file:
            yield file
        return
    content = io.BytesIO(_read_member(path, _WEIGHTS, _MAX_EXPANSION * path.stat().st_size))
    with h5py.File(content, "r") as file:
        yield file


def _read_member(path: Path, name: str, limit: int) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(name).file_size
            if size > limit:
                raise ValueError(f"{name} in it claims {size:,} bytes")
            return archive.read(name)
    except (zipfile.BadZipFile, EOFError) as error:
        raise OSError(f"damaged zip archive: {error}") from error


def read_layer_names(path: Path) -> dict[str, str]:
    """Returns the names of the layers in a Keras archive, by where Keras writes their weights.

    Keras numbers the layers of a model by their classes: the second Conv2D is "conv2d_1", and
    "functional/conv2d_1" in a nested model. Keras 2 writes no names beside the weights.

    Args:
        path: The archive.

    Returns:
        Names joined by slashes, as "mobilenet/conv1", by place; none if they cannot be read.
    """
    names: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        config = json.loads(_read_member(path, _CONFIG, _MAX_CONFIG))
        _name_layers(config["config"]["layers"], "", "", names)
    return names


def _name_layers(layers: list[Any], place: str, parent: str, names: dict[str, str]) -> None:
    used: dict[str, int] = {}
    for layer in layers:
        kind = _to_snake_case(layer["class_name"])
        count = used[kind] = used.get(kind, -1) + 1
        here = f"{place}{kind}_{count}" if count else f"{place}{kind}"
        names[here] = name = f"{parent}{layer['config']['name']}"
        if isinstance(layer["config"].get("layers"), list):
            _name_layers(layer["config"]["layers"], f"{here}/", f"{name}/", names)


def _to_snake_case(name: str) -> str:
    """Returns the name of a class as Keras writes it into files: "depthwise_conv2d"."""
    name = re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
