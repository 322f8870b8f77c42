"""The exact state of a phase: in memory, as plain arrays, and in a file."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tl_toolkit.errors import DataError, Problem
from tl_toolkit.keras_private import flatten_layers
from tl_toolkit.runs.files import write_atomically
from tl_toolkit.training.checkpoint import Epoch, assign_weights, read_weights
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import TransferModel

__all__ = ["PhaseState", "load_state", "random_streams", "save_state", "take_state"]

_VERSION = 2
_METADATA = "metadata"


@dataclass(frozen=True)
class PhaseState:
    """The state of a phase after one of its epochs, from which it resumes without a difference.

    The state does not hold the order of images and views, which follow from the seed, the phase's
    place and an epoch's number, nor the patience, which follows from the epochs, nor the rates of a
    schedule.

    Attributes:
        epochs: Epochs so far, epoch 0 included.
        weights: By canonical name, all weights that this phase or an earlier one may have changed.
        optimizer: Values of `Steps.state`: optimizer and averages, rate and step number included.
        streams: States of all random streams, by the name of the layer that samples from them.
        digests: Digests of all weights before the first step, for the receipt.
        steps_taken: Steps so far, for the receipt.
        learning_rate: The phase's own rate, which may have been found before the first step.
    """

    epochs: tuple[Epoch, ...]
    weights: Mapping[str, np.ndarray]
    optimizer: tuple[np.ndarray, ...]
    streams: Mapping[str, np.ndarray]
    digests: Mapping[tuple[str, str], str]
    steps_taken: int
    learning_rate: float

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(array.nbytes for array in (*self.weights.values(), *self.optimizer))

    def restore(self, transfer: TransferModel, steps: Steps) -> None:
        """Restores the state into a model and the steps of its phase.

        Args:
            transfer: The model.
            steps: The steps.
        """
        assign_weights(transfer, self.weights)
        for variable, value in zip(steps.state, self.optimizer, strict=True):
            variable.assign(value)
        for name, stream in random_streams(transfer.model):
            stream.assign(self.streams[name])

    def as_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the state as named arrays, and the rest as values that JSON can hold."""
        arrays = {f"weights/{name}": array for name, array in self.weights.items()}
        arrays |= {f"optimizer/{index}": array for index, array in enumerate(self.optimizer)}
        arrays |= {f"streams/{name}": array for name, array in self.streams.items()}
        rest = {
            "version": _VERSION,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "digests": [[*key, sha256] for key, sha256 in self.digests.items()],
            "steps_taken": self.steps_taken,
            "learning_rate": self.learning_rate,
        }
        return arrays, rest

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> PhaseState:
        """Returns the state that `as_arrays` gave.

        Args:
            arrays: The named arrays.
            rest: The other values.
        """
        kinds: dict[str, dict[str, np.ndarray]] = {"weights": {}, "optimizer": {}, "streams": {}}
        for name, array in arrays.items():
            kind, _, own_name = name.partition("/")
            kinds[kind][own_name] = array
        return cls(
            tuple(Epoch(**row) for row in rest["epochs"]),
            kinds["weights"],
            tuple(kinds["optimizer"][str(index)] for index in range(len(kinds["optimizer"]))),
            kinds["streams"],
            {(part, name): sha256 for part, name, sha256 in rest["digests"]},
            rest["steps_taken"],
            rest["learning_rate"],
        )


def take_state(
    transfer: TransferModel,
    steps: Steps,
    names: Iterable[str],
    *,
    epochs: Iterable[Epoch],
    digests: Mapping[tuple[str, str], str],
    steps_taken: int,
    learning_rate: float,
) -> PhaseState:
    """Returns the state of a phase as it is now.

    Args:
        transfer: The model.
        steps: The steps of the phase.
        names: Canonical names of the weights that may have changed.
        epochs: As in `PhaseState`.
        digests: As in `PhaseState`.
        steps_taken: As in `PhaseState`.
        learning_rate: As in `PhaseState`.
    """
    return PhaseState(
        tuple(epochs),
        read_weights(transfer, set(names)),
        tuple(variable.numpy() for variable in steps.state),
        {name: stream.numpy() for name, stream in random_streams(transfer.model)},
        digests,
        steps_taken,
        learning_rate,
    )


def save_state(state: PhaseState, path: Path) -> None:
    """Writes a state to a file, whole or not at all.

    Args:
        state: The state.
        path: The file: a NumPy archive without pickled objects, as `*.npz`.
    """
    arrays, rest = state.as_arrays()
    # Without the digest a bit that flips in an array would show nowhere.
    metadata = json.dumps({**rest, "sha256": _digest(arrays, rest)}).encode()
    buffer = io.BytesIO()
    named: Any = {_METADATA: np.frombuffer(metadata, np.uint8), **arrays}
    np.savez(buffer, **named)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path) -> PhaseState:
    """Returns the state that `save_state` wrote.

    Args:
        path: The file.

    Raises:
        DataError: It is missing, damaged, or of another version.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        rest = json.loads(arrays.pop(_METADATA).tobytes())
        sha256 = rest.pop("sha256")
        if rest["version"] != _VERSION or sha256 != _digest(arrays, rest):
            raise ValueError("its checksum or its version differs")
        return PhaseState.from_arrays(arrays, rest)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        what = f"holds no state of a phase: {error}"
        raise DataError(Problem(str(path), what, "expected the file as it was written.")) from error


def _digest(arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def random_streams(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """Yields the name of every layer that samples in training, and the state it samples from.

    Args:
        model: The model; nested models are searched too.
    """
    for layer in flatten_layers(model):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            yield layer.name, generator.state
