"""Preprocessing, base and head as ONE flat functional graph, with its units in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras

from tl_toolkit.architectures.catalog import Architecture, find_architecture
from tl_toolkit.architectures.graph import (
    BlockGraph,
    apply_pixel_rule,
    build_base,
    find_blocks,
    layer_variables,
)
from tl_toolkit.architectures.layers import EdgeFilter
from tl_toolkit.recipe.schema import Model
from tl_toolkit.runtime import derive_seed
from tl_toolkit.transfer.heads import (
    build_head,
    build_regularizer,
    initialize_head,
    is_head,
)
from tl_toolkit.transfer.weights import LoadedWeights, find_weights, load_weights

HEAD = "head"
_REGULARIZERS = {
    "kernel": "kernel_regularizer",
    "depthwise_kernel": "depthwise_regularizer",
    "pointwise_kernel": "pointwise_regularizer",
}


@dataclass(frozen=True)
class Part:
    """A run of layers that is frozen or trained as one: a unit of the base, or the head.

    Attributes:
        block: Name of the block that it belongs to; `head` for the head.
        name: Name of the unit; `head` for the head.
        layers: Its layers, input to output.
        inputs: The tensors that enter it; what the part before it ends at.
    """

    block: str
    name: str
    layers: tuple[keras.layers.Layer, ...]
    inputs: tuple[keras.KerasTensor, ...]


@dataclass(frozen=True)
class TransferModel:
    """A whole model and where its parts begin.

    Attributes:
        model: float32 RGB (batch, h, w, 3) in 0..255 to probabilities.
        architecture: The catalog's record of the base.
        parts: Units of the base in order, then the head.
        weights: The file that the base was loaded from, and how; None for random weights.
    """

    model: keras.Model
    architecture: Architecture
    parts: tuple[Part, ...]
    weights: LoadedWeights | None = None

    def variables(self) -> Iterator[tuple[Part, str, keras.Variable]]:
        """Every weight and moving statistic with its part and its canonical name."""
        for part in self.parts:
            for layer in part.layers:
                for found in layer_variables(layer):
                    yield part, f"{found.layer}/{found.index}", found.variable


def assemble(
    settings: Model,
    *,
    image_size: tuple[int, int],
    num_classes: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> TransferModel:
    """Draws the model of a recipe and loads its base's weights.

    Args:
        settings: The recipe's `model` section.
        image_size: (height, width) of the images.
        num_classes: Number of classes, at least 2.
        seed: Random weights and dropout follow from it. Sets Keras's global seed, which is the only
            one that keras.applications listens to.
        progress: Is told bytes done and in all while a published weight file is fetched.

    Raises:
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    architecture = find_architecture(settings.base)
    keras.utils.set_random_seed(derive_seed(seed, "base"))
    image = keras.Input((*image_size, 3), dtype="float32", name="image")
    pixels = apply_pixel_rule(image, architecture.pixels)
    if settings.edge_filter is not None:
        pixels = EdgeFilter(settings.edge_filter, name="pixels_edges")(pixels)
    features = build_base(architecture, pixels, dict(settings.arguments))
    blocks = find_blocks(architecture, pixels, features)
    path = find_weights(
        architecture, dict(settings.arguments), image_size, settings.weights, progress=progress
    )
    _penalize(blocks, build_regularizer(settings.l1, settings.l2))
    loaded = None
    if path is not None:
        loaded = load_weights([layer for block in blocks for layer in block.layers], path)
    outputs = build_head(features, settings.head, num_classes=num_classes)
    model = keras.Model(image, outputs, name=architecture.name)
    parts = _parts(model, blocks, features)
    initialize_head(parts[-1].layers, derive_seed(seed, "head"))
    return TransferModel(model, architecture, parts, loaded)


def _penalize(
    blocks: tuple[BlockGraph, ...], penalty: keras.regularizers.Regularizer | None
) -> None:
    """Puts a penalty on each kernel of a base; Keras counts it only while the kernel trains.

    On the layer too where it has such an argument, so that the saved model holds it.
    """
    for layer in (layer for block in blocks for layer in block.layers):
        for variable in layer.trainable_weights:
            if variable.name.endswith("kernel"):  # depthwise and pointwise ones too; no biases
                variable.regularizer = penalty
                argument = _REGULARIZERS.get(variable.name, "")
                if hasattr(layer, argument):
                    setattr(layer, argument, penalty)


def _parts(
    model: keras.Model, blocks: tuple[BlockGraph, ...], features: keras.KerasTensor
) -> tuple[Part, ...]:
    units = [
        Part(block.name, unit.name, unit.layers, unit.inputs)
        for block in blocks
        for unit in block.units
    ]
    head = tuple(layer for layer in model.layers if is_head(layer))
    return (*units, Part(HEAD, HEAD, head, (features,)))
