"""Edges without a model: the gradient of an image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["measure_gradient"]

_BLUR = 1.0
_FULL_STEP = 4.0
"""What Sobel's kernel, whose weights are 1, 2 and 1, makes of a step from 0 to 1."""


def measure_gradient(image: np.ndarray) -> np.ndarray:
    """Returns the strength of Sobel's gradient at each pixel, to be thinned as a prediction is.

    The image is smoothed by a Gaussian of one pixel. Of the three channels the one with the largest
    gradient counts, as in Canny's detector of coloured images. The square root spreads weak edges
    over the thresholds, of which none lies below 0.03.

    Args:
        image: uint8 (h, w, 3), RGB.

    Returns:
        float64 (h, w) in [0, 1]; 1 for a step from black to white before smoothing.
    """
    channels = [_measure_channel(channel / 255) for channel in np.moveaxis(image, -1, 0)]
    return np.asarray(np.sqrt(np.max(channels, axis=0)))


def _measure_channel(values: np.ndarray) -> np.ndarray:
    """Returns the gradient of one channel, clipped to [0, 1]."""
    smooth = ndimage.gaussian_filter(values, _BLUR, mode="nearest")
    slopes = [ndimage.sobel(smooth, axis=axis, mode="nearest") for axis in (0, 1)]
    return np.asarray((np.hypot(*slopes) / _FULL_STEP).clip(0, 1))
