"""Lists the layers in an HDF5 file of Keras weights; no tensor is read, no model rebuilt.

Nothing in a file is trusted: links out of it, data stored elsewhere and sizes that it cannot hold
are refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tl_toolkit.catalog.foreign_files import quote
from tl_toolkit.errors import Problem, WeightsError

__all__ = ["SavedWeight", "WeightsInfo", "build_error", "inspect_hdf5"]

Kind = Literal["layers", "model", "weights.h5"]

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
    import h5py  # Slow to import, and not needed for the errors above.

    try:
        with h5py.File(path, "r") as file:
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
        kind = "weights.h5"
        layers = dict(_walk_vars(path, file))
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

    The optimizer's state and the seeds of random layers are skipped: they are no weights.
    """
    stack = [("", file)]
    groups = 0
    while stack:
        place, group = stack.pop()
        groups += 1
        if groups > _MAX_GROUPS:
            raise build_error(path, f"holds more than {_MAX_GROUPS:,} groups and is not read")
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
