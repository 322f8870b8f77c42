"""Looking at a weight file without TensorFlow: what it really is, and which layers it holds.

A file that is no weight file is told by its first bytes; HDF5 is opened only when it is whole.
Nothing in a file is trusted: links out of it, data stored elsewhere and sizes that it cannot hold
are refused before a tensor is read, and no model in it is ever rebuilt.
"""

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tl_toolkit.catalog.records import WeightFile
from tl_toolkit.errors import OutputError, Problem, WeightsError
from tl_toolkit.runs.files import default_cache_dir, write_atomically

__all__ = [
    "SavedWeight",
    "WeightsInfo",
    "cache_path",
    "hash_file",
    "inspect_weights",
    "recall_weights",
]

Kind = Literal["layers", "model", "weights.h5"]

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HEAD_BYTES = 4096
_MAX_GROUPS = 100_000
# Trained tensors hardly compress: a file that claims more than this is after the memory.
_MAX_EXPANSION = 32

_EXPECTED = "Expected an HDF5 file of Keras weights (.h5)."


@dataclass(frozen=True)
class SavedWeight:
    """A tensor in a file.

    Attributes:
        name: Its name there, as "conv1/kernel:0".
        shape: Its shape.
        key: Where it lies in the file.
    """

    name: str
    shape: tuple[int, ...]
    key: str


@dataclass(frozen=True, eq=False)
class WeightsInfo:
    """What a weight file holds.

    Attributes:
        path: The file.
        kind: "layers" as the files of keras.applications, "model" as `model.save("x.h5")`,
            "weights.h5" as `model.save_weights("x.weights.h5")`.
        layers: Tensors by layer name, layers without any left out. In the order of the network,
            except in a "weights.h5", which does not record it.
    """

    path: Path
    kind: Kind
    layers: Mapping[str, tuple[SavedWeight, ...]]

    @property
    def is_ordered(self) -> bool:
        """Whether the layers come in the order of the network."""
        return self.kind != "weights.h5"


def cache_path(file: WeightFile) -> Path:
    """Returns where a published file lies or will lie: $KERAS_HOME or ~/.keras, then models/."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / file.name


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Returns the digest of a file's bytes, hexadecimal; `algorithm` is a name of hashlib's."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def inspect_weights(path: str | Path) -> WeightsInfo:
    """Returns which layers a file holds, without reading a tensor.

    Raises:
        WeightsError: It is missing, damaged, no HDF5 file, or not safe to read. The text says what
            it is; for all but a whole HDF5 file that takes no more than its first 4 KiB.
    """
    path = Path(path)
    head = _read_head(path)
    offset = _find_superblock(head)
    if offset is None:
        what, hint = _recognise(path, head)
        raise _error(path, what, hint)
    _check_length(path, head[offset:])
    return _inspect_hdf5(path)


def recall_weights(path: str | Path) -> WeightsInfo:
    """As `inspect_weights`, but remembers what a whole file holds until the file changes.

    For validation, which must not import the HDF5 library each time; loading looks into the file.

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
    key = repr((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode()
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


def _error(path: Path, what: str, hint: str = "") -> WeightsError:
    return WeightsError(Problem(str(path), what, _EXPECTED, hint))


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        saved_model = (path / "saved_model.pb").exists()
        what = "is a SavedModel" if saved_model else "is a folder"
        raise _error(path, what, "the path of a file in it" if not saved_model else "")
    if path.exists() and not path.is_file():
        raise _error(path, "is no regular file")
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise _error(path, "is not there", "model.weights=PATH, or weights: random") from error
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror or error}") from error
    if not head:
        raise _error(path, "is empty (0 bytes)", "fetch it again")
    return head


# ------------------------------------------------------------------ what it is, when it is not HDF5


def _recognise(path: Path, head: bytes) -> tuple[str, str]:
    """Returns what a file without an HDF5 header is, and what to do about it."""
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return _describe_lfs_pointer(head), "git lfs pull"
    if head.startswith(b"PK\x03\x04"):
        return _describe_zip(path)
    if head.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "is a Python pickle, which can run code and is never opened", ""
    if head.startswith(b"\x1f\x8b"):
        return "is compressed with gzip", f"gunzip {path.name}"
    if _is_safetensors(path, head):
        return "is a safetensors file", "load it into the Keras model and model.save('weights.h5')"
    text = _as_text(head)
    if text is None:
        return f"is of an unknown kind (it begins with {head[:8].hex(' ')})", ""
    if re.match(r"(?i)\s*<(!doctype|html|\?xml|error)", text):
        return f"is an error page saved as weights: {_quote(_page_text(text))}", "fetch it again"
    return f"is a text file: {_quote(text)}", "fetch the file that it speaks of"


def _describe_lfs_pointer(head: bytes) -> str:
    size = re.search(rb"^size (\d{1,15})$", head, flags=re.MULTILINE)
    real = f" of {int(size.group(1)):,} bytes" if size else ""
    return f"is a Git LFS pointer: the file{real} that it stands for was never fetched"


def _describe_zip(path: Path) -> tuple[str, str]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "is a damaged zip archive", "fetch it again"
    if "config.json" in names and any(name.startswith("model.weights") for name in names):
        hint = f"keras.saving.load_model({path.name!r}).save_weights('{path.stem}.weights.h5')"
        return "is a whole Keras model (.keras), not a weight file", hint
    if any(name.endswith("/data.pkl") for name in names):
        return "is a PyTorch file", ""
    return f"is a zip archive (of {_quote(', '.join(names))})", f"unzip {path.name}"


def _is_safetensors(path: Path, head: bytes) -> bool:
    if len(head) < 10 or head[8:9] != b"{":
        return False
    return int.from_bytes(head[:8], "little") <= path.stat().st_size


def _as_text(head: bytes) -> str | None:
    """Returns the head as text, None when it is not."""
    try:
        # A character may be cut in two where the head ends.
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char.isspace() for char in text) else None


