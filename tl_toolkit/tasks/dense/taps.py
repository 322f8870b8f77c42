"""Where a model reads its hypercolumn: the maps, and the dense layers that follow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tl_toolkit.architectures.sampling import PixelSample

__all__ = ["Tap", "find_taps", "is_pixel_dense"]


@dataclass(frozen=True)
class Tap:
    """A map that pixels are sampled from, and the channels of the hypercolumn that it fills.

    Attributes:
        tensor: The map in the model's graph.
        stride: Pixels of the image to a step of the map.
        start: The first channel.
        stop: The one after the last.
    """

    tensor: keras.KerasTensor
    stride: int
    start: int
    stop: int


def find_taps(calls: Sequence[Any]) -> tuple[Tap, ...]:
    """Returns the maps that a model reads, in the order of its hypercolumn.

    Args:
        calls: Calls of the model's graph, as `sorted_calls` gives them.
    """
    samplers = {
        id(call.outputs[0]): call for call in calls if isinstance(call.operation, PixelSample)
    }
    joined = [
        call.input_tensors
        for call in calls
        if any(id(tensor) in samplers for tensor in call.input_tensors)
    ]
    taps: list[Tap] = []
    start = 0
    for tensor in joined[0]:
        if (sampler := samplers.get(id(tensor))) is not None:
            source = sampler.input_tensors[0]
            stop = start + source.shape[-1]
            taps.append(Tap(source, sampler.operation.stride, start, stop))
            start = stop
    return tuple(taps)


def is_pixel_dense(call: Any) -> bool:
    """Returns whether a call is one of the predictor's: a dense layer on a batch of pixels.

    Args:
        call: One of `sorted_calls`.
    """
    is_dense = isinstance(call.operation, keras.layers.Dense)
    return is_dense and len(call.input_tensors[0].shape) == 3
