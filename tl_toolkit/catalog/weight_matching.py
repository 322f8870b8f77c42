"""Matches the tensors of a file with the weights of a network: by name, and as a whole.

This is plain Python on names and shapes, so that a recipe's weight file is checked before
TensorFlow is imported, by the same rules that load it later.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tl_toolkit.catalog.layer_names import (
    count_of,
    find_known_name,
    parent_of,
    rename_layers,
)
from tl_toolkit.catalog.lookup import (
    ARCHITECTURES,
    Architecture,
    complete_arguments,
    read_variants,
)
from tl_toolkit.catalog.records import RGB, Value
from tl_toolkit.catalog.weight_counted import match_counted
from tl_toolkit.catalog.weight_files import SavedWeight, WeightsInfo
from tl_toolkit.catalog.weight_pairing import NamedShape, pair_weights

__all__ = ["Match", "NamedShape", "describe_misfit", "match_layers", "recognise", "suggest_base"]

_CLASSIFIER = re.compile(
    r"fc\d*|dense(_\d+)?|predictions|conv_preds|probs|logits|(head|classifier)(_\w+)?"
)
"""Names of the layers of a classifier, in keras.applications and in this toolkit."""

_NORMALIZES_RGB = "stem_normalization"
"""The layer of EfficientNet that a base of other channels does not have."""

_Saved = tuple[int, str, tuple[SavedWeight, ...]]
"""A layer of a file: its place, its name, its tensors."""


@dataclass
class Match:
    """How a file and a network fit.

    Attributes:
        by: "name", or "order" when no layer's name is in the file.
        weights: Tensors for each layer of the network, in the order of its weights.
        left_out: Layers of the file that are its classifier and that the network does not have.
        missing: Layers of the network that the file does not have.
        surplus: Other layers of the file that the network does not have.
        differing: A sentence for each layer that differs in shape.
    """

    by: Literal["name", "order"]
    weights: dict[str, tuple[SavedWeight, ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every weight has its tensor and nothing is left over."""
        return not (self.missing or self.surplus or self.differing)

    def __str__(self) -> str:
        """Returns what is wrong as one sentence; "" when it fits."""
        parts = []
        if self.missing:
            parts.append(f"the file has no {_list_names(self.missing)}")
        if self.surplus:
            parts.append(f"the network has no {_list_names(self.surplus)}")
        if self.differing:
            more = len(self.differing) - 1
            parts.append(self.differing[0] + (f" ({more} more layers differ)" if more else ""))
        return "; ".join(parts)


def _list_names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more layers"


def match_layers(network: Mapping[str, Sequence[NamedShape]], info: WeightsInfo) -> Match:
    """Finds the tensors of each layer.

    A layer of the file is matched by its name, with slashes as underscores, with or without the
    names of the models it was nested in. The name of a layer that Keras numbered by a counter of
    the process ("conv2d_12") means nothing: such layers that the network lacks are matched in the
    order of the numbers, each kind of layer by itself, if every shape is equal. When no name at all
    is known, layers are matched in the order of the file, if all counts and shapes are equal.
    So are those of a file of Keras 2, which names no layer.
    Layers that are left over are a classifier if they have the names of one, or if they come after
    all used layers and hold no kernel wider than one pixel. The kernel of a dense layer is that of
    a convolution with the same name, if the numbers of its inputs and outputs are equal.

    Args:
        network: Weights of each layer that has any, input to output.
        info: What the file holds.
    """
    if info.kind == "counted" and (counted := match_counted(network, info)) is not None:
        matched, others = counted
        heads = tuple(name for name in others if not _has_wide_kernel(info.layers[name]))
        surplus = tuple(name for name in others if name not in heads)
        return Match("order", weights=matched, left_out=heads, surplus=surplus)
    saved = rename_layers(network, info)
    if not any(name in network for name, _ in saved):
        ordered = _match_order(network, info)
        if ordered is not None:
            return ordered
    by_name: dict[str, tuple[SavedWeight, ...]] = {}
    rest: list[tuple[int, str, tuple[SavedWeight, ...]]] = []
    last = -1
    for position, (name, weights) in enumerate(saved):
        if name in network and name not in by_name:
            by_name[name] = weights
            last = position
        else:
            rest.append((position, name, weights))
    missing = [name for name in network if name not in by_name]
    for name, (position, saved_name, weights) in _pair_counted(network, missing, rest, info):
        by_name[name] = weights
        last = max(last, position)
        rest.remove((position, saved_name, weights))
    match = Match("name", missing=tuple(name for name in network if name not in by_name))
    for position, name, weights in rest:
        is_after = info.is_ordered and position > last and not _has_wide_kernel(weights)
        if by_name and (_CLASSIFIER.fullmatch(name) or is_after):
            match.left_out += (name,)
        else:
            match.surplus += (name,)
    _pair_layers(network, by_name, match)
    return match


