"""Matches the tensors of a layer in a file with the weights of the same layer in a network."""

import math
import re
from collections.abc import Sequence

from tl_toolkit.catalog.hdf5 import SavedWeight

__all__ = ["NamedShape", "pair_weights"]

NamedShape = tuple[str, tuple[int, ...] | None]
"""A weight of the network: its name ("" when not known) and its shape (None when not known)."""


def pair_weights(
    weights: Sequence[NamedShape], saved: tuple[SavedWeight, ...]
) -> tuple[SavedWeight, ...] | None:
    """Returns a layer's tensors in the order of its weights, None when count or shapes differ.

    They are matched by name where the names are the same ("gamma", "beta", ...: all of one shape),
    else in order.

    Args:
        weights: Weights of the layer.
        saved: Tensors of a layer in a file.
    """
    if len(weights) != len(saved):
        return None
    if any(not name for name, _ in weights):
        # Names are not known, so shapes can only be compared as a set.
        shapes = [shape for _, shape in weights if shape is not None]
        if len(shapes) < len(weights):
            return saved
        ours = sorted(shapes, key=_flatten)
        theirs = sorted((w.shape for w in saved), key=_flatten)
        return saved if all(map(_holds, theirs, ours)) else None
    ordered = _sort_by_name([name for name, _ in weights], saved) or saved
    if all(
        shape is not None and _holds(w.shape, shape)
        for (_, shape), w in zip(weights, ordered, strict=True)
    ):
        return ordered
    return None


def _holds(saved: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Returns whether a tensor of a file has the numbers of a weight, in their order.

    A dense layer on a flattened map is a convolution as large as that map: one holds the other's
    kernel, (h * w * c, units) as (h, w, c, units).
    """
    is_dense = len(saved) == 2 and len(shape) == 4
    return saved == shape or (is_dense and saved == _flatten(shape))


def _flatten(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of a dense kernel with the numbers of a convolution's; others as is."""
    return (math.prod(shape[:3]), shape[3]) if len(shape) == 4 else shape


def _sort_by_name(
    names: Sequence[str], saved: Sequence[SavedWeight]
) -> tuple[SavedWeight, ...] | None:
    for depth in (1, 2, 3):
        ours = [_tail(name, depth) for name in names]
        theirs = {_tail(weight.name, depth): weight for weight in saved}
        if len(set(ours)) == len(saved) and set(ours) == set(theirs):
            return tuple(theirs[name] for name in ours)
    return None


def _tail(name: str, depth: int) -> tuple[str, ...]:
    """Returns the last parts of "block1_conv1/kernel:0" without the number of the output."""
    return tuple(re.sub(r":\d+$", "", name).split("/")[-depth:])
