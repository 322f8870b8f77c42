"""The base as a weight file, from which another run can start, and which Keras loads by itself."""

from __future__ import annotations

from pathlib import Path

import keras

from tl_toolkit.architectures.batches import as_list
from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.keras_private import producer_of
from tl_toolkit.transfer.heads import is_head

__all__ = ["FORMAT", "write_base"]


def write_base(finished: FinishedModel, path: Path) -> None:
    """Writes the weights of the base as `keras.Model.load_weights` expects them in such a file.

    Keras decides by the name how it reads a file: the older layout, a group for each layer's name,
    may not be called .weights.h5.

    Args:
        finished: The model.
        path: File to write; ends in .weights.h5.
    """
    model = finished.model
    entering = [
        tensor
        for layer in model.layers
        if is_head(layer)
        for tensor in as_list(layer.input)
        if not is_head(producer_of(tensor))
    ]
    ends = list({id(tensor): tensor for tensor in entering}.values())
    keras.Model(model.inputs, ends or model.outputs).save_weights(path)


FORMAT = Format(write_base)
