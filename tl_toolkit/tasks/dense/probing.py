"""What a base makes of single pixels, before any training: hypercolumns, and a linear probe."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from tl_toolkit.architectures.batches import as_list
from tl_toolkit.architectures.heads import VARIANCE_EPSILON
from tl_toolkit.architectures.sampling import PixelSample
from tl_toolkit.tasks.types import ExampleSource

__all__ = ["find_hypercolumn", "fit_probe", "read_hypercolumns"]

_PENALTIES = np.logspace(-5, 1, 7)
"""Penalties of a ridge regression, by the number of pixels."""
_HELD_OUT = 5
"""Of so many images one chooses the penalty."""


def find_hypercolumn(model: keras.Model) -> keras.KerasTensor:
    """Returns the tensor of a model's hypercolumns, float (batch, n, channels).

    Args:
        model: [images, pixels] to outputs.
    """
    samplers = [layer for layer in model.layers if isinstance(layer, PixelSample)]
    joined = [layer for layer in model.layers if layer.name == "head_hypercolumn"]
    column: keras.KerasTensor = (joined or samplers)[0].output
    return column


def read_hypercolumns(
    columns: keras.Model,
    sampled: ExampleSource,
    order: np.ndarray,
    batch_size: int,
    report: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns hypercolumns and targets of the pixels that epochs are compared by.

    Args:
        columns: The tensors that cross the cut, and pixels, to hypercolumns.
        sampled: Features with sampled pixels and their targets.
        order: Indices of images.
        batch_size: Images at a time.
        report: Receives the number of images done.

    Returns:
        float32 (images, pixels, channels), and the targets (images, pixels, ...).
    """
    vectors, targets = [], []
    done = 0
    for batch, wanted in sampled.chunks(order, batch_size):
        tensors = as_list(batch)
        for start in range(0, len(wanted), batch_size):  # stored features come in large chunks
            part = [np.asarray(tensor[start : start + batch_size]) for tensor in tensors]
            vectors.append(np.asarray(columns(part), np.float32))
        targets.append(wanted)
        done += len(wanted)
        report(done)
    return np.concatenate(vectors), np.concatenate(targets)


def fit_probe(
    vectors: np.ndarray, numbers: np.ndarray, images: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Fits a ridge regression whose penalty is chosen on pixels of images that were left out.

    Pixels of one image are alike: leaving out single ones, as other probes do, would choose too
    small a penalty.

    Args:
        vectors: (pixels, channels).
        numbers: (pixels, outputs).
        images: int (pixels,), the image of each.

    Returns:
        From vectors (..., channels) to float32 outputs (..., outputs).
    """
    mean, scale = vectors.mean(axis=0), np.sqrt(vectors.var(axis=0) + VARIANCE_EPSILON)
    centre = numbers.mean(axis=0)
    x, y = (vectors - mean) / scale, numbers - centre
    left_out = images % _HELD_OUT == 0
    both = [_multiply(x[part], y[part]) for part in (left_out, ~left_out)]
    penalty = _PENALTIES[-1]
    if left_out.any() and not left_out.all():
        kernels = [_solve(*both[1], each * (~left_out).sum()) for each in _PENALTIES]
        errors = [((x[left_out] @ kernel - y[left_out]) ** 2).mean() for kernel in kernels]
        penalty = _PENALTIES[int(np.argmin(errors))]
    gram, moments = (first + second for first, second in zip(*both, strict=True))
    kernel = (_solve(gram, moments, penalty * len(x)) / scale[:, None]).astype(np.float32)
    bias = (centre - mean @ kernel).astype(np.float32)
    return lambda asked: np.asarray(asked @ kernel + bias, np.float32)


def _multiply(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a ridge regression needs of pixels: two sums of products over them."""
    return (x.T @ x).astype(np.float64), (x.T @ y).astype(np.float64)


def _solve(gram: np.ndarray, moments: np.ndarray, penalty: float) -> np.ndarray:
    from scipy import linalg

    loaded = gram + penalty * np.eye(len(gram))
    kernel: np.ndarray = linalg.solve(loaded, moments, assume_a="pos")
    return kernel
