"""Names of layers: those of a file, and those of the same layers in a network."""

import re
from collections.abc import Mapping, Sequence

from tl_toolkit.catalog.hdf5 import SavedWeight, WeightsInfo
from tl_toolkit.catalog.weight_pairing import NamedShape

__all__ = ["count_of", "find_known_name", "parent_of", "rename_layers"]

_COUNTED = re.compile(
    r"(?P<kind>(separable_|depthwise_)?conv2d(_transpose)?|dense|(batch_|layer_)?normalization)"
    r"(?P<number>_\d+)?"
)
"""Names that Keras gives to layers with weights, by a counter of the process."""


def count_of(name: str) -> tuple[str, int]:
    """Returns kind and number of a layer that Keras numbered, ("conv2d", 12); -1 for another name.

    Args:
        name: As "conv2d_12", perhaps after the names of models that the layer was nested in.
    """
    match = _COUNTED.fullmatch(name.rpartition("/")[2])
    if match is None:
        return "", -1
    number = match["number"]
    return match["kind"], int(number[1:]) if number else 0


def rename_layers(
    network: Mapping[str, Sequence[NamedShape]], info: WeightsInfo
) -> list[tuple[str, tuple[SavedWeight, ...]]]:
    """Returns the file's layers under the network's names where they have one.

    Args:
        network: Weights of each layer that has any, input to output.
        info: What the file holds.
    """
    known = set(network)
    owners: dict[str, str] = {}
    for layer, weights in network.items():
        inside = dict.fromkeys(parent_of(path) for path, _ in weights)
        if len(inside) > 1:  # a nested model that counts as one layer
            owners |= dict.fromkeys(inside, layer)
    order = list(owners)
    pieces: dict[str, list[tuple[int, tuple[SavedWeight, ...]]]] = {}
    renamed: list[tuple[str, tuple[SavedWeight, ...]]] = []
    for name, saved in info.layers.items():
        own = find_known_name(name, known)
        if own is not None:
            renamed.append((own, saved))
            continue
        own = name.rpartition("/")[2]
        if own in owners:  # a layer inside a layer of the network, which may have more of them
            pieces.setdefault(owners[own], []).append((order.index(own), saved))
            continue
        # A nested model is one group; its tensors have the names of its layers.
        inner: dict[str, tuple[SavedWeight, ...]] = {}
        for weight in saved:
            parent = weight.name.rpartition("/")[0] or name
            parent = find_known_name(parent, known) or owners.get(parent_of(weight.name), parent)
            inner[parent] = (*inner.get(parent, ()), weight)
        if len(inner) > 1 or known & inner.keys():
            renamed.extend(inner.items())
        else:
            renamed.append((name, saved))
    for owner, parts in pieces.items():
        renamed.append((owner, tuple(weight for _, saved in sorted(parts) for weight in saved)))
    return renamed


def parent_of(name: str) -> str:
    """Returns the layer in the name of a tensor.

    Args:
        name: As "stem/stem_conv/kernel", which gives "stem_conv".
    """
    return name.rpartition("/")[0].rpartition("/")[2]


def find_known_name(name: str, known: set[str]) -> str | None:
    """Returns the network's name for a layer of a file, None where it has none.

    Args:
        name: As "mobilenet/conv1/bn", which may be "conv1_bn" in the network.
        known: Names of the network's layers.
    """
    parts = name.split("/")
    candidates = ["_".join(parts[start:]) for start in range(len(parts))]
    return next((candidate for candidate in candidates if candidate in known), None)
