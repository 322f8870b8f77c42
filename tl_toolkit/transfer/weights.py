"""Weights of a base: found or fetched, checked as a whole, and only then assigned."""

import fcntl
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import keras
import numpy as np

from tl_toolkit.architectures.graph import layer_variables
from tl_toolkit.catalog.lookup import Architecture, describe_unpublished, find_weight_file
from tl_toolkit.catalog.records import Value, WeightFile
from tl_toolkit.catalog.weight_files import (
    SavedWeight,
    WeightsInfo,
    cache_path,
    hash_file,
    inspect_weights,
)
from tl_toolkit.catalog.weight_matching import Match, match_layers, recognise
from tl_toolkit.errors import Problem, WeightsError
from tl_toolkit.keras_private import flatten_layers
from tl_toolkit.runs.files import drafted

__all__ = [
    "LoadedWeights",
    "fetch_weight_file",
    "find_weights",
    "hash_file",
    "inspect_weights",
    "load_weights",
    "save_weights",
]

Progress = Callable[[int, int | None], None]
"""Told after each piece: bytes so far, and of how many (None when the server does not say)."""

_PIECE = 1 << 20
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class LoadedWeights:
    """What loading did.

    Attributes:
        path: The file.
        by: "name"; "order" when no name of the network was in the file.
        num_tensors: How many were assigned.
        left_out: Layers of the file's classifier, which have no place in a base.
    """

    path: Path
    by: Literal["name", "order"]
    num_tensors: int
    left_out: tuple[str, ...]


# --------------------------------------------------------------------------------- where they are


def find_weights(
    architecture: Architecture,
    arguments: Mapping[str, Value],
    image_size: tuple[int, int],
    weights: str,
    *,
    progress: Progress | None = None,
) -> Path | None:
    """Returns the weight file that a recipe means, fetching a published one that is not there yet.

    Args:
        architecture: The base's record.
        arguments: Arguments of its builder.
        image_size: (height, width); Keras publishes files for several sizes.
        weights: "random", "imagenet" or the path of a file.
        progress: Called while a file is fetched.

    Returns:
        A path; None for "random". A file of the user's is not opened here.

    Raises:
        WeightsError: No file was ever published for these arguments, or it is neither in the cache
            nor to be had; the text names file, address and place.
    """
    if weights == "random":
        return None
    if weights != "imagenet":
        return Path(weights)
    file = find_weight_file(architecture, arguments, image_size)
    if file is None:
        raise WeightsError(describe_unpublished(architecture, arguments))
    return fetch_weight_file(file, progress=progress)


def fetch_weight_file(file: WeightFile, *, progress: Progress | None = None) -> Path:
    """Returns a published file from the cache, and first puts it there if it is missing.

    It is written beside its place and renamed when it is complete and checked, under a lock, so
    that other processes see it whole or not at all. A folder that cannot be written is an error,
    never a reason to write elsewhere.

    Raises:
        WeightsError: It cannot be had or stored, or is not the published one.
    """
    path = cache_path(file)
    if not path.exists():
        with _locked(path, file):
            if not path.exists():  # another process may have fetched it in the meantime
                _download(file, path, progress)
    elif expected := _tell_other(file, path):
        what = f"is not the published file, {file.url}"
        raise WeightsError(Problem(str(path), what, expected, f"rm '{path}' and run again"))
    return path


@contextmanager
def _locked(path: Path, file: WeightFile) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(f"{path.name}.lock"), "wb")
    except OSError as error:
        raise _absent_error(path, file, f"its folder cannot be written ({_why(error)})") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _absent_error(path: Path, file: WeightFile, reason: str) -> WeightsError:
    return WeightsError(
        Problem(
            str(path),
            f"is not there, and {reason}",
            f"The file is published at {file.url}",
            "fetch it elsewhere and put it at the path above (KERAS_HOME moves that folder), "
            "or model.weights=PATH",
        )
    )


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(reason)


