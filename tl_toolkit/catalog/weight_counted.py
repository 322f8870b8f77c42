"""Matches files that name no layer, only its kind and a number: `.weights.h5` of Keras 2."""

import re
from collections import deque
from collections.abc import Mapping, Sequence

from tl_toolkit.catalog.hdf5 import SavedWeight, WeightsInfo
from tl_toolkit.catalog.weight_pairing import NamedShape, pair_weights

__all__ = ["match_counted"]

_Layers = dict[str, deque[tuple[str, tuple[SavedWeight, ...]]]]
"""Layers of one model of a file by their kind, in their order: name and tensors."""


def match_counted(
    network: Mapping[str, Sequence[NamedShape]], info: WeightsInfo
) -> tuple[dict[str, tuple[SavedWeight, ...]], list[str]] | None:
    """Finds the tensors of each layer, going by the order of each kind.

    Such a file keeps the order of the layers of one kind, not that between kinds: each layer of the
    network takes the next one of the only kind that has its shapes. In a file of nested models the
    network is one of them, or the outer one.

    Args:
        network: Weights of each layer that has any, input to output; all shapes are known.
        info: What the file holds; its layers are named "conv2d", "conv2d_1", after their models.

    Returns:
        Tensors by layer of the network, and the file's other layers; None if it does not fit.
    """
    models: dict[str, list[str]] = {}
    for name in info.layers:
        models.setdefault(name.rpartition("/")[0], []).append(name)
    for names in models.values():
        matched = _match_model(network, {name: info.layers[name] for name in names})
        if matched is not None:
            used = {weight.key for weights in matched.values() for weight in weights}
            rest = [name for name, saved in info.layers.items() if saved[0].key not in used]
            return matched, rest
    return None


def _match_model(
    network: Mapping[str, Sequence[NamedShape]], saved: Mapping[str, tuple[SavedWeight, ...]]
) -> dict[str, tuple[SavedWeight, ...]] | None:
    waiting: _Layers = {}
    for name in sorted(saved, key=_count):
        waiting.setdefault(_split(name)[0], deque()).append((name, saved[name]))
    matched: dict[str, tuple[SavedWeight, ...]] = {}
    used: set[str] = set()
    for layer, weights in network.items():
        if any(shape is None for _, shape in weights):
            return None
        fitting = {
            kind: paired
            for kind, queue in waiting.items()
            if queue and (paired := pair_weights(weights, queue[0][1])) is not None
        }
        if len(fitting) != 1:
            return None
        ((kind, matched[layer]),) = fitting.items()
        waiting[kind].popleft()
        used.add(kind)
    # What is left of a kind may be a part of the base that the network lacks, and no classifier.
    return None if any(waiting[kind] for kind in used) else matched


def _split(name: str) -> tuple[str, int]:
    """Returns kind and number: ("conv2d", 1) of "functional/conv2d_1"."""
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", name.rpartition("/")[2])
    return (match[1], int(match[2] or 0)) if match else (name, 0)


def _count(name: str) -> int:
    return _split(name)[1]
