"""Weights of RGB in a network of other channels: the first convolution is widened.

Each channel gets the mean of the kernels, as Wang et al. (Temporal Segment Networks, ECCV 2016) did
for optical flow, times their number by that of the channels, as timm's `adapt_input_conv` scales
the kernels that it repeats: where all channels are equal, the responses are those to grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tl_toolkit.architectures.graph import layer_variables

__all__ = ["copy_widened", "describe_widened", "widen_kernel"]


def widen_kernel(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns a kernel for other channels, each the mean of the kernel's own.

    Args:
        kernel: float32 (height, width, own channels, filters).
        channels: Channels of the result.

    Returns:
        float32 (height, width, channels, filters), whose sum over channels is the kernel's.
    """
    mean = kernel.astype(np.float64).mean(axis=2, keepdims=True)
    widened = np.repeat(mean * (kernel.shape[2] / channels), channels, axis=2)
    return widened.astype(np.float32)


def copy_widened(
    source: Sequence[keras.layers.Layer], target: Sequence[keras.layers.Layer]
) -> tuple[str, int]:
    """Copies the weights of a base to the same base of other channels.

    Args:
        source: Layers of the base, of RGB or grey. Layers that the target lacks preprocess RGB.
        target: Layers of the base of other channels.

    Returns:
        Name of the layer whose kernel was widened, and how many channels it had; ("", 0) where all
        have the same shape.
    """
    weights = {
        (entry.layer, entry.index): entry.variable.numpy()
        for layer in source
        for entry in layer_variables(layer)
    }
    widened = ("", 0)
    for entry in (entry for layer in target for entry in layer_variables(layer)):
        value = weights[entry.layer, entry.index]
        if value.shape != entry.shape:
            widened = (entry.layer, value.shape[2])
            value = widen_kernel(value, entry.shape[2])
        entry.variable.assign(value)
    return widened


def describe_widened(layer: str, before: int, channels: int) -> str:
    """Returns what became of a kernel, as a sentence.

    Args:
        layer: The layer that holds it.
        before: Channels that it had, 3 for RGB and 1 for grey.
        channels: Channels that it has.
    """
    bands = "the one channel" if channels == 1 else f"each of {channels} channels"
    kernel = "the kernel of grey" if before == 1 else f"the mean of the {before} kernels of RGB"
    return (
        f"weights are widened: in {layer} {bands} gets {kernel}, times {before}/{channels}, so "
        "that the sum of the responses keeps its size"
    )
