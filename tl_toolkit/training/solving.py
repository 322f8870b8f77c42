"""A head that is solved, not trained: features in, the last layer's weights out."""

from __future__ import annotations

import keras
import numpy as np

from tl_toolkit.architectures.heads import NORMALIZE_LAYER, OUTPUT_LAYER, group_features
from tl_toolkit.tasks.solvers import Solution
from tl_toolkit.tasks.standardized import Standardized
from tl_toolkit.transfer.assemble import TransferModel

__all__ = ["find_normalization", "solve_head", "standardize"]


def find_normalization(transfer: TransferModel) -> keras.layers.BatchNormalization | None:
    """Returns the layer that standardizes a head's features, None where it has none.

    Args:
        transfer: The model.
    """
    layers = {layer.name: layer for layer in transfer.parts[-1].layers}
    return layers.get(NORMALIZE_LAYER)


def standardize(layer: keras.layers.BatchNormalization, features: np.ndarray) -> None:
    """Sets mean and variance of features.

    Args:
        layer: The head's normalization.
        features: float32 (n, features), of the training images.
    """
    _standardize(layer, Standardized(features))


def _standardize(layer: keras.layers.BatchNormalization, columns: Standardized) -> None:
    layer.moving_mean.assign(columns.mean.astype(np.float32))
    layer.moving_variance.assign(columns.variance.astype(np.float32))


def solve_head(
    transfer: TransferModel, features: np.ndarray, targets: np.ndarray, solver: str
) -> Solution:
    """Solves the last layer of a head, and gives the model its weights.

    Args:
        transfer: The model.
        features: float32 (n, features), at the cut before the head, of all training images.
        targets: (n, ...), theirs.
        solver: ridge, logistic or auto.

    Returns:
        The solution, for the features as they are pooled.
    """
    groups = group_features(transfer.parts[-1].layers, transfer.inner_maps)
    columns = Standardized(features, groups)
    solution = transfer.task.solve(columns, targets, solver)  # type: ignore[arg-type]
    kernel, bias = solution.kernel, solution.bias
    layer = find_normalization(transfer)
    if layer is not None:
        _standardize(layer, columns)
        mean = np.asarray(layer.moving_mean, np.float64)
        deviation = np.sqrt(np.asarray(layer.moving_variance, np.float64) + layer.epsilon)
        bias = bias + mean @ kernel
        kernel = kernel * deviation[:, None]
    output = next(layer for layer in transfer.parts[-1].layers if layer.name == OUTPUT_LAYER)
    output.kernel.assign(kernel.astype(np.float32))
    output.bias.assign(bias.astype(np.float32))
    return solution