def _download(file: WeightFile, path: Path, progress: Progress | None) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        _write_part(file, path, part, progress)
        _check_part(file, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_part(file: WeightFile, path: Path, part: Path, progress: Progress | None) -> None:
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length else file.bytes
            with open(part, "wb") as sink:
                size = _copy(response, sink, lambda done: progress and progress(done, total))
                os.fsync(sink.fileno())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _absent_error(path, file, f"it could not be fetched ({_why(error)})") from error
    if total is not None and size != total:
        reason = f"the connection broke off after {size:,} of {total:,} bytes"
        raise _absent_error(path, file, reason)


def _copy(source: Any, sink: BinaryIO, report: Callable[[int], object]) -> int:
    size = 0
    while piece := source.read(_PIECE):
        sink.write(piece)
        size += len(piece)
        report(size)
    return size


def _tell_other(file: WeightFile, path: Path) -> str:
    """Says which digest was expected of a file; "" if it has it, or none is known."""
    if file.digest is None:
        return ""
    algorithm, digits = file.digest
    names = {"sha256": "SHA-256", "md5": "MD5"}
    same = hash_file(path, algorithm) == digits
    return "" if same else f"Expected a file with {names[algorithm]} {digits}."


def _check_part(file: WeightFile, part: Path) -> None:
    """Refuses what a server sent instead of the file, by its digest where known, by its header."""
    if expected := _tell_other(file, part):
        raise WeightsError(Problem(file.url, "gave another file", expected, "run again"))
    try:
        inspect_weights(part)
    except WeightsError as error:
        what = f"what was fetched {error.problems[0].what}"
        raise WeightsError(replace(error.problems[0], where=file.url, what=what)) from error


# -------------------------------------------------------------------------- into and out of layers


def load_weights(
    target: keras.Model | Sequence[keras.layers.Layer], path: str | Path
) -> LoadedWeights:
    """Assigns the tensors of a file to layers: all of them, or none.

    Layers are matched by name, see `weight_matching.match_layers`; `keras.Model.load_weights` goes
    by order on such a file and exchanges layers of one shape without a word. A dense kernel loads
    into a convolution that looks at the whole map that was flattened before it.

    Args:
        target: A model, or the layers of a base; those without weights are passed over.
        path: A file of keras.applications, of `model.save("x.h5")`, of
            `model.save_weights("x.weights.h5")`, or of `save_weights`. The third kind does not
            record the order of layers: names must tell them.

    Raises:
        WeightsError: The file is damaged, does not fit, or holds numbers that are not finite. No
            weight has changed then.
    """
    layers = target.layers if isinstance(target, keras.Model) else target
    variables = {
        layer.name: [entry.variable for entry in layer_variables(layer)]
        for layer in layers
        if layer.weights
    }
    info = inspect_weights(path)
    network = {
        name: [(variable.path, tuple(variable.shape)) for variable in members]
        for name, members in variables.items()
    }
    match = match_layers(network, info)
    if not match.fits:
        raise _misfit_error(info, match, recognise(info))
    values = _read_tensors(info.path, match.weights)
    for name, members in variables.items():
        for variable, value in zip(members, values[name], strict=True):
            # A dense kernel may stand for a convolution's; all others have the shape already.
            variable.assign(value.reshape(variable.shape))
    _settle(layers)
    count = sum(len(members) for members in variables.values())
    return LoadedWeights(info.path, match.by, count, match.left_out)


def _settle(layers: Sequence[keras.layers.Layer]) -> None:
    """Lets layers take notice: Normalization computes with copies that it makes of its weights."""
    for member in (member for layer in layers for member in flatten_layers(layer)):
        if hasattr(member, "finalize_state"):
            member.finalize_state()


def _misfit_error(info: WeightsInfo, match: Match, actual: str) -> WeightsError:
    expected = f"It holds the weights of {actual}." if actual else ""
    hint = "" if info.is_ordered else "save the whole model, with model.save('x.h5')"
    what = f"does not fit the network: {match}"
    return WeightsError(Problem(str(info.path), what, expected, hint))


def _read_tensors(
    path: Path, weights: Mapping[str, Sequence[SavedWeight]]
) -> dict[str, list[np.ndarray]]:
    import h5py

    with h5py.File(path, "r") as file:
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

    The same weights give the same bytes. Written beside its place and renamed.

    Args:
        target: A model or layers; those without weights are left out.
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
    """Names a layer's tensors as "conv1/kernel", with as much path as tells them apart."""
    paths = [variable.path.split("/") for variable in layer.weights]
    for depth in range(1, max(map(len, paths)) + 1):
        tails = ["/".join(path[-depth:]) for path in paths]
        if len(set(tails)) == len(tails):
            return [f"{layer.name}/{tail}" for tail in tails]
    return [f"{layer.name}/{index}" for index in range(len(paths))]