def _pair_counted(
    network: Mapping[str, Sequence[NamedShape]],
    missing: Sequence[str],
    rest: Sequence[_Saved],
    info: WeightsInfo,
) -> list[tuple[str, _Saved]]:
    """Pairs the network's layers that no name was found for with the file's counted ones.

    Keras counts each kind of layer by itself, as layers are built, and the variables of the network
    have such numbers too. So the order of the file, which in a nested model begins with the
    trainable layers, does not matter. Layers left over are the head of the saved model.
    """
    counted = [layer for layer in rest if count_of(layer[1])[1] >= 0]
    own = {name: count_of(network[name][0][0].split("/")[0]) for name in missing}
    if all(count >= 0 for _, count in own.values()):
        pairs = []
        for kind in dict.fromkeys(kind for kind, _ in own.values()):
            ours = sorted((n for n in missing if own[n][0] == kind), key=lambda n: own[n][1])
            theirs = sorted(
                (layer for layer in counted if count_of(layer[1])[0] == kind),
                key=lambda layer: count_of(layer[1])[1],
            )
            pairs += list(zip(ours, theirs, strict=False))
    else:
        pairs = list(zip(missing, counted, strict=False)) if info.is_ordered else []
    fit = all(pair_weights(network[name], layer[2]) is not None for name, layer in pairs)
    return pairs if fit and len(pairs) == len(missing) else []


def _match_order(network: Mapping[str, Sequence[NamedShape]], info: WeightsInfo) -> Match | None:
    """Returns the match in order, None unless counts and shapes are equal."""
    saved = tuple(info.layers.values())
    if not info.is_ordered or len(saved) != len(network):
        return None
    for ours, theirs in zip(network.values(), saved, strict=True):
        if len(ours) != len(theirs):
            return None
        if any(s not in (None, w.shape) for (_, s), w in zip(ours, theirs, strict=True)):
            return None
    return Match("order", weights=dict(zip(network, saved, strict=True)))


def _has_wide_kernel(weights: Sequence[SavedWeight]) -> bool:
    return any(len(weight.shape) == 4 and max(weight.shape[:2]) > 1 for weight in weights)


def _pair_layers(
    network: Mapping[str, Sequence[NamedShape]],
    named: Mapping[str, tuple[SavedWeight, ...]],
    match: Match,
) -> None:
    for name, weights in network.items():
        if name not in named:
            continue
        paired = pair_weights(weights, named[name])
        if paired is None:
            ours = _list_shapes(shape for _, shape in weights)
            theirs = _list_shapes(weight.shape for weight in named[name])
            match.differing += (f"{name} has {ours} in the network and {theirs} in the file",)
        else:
            match.weights[name] = paired


def _list_shapes(shapes: Iterable[tuple[int, ...] | None]) -> str:
    return " + ".join("x".join(map(str, shape or ())) or "scalar" for shape in shapes)


def recognise(info: WeightsInfo) -> str:
    """Returns the network of a file, as "mobilenet with alpha = 0.75"; "" when none fits.

    Bases that end in a vector are known only at their default image size.

    Args:
        info: What the file holds.
    """
    network = _find_network(info)
    return _describe(*network) if network else ""


def suggest_base(
    architecture: Architecture, arguments: Mapping[str, Value], info: WeightsInfo
) -> str:
    """Returns the overrides with which a recipe takes a file, "" for a file of no known network.

    Args:
        architecture: The recipe's base.
        arguments: Its arguments.
        info: What the file holds.
    """
    network = _find_network(info)
    if network is None:
        return ""
    base, changed = network
    ours = complete_arguments(architecture, arguments) if base is architecture else {}
    defaults = complete_arguments(base, {})
    values = complete_arguments(base, changed)
    return " ".join(
        [
            *([] if base is architecture else [f"model.base={base.name}"]),
            *(
                f"model.arguments.{key}={value}"
                for key, value in values.items()
                if value != (ours or defaults)[key]
            ),
        ]
    )


