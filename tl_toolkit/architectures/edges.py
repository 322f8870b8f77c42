"""Fixed edge filters as a layer."""

from collections.abc import Sequence
from typing import Any, get_args

import keras
import numpy as np
from keras import ops

from tl_toolkit.recipe.model_schema import EdgeKind

__all__ = ["EDGE_KINDS", "EdgeFilter", "edge_kernels"]

_PREWITT = ((-1, 0, 1), (-1, 0, 1), (-1, 0, 1))
_SOBEL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
# The eight places around the centre, clockwise from the upper left.
_RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
# North: what lies above is brighter.
_NORTH = {"robinson": (1, 2, 1, 0, -1, -2, -1, 0), "kirsch": (5, 5, 5, -3, -3, -3, -3, -3)}

EDGE_KINDS: tuple[str, ...] = get_args(EdgeKind)
"""The kinds of `EdgeFilter`."""


def _wide(dtype: str) -> str:
    """Returns the dtype to compute in: squares of activations overflow half precision."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def edge_kernels(kind: str) -> np.ndarray:
    """Returns the kernels of an edge filter, to be correlated with an image (not flipped).

    Args:
        kind: One of `EDGE_KINDS`.

    Returns:
        float32 (count, 3, 3): x and y for "prewitt" and "sobel"; for "robinson" and "kirsch" the
        eight compass masks N, NE, E, SE, S, SW, W, NW, of which mask k responds most where the
        brighter side lies in that direction; else a single kernel. Each sums to 0.

    Raises:
        ValueError: There is no such kind.
    """
    if kind not in EDGE_KINDS:
        raise ValueError(f"Expected one of {', '.join(EDGE_KINDS)}, got {kind!r}.")
    if kind in _NORTH:
        return np.stack([_turn(_NORTH[kind], step) for step in range(8)])
    if kind.startswith("laplacian"):
        cross = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
        full = [[1, 1, 1], [1, -8, 1], [1, 1, 1]]
        return np.array([cross if kind == "laplacian4" else full], dtype="float32")
    name, _, axis = kind.partition("_")
    across = np.array(_PREWITT if name == "prewitt" else _SOBEL, dtype="float32")
    return np.stack({"": [across, across.T], "x": [across], "y": [across.T]}[axis])


def _turn(ring: Sequence[int], step: int) -> np.ndarray:
    """Lays eight values around a centre of 0, turned clockwise by `step` places."""
    mask = np.zeros((3, 3), dtype="float32")
    for index, place in enumerate(_RING):
        mask[place] = ring[(index - step) % 8]
    return mask


@keras.saving.register_keras_serializable(package="tl_toolkit")
class EdgeFilter(keras.layers.Layer):
    """Fixed edge filters, applied to each channel for itself; nothing in it trains.

    The response is the gradient's magnitude sqrt(x^2 + y^2) for "prewitt" and "sobel", the largest
    of the eight compass masks for "robinson" (1977) and "kirsch" (1971), the plain correlation for
    the others. The image is continued by its own border pixels. The masks, which sum to 0, are
    applied to differences from the pixel in the centre, so that a constant image gives exactly 0.

    Args:
        kind: One of `EDGE_KINDS`.
        return_direction: With a compass, give the direction as well.

    Raises:
        ValueError: The kind is unknown, or has no direction to return.
    """

    def __init__(self, kind: str = "sobel", return_direction: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kernels = edge_kernels(kind)
        if return_direction and kind not in _NORTH:
            raise ValueError(f"Only {' and '.join(sorted(_NORTH))} have directions, not {kind!r}.")
        self.kind = kind
        self.return_direction = return_direction

    def call(self, inputs: keras.KerasTensor) -> Any:
        """Filters images or feature maps.

        Args:
            inputs: (batch, h, w, c), of any dtype and range.

        Returns:
            The response (batch, h, w, c), and with `return_direction` the int32 index (batch, h, w,
            c) of the mask that gave it, clockwise: 0 N, 1 NE, 2 E, 3 SE, 4 S, 5 SW, 6 W, 7 NW; the
            first of several with equal responses.
        """
        image = ops.cast(inputs, _wide(self.compute_dtype))
        padded = ops.concatenate([image[:, :1], image, image[:, -1:]], axis=1)
        padded = ops.concatenate([padded[:, :, :1], padded, padded[:, :, -1:]], axis=2)
        # (batch, h, w, c, 8): the neighbours less the centre.
        differences = ops.stack(
            [
                padded[:, row : row - 2 or None, column : column - 2 or None] - image
                for row, column in _RING
            ],
            axis=-1,
        )
        rows, columns = zip(*_RING, strict=True)
        masks = ops.cast(self._kernels[:, rows, columns].T, image.dtype)
        responses = ops.matmul(differences, masks)  # (batch, h, w, c, masks)
        if self.kind in ("prewitt", "sobel"):
            response = _magnitude(responses)
        else:
            response = ops.max(responses, axis=-1)
        response = ops.cast(response, self.compute_dtype)
        return (response, ops.argmax(responses, axis=-1)) if self.return_direction else response

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        """Returns the shape of the input, twice with `return_direction`.

        Args:
            input_shape: (batch, h, w, c).
        """
        return (input_shape, input_shape) if self.return_direction else input_shape

    def compute_output_spec(self, inputs: keras.KerasTensor) -> Any:
        """Returns shapes and dtypes: those of a direction are not those of a response.

        Args:
            inputs: (batch, h, w, c).
        """
        response = keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)
        direction = keras.KerasTensor(inputs.shape, dtype="int32")
        return (response, direction) if self.return_direction else response

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        own = {"kind": self.kind, "return_direction": self.return_direction}
        return {**super().get_config(), **own}


def _magnitude(responses: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the root of the sum of squares over the last axis."""
    energy = ops.sum(ops.square(responses), axis=-1)
    # The gradient of a root is infinite at 0, where it would turn every gradient below into nan.
    is_flat = ops.equal(energy, 0)
    return ops.where(is_flat, 0.0, ops.sqrt(ops.where(is_flat, 1.0, energy)))
