"""Loads weights into a base, after all of them are checked, and saves weights."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from tl_toolkit.architectures.graph import layer_variables
from tl_toolkit.catalog.keras_archive import open_hdf5
from tl_toolkit.catalog.weight_files import (
    SavedWeight,
    WeightsInfo,
    inspect_weights,
    recall_weights,
)
from tl_toolkit.catalog.weight_matching import Match, match_layers, recognise
from tl_toolkit.errors import Problem, WeightsError
from tl_toolkit.keras_private import flatten_layers
from tl_toolkit.runs.files import drafted, hash_file
from tl_toolkit.sources.objects import name_object
from tl_toolkit.transfer.fetch import fetch_weight_file, find_weights

__all__ = [
    "LoadedWeights",
    "fetch_weight_file",
    "find_weights",
    "fits_layers",
    "hash_file",
    "inspect_weights",
    "load_weights",
    "read_tensors",
    "save_weights",
]


@dataclass(frozen=True)
class LoadedWeights:
    """The result of loading weights.

    Attributes:
        path: The file.
        by: "name"; "order" when no name of the network was in the file.
        num_tensors: How many tensors were assigned.
        left_out: Layers of the file's classifier, which have no place in a base.
        widened: The layer whose kernel was widened to other channels; "" for none.
        widened_from: How many channels it had: 3 for RGB, 1 for grey.
    """

    path: Path
    by: Literal["name", "order"]
    num_tensors: int
    left_out: tuple[str, ...]
    widened: str = ""
    widened_from: int = 0


@contextlib.contextmanager
def _naming_addresses() -> Iterator[None]:
    """Puts the address of a weight file in the place of its copy, in errors raised within."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(
            [replace(problem, where=name_object(problem.where)) for problem in error.problems]
        ) from error


@_naming_addresses()
def load_weights(
    target: keras.Model | Sequence[keras.layers.Layer], path: str | Path
) -> LoadedWeights:
    """Assigns all tensors of a file to layers, or none of them.

    Layers are matched by name, see `weight_matching.match_layers`; `keras.Model.load_weights` goes
    by order on such a file and exchanges layers of one shape without a warning. A dense kernel can
    be loaded into a convolution whose kernel covers the map that was flattened before it.

    Args:
        target: A model, or the layers of a base; layers without weights are skipped.
        path: A file of keras.applications, of `model.save("x.h5")`, of
            `model.save_weights("x.weights.h5")`, of `model.save("x.keras")`, or of `save_weights`,
            written by Keras 2 or 3. The third kind does not record the order of layers: they are
            matched by name only, or within each kind where Keras 2 wrote no names.

    Raises:
        WeightsError: The file is damaged, does not fit, or holds numbers that are not finite. No
            weight has changed then.
    """
    layers = target.layers if isinstance(target, keras.Model) else target
    info = recall_weights(path)
    variables, match = _match(layers, info)
    if not match.fits:
        raise _misfit_error(info, match, recognise(info))
    values = read_tensors(info.path, match.weights)
    for name, members in variables.items():
        for variable, value in zip(members, values[name], strict=True):
            # A dense kernel may stand for a convolution's; all others have the shape already.
            variable.assign(value.reshape(variable.shape))
    _settle(layers)
    count = sum(len(members) for members in variables.values())
    return LoadedWeights(info.path, match.by, count, match.left_out)


@_naming_addresses()
def fits_layers(layers: Sequence[keras.layers.Layer], path: str | Path) -> bool:
    """Returns whether `load_weights` finds every tensor of layers in a file.

    Args:
        layers: The layers of a base.
        path: As in `load_weights`.

    Raises:
        WeightsError: The file is damaged.
    """
    return _match(layers, recall_weights(path))[1].fits


def _match(
    layers: Sequence[keras.layers.Layer], info: WeightsInfo
) -> tuple[dict[str, list[keras.Variable]], Match]:
    """Returns the variables of each layer that has any, and how a file fits them."""
    variables = {
        layer.name: [entry.variable for entry in layer_variables(layer)]
        for layer in layers
        if layer.weights
    }
    network = {
        name: [(variable.path, tuple(variable.shape)) for variable in members]
        for name, members in variables.items()
    }
    return variables, match_layers(network, info)


def _settle(layers: Sequence[keras.layers.Layer]) -> None:
    """Updates layers that compute with copies of their weights, as Normalization does."""
    for member in (member for layer in layers for member in flatten_layers(layer)):
        if hasattr(member, "finalize_state"):
            member.finalize_state()


def _misfit_error(info: WeightsInfo, match: Match, actual: str) -> WeightsError:
    expected = f"It holds the weights of {actual}." if actual else ""
    hint = "" if info.is_ordered else "save the whole model, with model.save('x.keras')"
    what = f"does not fit the network: {match}"
    return WeightsError(Problem(str(info.path), what, expected, hint))


def read_tensors(
    path: Path, weights: Mapping[str, Sequence[SavedWeight]]
) -> dict[str, list[np.ndarray]]:
    """Returns the tensors of layers in a file.

    Args:
        path: The file.
        weights: What the file holds of each layer, as `inspect_weights` has it.

    Raises:
        WeightsError: Numbers are not finite.
    """
    with open_hdf5(path) as file:
        return {
            layer: [_read_tensor(path, file, weight) for weight in saved]
            for layer, saved in weights.items()
        }


def _read_tensor(path: Path, file: Any, weight: SavedWeight) -> np.ndarray:
    tensor = np.asarray(file[weight.key])
    if not np.isfinite(tensor).all():
        what = f"holds numbers that are not finite in {weight.name!r}"
        raise WeightsError(Problem(str(path), what, "Weights must be finite."))
    return tensor


def save_weights(target: keras.Model | Sequence[keras.layers.Layer], path: str | Path) -> None:
    """Writes weights in the layout of keras.applications: legacy HDF5, a group for each layer.

    The same weights give the same bytes. The file is written beside its place and renamed.

    Args:
        target: A model or layers; layers without weights are left out.
        path: The file, ending in .h5.

    Raises:
        OutputError: It cannot be written.
    """
    import h5py

    layers = target.layers if isinstance(target, keras.Model) else target
    layers = [layer for layer in layers if layer.weights]
    with drafted(Path(path)) as draft, h5py.File(draft, "w") as file:
        file.attrs["backend"] = keras.backend.backend()
        file.attrs["keras_version"] = keras.version()
        file.attrs["layer_names"] = np.array([layer.name for layer in layers], dtype="S")
        for layer in layers:
            group = file.create_group(layer.name)
            names = _tensor_names(layer)
            group.attrs["weight_names"] = np.array(names, dtype="S")
            for name, variable in zip(names, layer.weights, strict=True):
                group.create_dataset(name, data=np.asarray(variable))


def _tensor_names(layer: keras.layers.Layer) -> list[str]:
    """Names a layer's tensors as "conv1/kernel", with as much of the path as makes them differ."""
    paths = [variable.path.split("/") for variable in layer.weights]
    for depth in range(1, max(map(len, paths)) + 1):
        tails = ["/".join(path[-depth:]) for path in paths]
        if len(set(tails)) == len(tails):
            return [f"{layer.name}/{tail}" for tail in tails]
    return [f"{layer.name}/{index}" for index in range(len(paths))]