def _page_text(text: str) -> str:
    """Returns what a page says: its message or title, else all its words."""
    for tag in ("Message", "title", "h1"):
        match = re.search(rf"(?is)<{tag}[^>]*>(.*?)</{tag}>", text)
        if match:
            return match.group(1)
    return re.sub(r"<[^>]*>", " ", text)


def _quote(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= 80 else words[:77] + "...")


# --------------------------------------------------------------------------- is the HDF5 file whole


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
        raise _error(path, "is a damaged HDF5 file (its header is broken)", "fetch it again")
    if superblock[13 if version < 2 else 9] != 8:
        return
    expected = struct.unpack_from("<Q", superblock, place)[0]
    actual = path.stat().st_size
    if actual < expected:
        what = f"is cut off: {actual:,} of {expected:,} bytes"
        raise _error(path, what, "fetch it again; the download or copy broke off")


# ------------------------------------------------------------------------- what the HDF5 file holds


def _inspect_hdf5(path: Path) -> WeightsInfo:
    import h5py  # Slow to import, and not needed for any of the errors above.

    try:
        with h5py.File(path, "r") as file:
            info = _read_info(path, file)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise _error(path, f"is a damaged HDF5 file ({error})", "fetch it again") from error
    return info


def _read_info(path: Path, file: Any) -> WeightsInfo:
    kind: Kind = "layers"
    root, prefix = file, ""
    if "layer_names" not in file.attrs and "model_weights" in file:
        kind, root, prefix = "model", _follow(path, file, "model_weights"), "model_weights/"
    names = _read_names(root, "layer_names")
    if names:
        layers = {name: tuple(_read_layer(path, root, prefix, name)) for name in names}
    else:
        kind = "weights.h5"
        layers = dict(_walk_vars(path, file))
    layers = {name: weights for name, weights in layers.items() if weights}
    if not layers:
        groups = _quote(", ".join(sorted(file)) or "nothing")
        raise _error(path, f"is an HDF5 file, but it holds no Keras weights (it holds {groups})")
    _check_sizes(path, layers)
    return WeightsInfo(path, kind, layers)


def _read_names(group: Any, attribute: str) -> list[str]:
    """Reads a list of names; Keras splits a long one into `layer_names0`, `layer_names1`, ..."""
    if attribute in group.attrs:
        parts = [attribute]
    else:
        parts = []
        while f"{attribute}{len(parts)}" in group.attrs:
            parts.append(f"{attribute}{len(parts)}")
    values = [value for part in parts for value in group.attrs[part]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _read_layer(path: Path, root: Any, prefix: str, layer: str) -> Iterator[SavedWeight]:
    group = _follow(path, root, layer)
    for name in _read_names(group, "weight_names"):
        shape = _read_shape(path, _follow(path, group, name))
        yield SavedWeight(name, shape, f"{prefix}{layer}/{name}")


def _walk_vars(path: Path, file: Any) -> Iterator[tuple[str, tuple[SavedWeight, ...]]]:
    """Yields the layers of a `.weights.h5`: each has a group `vars` that carries the layer's name.

    The optimizer's state and the seeds of random layers are no weights and are passed over.
    """
    stack = [("", file)]
    seen = 0
    while stack:
        place, group = stack.pop()
        seen += 1
        if seen > _MAX_GROUPS:
            raise _error(path, f"holds more than {_MAX_GROUPS:,} groups and is not read")
        for name in sorted(group, reverse=True):
            if name.startswith(("optimizer", "seed_generator", "_")):
                continue
            child = _follow(path, group, name)
            if name == "vars":
                layer = str(child.attrs.get("name", place.strip("/")))
                yield layer, tuple(_read_vars(path, f"{place}/vars", child))
            elif hasattr(child, "keys"):
                stack.append((f"{place}/{name}", child))


def _read_vars(path: Path, place: str, group: Any) -> Iterator[SavedWeight]:
    for name in sorted(group, key=lambda name: (len(name), name)):
        yield SavedWeight(name, _read_shape(path, _follow(path, group, name)), f"{place}/{name}")


def _follow(path: Path, group: Any, name: str) -> Any:
    """Returns a member of a group, by a name that may hold slashes; links elsewhere are refused."""
    import h5py

    for part in name.strip("/").split("/"):
        link = group.get(part, getlink=True)
        if link is None:
            raise KeyError(f"{name!r} is not there")
        if not isinstance(link, h5py.HardLink):
            raise _error(path, f"holds a link to somewhere else ({part!r}) and is not read")
        group = group[part]
    return group


def _read_shape(path: Path, dataset: Any) -> tuple[int, ...]:
    if dataset.external or dataset.is_virtual:
        raise _error(path, f"keeps {dataset.name!r} in another file and is not read")
    if dataset.dtype.kind not in "fiu":
        raise _error(path, f"holds {dataset.name!r}, which is no tensor of numbers")
    return tuple(int(n) for n in dataset.shape)


def _check_sizes(path: Path, layers: Mapping[str, tuple[SavedWeight, ...]]) -> None:
    claimed = 0
    for weights in layers.values():
        for weight in weights:
            count = 4
            for n in weight.shape:
                count *= n
            claimed += count
    actual = path.stat().st_size
    if claimed > _MAX_EXPANSION * actual + 2**20:
        what = f"claims {claimed:,} bytes of tensors in a file of {actual:,} and is not read"
        raise _error(path, what)
