"""Weights of RGB in a network of other channels: the first convolution is widened.

As in timm's `adapt_input_conv` (Wightman, 2019), after Wang et al. (TSN, ECCV 2016), who averaged
the first layer's weights over RGB: each channel gets the mean of the kernels of all, times their
number by that of the channels. Where all channels are equal, so are the responses.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tl_toolkit.architectures.graph import layer_variables

__all__ = ["copy_widened", "widen_kernel"]


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


def copy_widened(source: Sequence[keras.layers.Layer], target: Sequence[keras.layers.Layer]) -> str:
    """Copies the weights of a base to the same base of other channels.

    Args:
        source: Layers of the base, of RGB or grey. Layers that the target lacks preprocess RGB.
        target: Layers of the base of other channels.

    Returns:
        Name of the layer whose kernel was widened; "" where all have the same shape.
    """
    weights = {
        (entry.layer, entry.index): entry.variable.numpy()
        for layer in source
        for entry in layer_variables(layer)
    }
    widened = ""
    for entry in (entry for layer in target for entry in layer_variables(layer)):
        value = weights[entry.layer, entry.index]
        if value.shape != entry.shape:
            value = widen_kernel(value, entry.shape[2])
            widened = entry.layer
        entry.variable.assign(value)
    return widened
