"""The registry of published weight files, by name; and whether they may be fetched."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Literal

from tl_toolkit.catalog.lookup import ARCHITECTURES, Architecture, read_variants
from tl_toolkit.catalog.pins import find_digest
from tl_toolkit.catalog.records import Value, WeightFile
from tl_toolkit.catalog.weight_files import cache_path
from tl_toolkit.errors import Problem

__all__ = [
    "PublishedFile",
    "describe_absent",
    "count_bytes",
    "find_owner",
    "find_licence",
    "going_offline",
    "is_offline",
    "list_published",
    "spell_choice",
    "spell_size",
]

_OFFLINE = "TL_TOOLKIT_OFFLINE"
_NO = ("", "0", "off", "false", "no")

_LICENCES = {
    # As the documentation of keras.applications states them; those of ConvNeXt by its repository.
    "vgg": "CC BY 4.0 (VGG, Oxford)",
    "pixelnet": "CC BY 4.0 (VGG, Oxford)",
    "resnet": "MIT (Kaiming He)",
    "resnet_v2": "BSD (Facebook)",
    "inception_v3": "Apache 2.0 (TensorFlow)",
    "inception_resnet_v2": "Apache 2.0 (TensorFlow)",
    "xception": "MIT (Keras)",
    "mobilenet": "Apache 2.0 (TensorFlow)",
    "mobilenet_v2": "Apache 2.0 (TensorFlow)",
    "densenet": "BSD 3-clause (Zhuang Liu)",
    "nasnet": "Apache 2.0 (TensorFlow)",
    "convnext": "MIT (Facebook)",
}


def find_licence(architecture: Architecture) -> str:
    """Returns the licence of an architecture's published weights; "" where Keras names none.

    Args:
        architecture: Its record.
    """
    return _LICENCES.get(architecture.family, "")


@dataclass(frozen=True)
class PublishedFile:
    """A published file, and what there is of it on this machine.

    Attributes:
        architecture: The record of a base that it fits.
        file: Its record: name, address, digest.
        path: Where it lies, or will lie.
        state: "here", "partial" if a download of it was interrupted, or "absent".
        bytes: Its size: that of the file that is here, or the published one; None if neither.
        least_bytes: Bytes of its weights, which it is larger than; None where they are unknown.
        checked_by: "SHA-256" or "MD5" if that is published, "pin" if it has that of its first use;
            "" if it will be pinned when it is first used.
        licence: "" where Keras names none.
    """

    architecture: Architecture
    file: WeightFile
    path: Path
    state: Literal["here", "partial", "absent"]
    bytes: int | None
    least_bytes: int | None
    checked_by: str
    licence: str


def list_published(architectures: Sequence[Architecture] = ()) -> list[PublishedFile]:
    """Returns the published files of some architectures, and what there is of them here.

    Args:
        architectures: Their records; none for all.
    """
    return [
        _describe(architecture, file)
        for architecture in architectures or ARCHITECTURES.values()
        for file in architecture.weight_files
    ]


def _describe(architecture: Architecture, file: WeightFile) -> PublishedFile:
    path = cache_path(file)
    part = path.with_name(f"{path.name}.part")
    is_here = path.is_file()
    digest = find_digest(file, path)
    names = {"sha256": "SHA-256", "md5": "MD5"}
    by = "" if digest is None else "pin" if digest.pin else names[digest.algorithm]
    return PublishedFile(
        architecture,
        file,
        path,
        state="here" if is_here else "partial" if part.exists() else "absent",
        bytes=path.stat().st_size if is_here else file.bytes,
        least_bytes=count_bytes(architecture, file),
        checked_by=by,
        licence=find_licence(architecture),
    )


@cache
def _find_owners() -> Mapping[str, tuple[Architecture, WeightFile]]:
    owners: dict[str, tuple[Architecture, WeightFile]] = {}
    for architecture in ARCHITECTURES.values():
        for file in architecture.weight_files:
            owners.setdefault(file.name, (architecture, file))
    return owners


def find_owner(name: str) -> tuple[Architecture, WeightFile] | None:
    """Returns the first architecture that has a published file, and its record.

    Args:
        name: The file's name.
    """
    return _find_owners().get(name)


def spell_choice(architecture: Architecture, file: WeightFile) -> str:
    """Returns what `tltool weights` takes for a file, as `mobilenet alpha=0.25`.

    Args:
        architecture: The base's record.
        file: One of its files.
    """
    words = [architecture.name]
    for name, value in file.when.items():
        if value != architecture.arguments[name].default:
            words.append(f"{name}={_spell(value)}")
    if file.image_size != architecture.default_size:
        words.append(f"--input-size {file.image_size}")
    return " ".join(words)


def _spell(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def count_bytes(architecture: Architecture, file: WeightFile) -> int | None:
    """Returns the bytes of the weights in a file, in float32; None where they are unknown.

    The file is larger: by little if its tensors are large, else by up to a megabyte.

    Args:
        architecture: The base's record.
        file: One of its files.
    """
    changed = {
        name: value
        for name, value in file.when.items()
        if value != architecture.arguments[name].default
    }
    shapes = next((s for values, s in read_variants(architecture.name) if values == changed), None)
    if shapes is None:
        return None
    return 4 * sum(prod(shape) for weights in shapes.values() for shape in weights)


def spell_size(architecture: Architecture, file: WeightFile) -> str:
    """Returns the size of a file in words, as "2.1 MB", or "over 94.3 MB" by its weights.

    Args:
        architecture: The base's record.
        file: One of its files.
    """
    least = count_bytes(architecture, file)
    if file.bytes is None:
        return "of unknown size" if least is None else f"over {least / 1e6:.1f} MB"
    return f"{file.bytes / 1e6:.1f} MB"


def is_offline() -> bool:
    """Returns whether TL_TOOLKIT_OFFLINE keeps this process from opening a connection."""
    return os.environ.get(_OFFLINE, "").lower() not in _NO


@contextlib.contextmanager
def going_offline() -> Iterator[None]:
    """Opens no connection in the block, in this process and in those that it starts."""
    before = os.environ.get(_OFFLINE)
    os.environ[_OFFLINE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_OFFLINE]
        else:
            os.environ[_OFFLINE] = before


def describe_absent(file: WeightFile, path: Path, reason: str = "") -> Problem:
    """Describes that a published file is not here, and how it gets here from another machine.

    Args:
        file: Its record.
        path: Where it was looked for.
        reason: Why it was not fetched; by default that nothing is, offline.
    """
    reason = reason or "offline nothing is fetched (--offline, or TL_TOOLKIT_OFFLINE)"
    hint = "fetch it elsewhere and put it at the path above (KERAS_HOME moves that folder)"
    owner = find_owner(file.name)
    if owner is not None:
        choice = spell_choice(*owner)
        hint = (
            f"tltool weights pull {choice} --out DIR on a machine with a network, then here "
            f"tltool weights import DIR/{file.name} --as {choice}"
        )
    return Problem(
        str(path),
        f"is not there, and {reason}",
        f"The file is published at {file.url}",
        f"{hint}; or model.weights=PATH",
    )
