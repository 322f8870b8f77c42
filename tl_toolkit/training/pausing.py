"""Where a phase was paused: all that its coming epochs depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tl_toolkit.keras_private import flatten_layers
from tl_toolkit.training.checkpoint import Epoch
from tl_toolkit.training.steps import Steps
from tl_toolkit.transfer.assemble import TransferModel


@dataclass(frozen=True)
class PhaseState:
    """A phase after one of its epochs; it goes on as if nothing had been in between.

    Orders of images and views are not here: they follow from the seed and an epoch's number.
    Neither is patience: it follows from the epochs.

    Attributes:
        epochs: So far, epoch 0 included.
        weights: By canonical name, whatever this phase and those before it may have changed.
        optimizer: Values of the optimizer's variables, its rate and its number of steps included.
        dropouts: States of all random streams, in the order of the model's layers.
        digests: Of all weights before the first step, for the receipt.
        steps_taken: Steps so far, likewise.
    """

    epochs: tuple[Epoch, ...]
    weights: Mapping[str, np.ndarray]
    optimizer: tuple[np.ndarray, ...]
    dropouts: tuple[np.ndarray, ...]
    digests: Mapping[tuple[str, str], str]
    steps_taken: int

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(array.nbytes for array in (*self.weights.values(), *self.optimizer))

    def restore(self, transfer: TransferModel, steps: Steps) -> None:
        """Puts everything back into a model and the steps of its phase."""
        for _, name, variable in transfer.variables():
            if name in self.weights:
                variable.assign(self.weights[name])
        for variable, value in zip(steps.optimizer.variables, self.optimizer, strict=True):
            variable.assign(value)
        streams = [state for _, state in random_streams(transfer.model)]
        for state, value in zip(streams, self.dropouts, strict=True):
            state.assign(value)


def save_phase(
    transfer: TransferModel,
    steps: Steps,
    names: Iterable[str],
    *,
    epochs: Iterable[Epoch],
    digests: Mapping[tuple[str, str], str],
    steps_taken: int,
) -> PhaseState:
    """Returns the state of a phase as it is now.

    Args:
        transfer: The model.
        steps: The steps of the phase.
        names: Canonical names of the weights that may have changed.
        epochs: As `PhaseState` has them, as do the others.
        digests: Likewise.
        steps_taken: Likewise.
    """
    wanted = set(names)
    return PhaseState(
        tuple(epochs),
        {name: variable.numpy() for _, name, variable in transfer.variables() if name in wanted},
        tuple(variable.numpy() for variable in steps.optimizer.variables),
        tuple(state.numpy() for _, state in random_streams(transfer.model)),
        digests,
        steps_taken,
    )


def random_streams(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """Yields the name of every layer that draws while it trains, and the state it draws from."""
    for layer in flatten_layers(model):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            yield layer.name, generator.state