def _find_network(info: WeightsInfo) -> tuple[Architecture, Mapping[str, Value]] | None:
    """Returns the first base on record, and its arguments, whose weights a file holds."""
    for name, architecture in ARCHITECTURES.items():
        for arguments, shapes in read_variants(name):
            network = {
                layer: [("", shape) for shape in weights] for layer, weights in shapes.items()
            }
            if match_layers(network, info).fits:
                return architecture, arguments
    return None


def _describe(architecture: Architecture, arguments: Mapping[str, Value]) -> str:
    """Names a base with the arguments that published files differ in, and with what was changed."""
    published = {key for file in architecture.weight_files for key in file.when}
    values = complete_arguments(architecture, arguments)
    defaults = complete_arguments(architecture, {})
    keys = sorted(key for key in values if key in published or values[key] != defaults[key])
    text = ", ".join(f"{key} = {values[key]}" for key in keys)
    return f"{architecture.name} with {text}" if text else architecture.name


def describe_misfit(
    architecture: Architecture,
    arguments: Mapping[str, Value],
    info: WeightsInfo,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int = RGB,
) -> str | None:
    """Describes why a file does not fit a base, before the base is built; None if it may fit.

    Only the names of the layers are compared for numbers that no published file has, and for bases
    that end in a vector unless `image_size` is the default. Nothing is compared for words and
    switches that change which layers there are and are not on record. Loading compares the rest.

    Args:
        architecture: The base's record.
        arguments: Arguments of its builder; they must be valid.
        info: What the file holds.
        image_size: (height, width) of the recipe.
        channels: Channels of the recipe's images. Weights of RGB fit others too: they are widened.
    """
    network = _known_shapes(architecture, arguments, image_size)
    if network is None:
        return None
    if channels != RGB and match_layers(_of_channels(network, channels), info).fits:
        return None
    if info.kind == "counted" and any(
        s is None for weights in network.values() for _, s in weights
    ):
        return None
    match = match_layers(network, info)
    if match.fits or _is_nested(network, info):
        return None
    expected = _describe(architecture, arguments)
    actual = recognise(info)
    if actual and actual != expected:
        lacks_only = match.weights and not (match.surplus or match.differing)
        why = f": {match}" if lacks_only else ""
        return f"holds the weights of {actual}, not of {expected}{why}"
    return f"does not fit {expected}: {match}"


def _of_channels(
    network: Mapping[str, Sequence[NamedShape]], channels: int
) -> dict[str, list[NamedShape]]:
    """Returns the weights of a base for other channels: its first kernel has as many."""
    widened: dict[str, list[NamedShape]] = {}
    is_first = True
    for layer, weights in network.items():
        if layer.startswith(_NORMALIZES_RGB):
            continue
        widened[layer] = []
        for name, shape in weights:
            if is_first and shape is not None and len(shape) == 4:
                shape, is_first = (*shape[:2], channels, shape[3]), False
            widened[layer].append((name, shape))
    return widened


def _is_nested(network: Mapping[str, Sequence[NamedShape]], info: WeightsInfo) -> bool:
    """Returns whether a group of the file holds several layers: only loading can match those."""
    return any(
        find_known_name(name, set(network)) is None
        and len({parent_of(w.name) for w in weights}) > 1
        for name, weights in info.layers.items()
    )


def _known_shapes(
    architecture: Architecture,
    arguments: Mapping[str, Value],
    image_size: tuple[int, int] | None,
) -> dict[str, list[NamedShape]] | None:
    """Returns the weights of a base that is not built, None where even their number is unknown."""
    size = architecture.default_size
    shapes_hold = architecture.output == "map" or image_size == (size, size)
    defaults = complete_arguments(architecture, {})
    values = complete_arguments(architecture, arguments)
    changed = {
        name: value
        for name, value in values.items()
        if value != defaults[name] and value not in architecture.arguments[name].alike
    }
    variants = {
        tuple(sorted(values.items())): shapes for values, shapes in read_variants(architecture.name)
    }
    exact = variants.get(tuple(sorted(changed.items())))
    if exact is not None and shapes_hold:
        return {layer: [("", s) for s in weights] for layer, weights in exact.items()}
    if exact is None:
        # Numbers change shapes alone; a word or a switch may change which layers there are.
        words = {n: v for n, v in changed.items() if architecture.arguments[n].kind in (bool, str)}
        exact = variants.get(tuple(sorted(words.items())))
    if exact is None:
        return None
    return {layer: [("", None) for _ in weights] for layer, weights in exact.items()}
