"""Lists the layers in an HDF5 file of Keras weights; no tensor is read, no model rebuilt.

Nothing in a file is trusted: links out of it, data stored elsewhere and sizes that it cannot hold
are refused.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tl_toolkit.catalog.foreign_files import quote
from tl_toolkit.catalog.keras_archive import is_keras_archive, open_hdf5, read_layer_names
from tl_toolkit.errors import Problem, WeightsError

__all__ = ["SavedWeight", "WeightsInfo", "build_error", "find_hdf5_fault", "inspect_hdf5"]

Kind = Literal["layers", "model", "weights.h5", "counted"]

_CONTAINERS = ("_layer_checkpoint_dependencies", "layers")
"""Groups that hold the layers of a model: of Keras 2, and of Keras 3."""

_MAX_GROUPS = 100_000
# Trained tensors hardly compress: a file that claims more than this is after the memory.
_MAX_EXPANSION = 32

_EXPECTED = "Expected an HDF5 file of Keras weights (.h5), or a whole model (.keras)."


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
        kind: "layers" as the files of keras.applications, "model" as `model.save("x.h5")`, or
            `model.save("x.keras")` of Keras 2,
            "weights.h5" as `model.save_weights("x.weights.h5")`; "counted" as Keras 2 did that,
            with kinds and numbers for names ("conv2d_1"). Both also in a whole model (.keras).
        layers: Tensors by layer name, layers without any left out. In the order of the network,
            except in a "weights.h5" or "counted", which do not record it.
    """

    path: Path
    kind: Kind
    layers: Mapping[str, tuple[SavedWeight, ...]]

    @property
    def is_ordered(self) -> bool:
        """Whether the layers come in the order of the network."""
        return self.kind not in ("weights.h5", "counted")


def build_error(path: Path, what: str, hint: str = "") -> WeightsError:
    """Returns the error for a file that no weights can be read from.

    Args:
        path: The file.
        what: What it is, as "is a folder".
        hint: What to do about it.
    """
    return WeightsError(Problem(str(path), what, _EXPECTED, hint))


def inspect_hdf5(path: Path) -> WeightsInfo:
    """Returns which layers an HDF5 file holds, without reading a tensor.

    Args:
        path: The file; it must begin as HDF5 does and be as long as its header says.

    Raises:
        WeightsError: It is damaged, holds no Keras weights, or is not safe to read.
    """
    try:
        with open_hdf5(path) as file:
            info = _read_info(path, file)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise build_error(path, f"is a damaged HDF5 file ({error})", "fetch it again") from error
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
        layers = dict(_walk_vars(path, file))
        kind = "weights.h5" if _has_names(file) else "counted"
        known = read_layer_names(path) if kind == "counted" and is_keras_archive(path) else {}
        if known.keys() >= {name for name, weights in layers.items() if weights}:
            kind = "model"
            layers = {known[place]: layers[place] for place in known if layers.get(place)}
    layers = {name: weights for name, weights in layers.items() if weights}
    if not layers:
        groups = quote(", ".join(sorted(file)) or "nothing")
        raise build_error(
            path, f"is an HDF5 file, but it holds no Keras weights (it holds {groups})"
        )
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

    Keras 2 writes no name: the layer is called by its kind and number, after the models around it.
    The optimizer's state and the seeds of random layers are skipped: they are no weights.
    """
    container = _CONTAINERS[0]
    if container in file:  # beside it are the states of metrics
        file = {container: _follow(path, file, container)}
    stack = [("", file)]
    groups = 0
    while stack:
        place, group = stack.pop()
        groups += 1
        if groups > _MAX_GROUPS:
            raise build_error(path, f"holds more than {_MAX_GROUPS:,} groups and is not read")
        for name in sorted(group, reverse=True):
            is_hidden = name.startswith("_") and name != container
            if is_hidden or name.startswith(("optimizer", "seed_generator")):
                continue
            child = group[name] if isinstance(group, dict) else _follow(path, group, name)
            if name == "vars":
                parts = [part for part in place.split("/") if part and part not in _CONTAINERS]
                layer = str(child.attrs.get("name", "/".join(parts)))
                yield layer, tuple(_read_vars(path, f"{place}/vars", child))
            elif hasattr(child, "keys"):
                stack.append((f"{place}/{name}", child))


def _has_names(file: Any) -> bool:
    """Returns whether a `.weights.h5` names its layers, as Keras does since version 3."""
    named: list[str] = []

    def visit(place: str, member: Any) -> None:
        if place.rpartition("/")[2] == "vars" and "name" in member.attrs:
            named.append(place)

    file.visititems(visit)
    return bool(named)


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
            raise build_error(path, f"holds a link to somewhere else ({part!r}) and is not read")
        group = group[part]
    return group


def _read_shape(path: Path, dataset: Any) -> tuple[int, ...]:
    if dataset.external or dataset.is_virtual:
        raise build_error(path, f"keeps {dataset.name!r} in another file and is not read")
    if dataset.dtype.kind not in "fiu":
        raise build_error(path, f"holds {dataset.name!r}, which is no tensor of numbers")
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
        raise build_error(path, what)


def find_hdf5_fault(file: Any, actual: int) -> str:
    """Returns why an open HDF5 file must not be read as a whole, or "".

    Args:
        file: The file.
        actual: Its size on disk.
    """
    import h5py

    stack, seen, claimed = [file], set(), 0
    while stack:
        group = stack.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return f"holds a link to somewhere else ({quote(name)})"
            child = group[name]
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                return f"holds one part twice, by a link ({quote(name)})"
            seen.add(address)
            if len(seen) > _MAX_GROUPS:
                return f"holds more than {_MAX_GROUPS:,} groups and tensors"
            if isinstance(child, h5py.Group):
                stack.append(child)
            elif not isinstance(child, h5py.Dataset):
                return f"holds {quote(name)}, which is no tensor"
            elif child.external or child.is_virtual:
                return f"keeps {quote(str(child.name))} in another file"
            elif child.shape is None or child.dtype.kind not in "fiub":
                return f"holds {quote(str(child.name))}, which is no tensor of numbers"
            else:
                claimed += math.prod(child.shape) * child.dtype.itemsize
    if claimed > _MAX_EXPANSION * actual + 2**20:
        return f"claims {claimed:,} bytes of tensors in a file of {actual:,}"
    return ""
