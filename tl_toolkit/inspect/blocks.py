"""Blocks, units and layers by name, as maps inside a model; and a base alone, to look inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tl_toolkit.architectures.graph import BlockGraph, build_base, find_blocks
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.catalog.lookup import Architecture, find_block_name, find_unit_name
from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.inspect.scores import list_maps
from tl_toolkit.runtime import derive_seed, initializers_seeded
from tl_toolkit.transfer.weights import find_weights, load_weights

__all__ = ["build_feature_model", "build_loaded_base", "find_block_of", "find_map"]


def build_loaded_base(
    architecture: Architecture,
    arguments: Mapping[str, Any],
    image_size: tuple[int, int],
    *,
    weights: str,
    seed: int,
) -> tuple[keras.KerasTensor, keras.KerasTensor, tuple[BlockGraph, ...]]:
    """Builds a base from its images on, and loads its weights.

    Args:
        architecture: The catalog's record.
        arguments: Arguments of the builder.
        image_size: (height, width) in pixels.
        weights: "random", "imagenet" or the path of a weight file; a model of the user's own has
            its own, whatever this says.
        seed: Random weights follow from it.

    Returns:
        The images, float32 (batch, h, w, 3), RGB in 0..255; the base's output; its blocks.

    Raises:
        WeightsError: The weight file is missing, damaged, or of another network.
    """
    with initializers_seeded(derive_seed(seed, "base")):
        image = keras.Input((*image_size, 3), dtype="float32", name="image")
        preprocessed = apply_pixel_rule(image, architecture.pixels)
        features = build_base(architecture, preprocessed, arguments)
    blocks = find_blocks(architecture, preprocessed, features)
    path = None
    if not architecture.file:
        path = find_weights(architecture, arguments, image_size, weights)
    if path is not None:
        load_weights([layer for block in blocks for layer in block.layers], path)
    return image, features, blocks


def build_feature_model(image: keras.KerasTensor, features: keras.KerasTensor) -> keras.Model:
    """Builds a model of a base without a head, whose score is how strong its features are.

    Args:
        image: What enters the base.
        features: What leaves it: a map, whose mean over positions counts, or a vector.

    Returns:
        A model from the images to (batch, 1): half the sum of the squared features. Its gradient
        at the features are the features, so that heat lies where a position resembles the whole.
    """
    x = features
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(image, keras.ops.sum(keras.ops.square(x), axis=-1, keepdims=True) / 2)


def find_map(
    model: keras.Model, architecture: Architecture, name: str, *, option: str = "--block"
) -> str:
    """Returns the layer whose map ends a block or a unit.

    Args:
        model: A model on this base.
        architecture: The record of the base.
        name: A block, a unit or a layer; the first of these that has this name.
        option: What names it in a command, for an error.

    Raises:
        RecipeError: None has this name, or it has no map (batch, h, w, channels).
    """
    blocks: dict[str, str] = {}
    units: dict[str, str] = {}
    for layer in (maps := list_maps(model)):
        unit = find_unit_name(architecture, layer)
        if unit is not None:
            units[unit] = layer
            blocks[find_block_name(architecture, unit) or unit] = layer
    known = {**{layer: layer for layer in maps}, **units, **blocks}
    if name in known:
        return known[name]
    is_vector = any(name in (block.name, *(unit.name for unit in block.units))
                    for block in architecture.blocks)  # fmt: skip
    is_layer = any(name == layer.name for layer in model.layers)
    what = f"{name!r} is no block, unit or layer of {architecture.name}"
    if is_vector or is_layer:
        what = f"{name!r} has no map: a vector has no positions"
    guess = closest(name, list(known))
    expected = f"Expected one of the blocks {', '.join(blocks)}, or a unit or layer in them"
    expected = f"{expected}; {guess}" if guess else f"{expected}."
    hint = f"tltool models show {architecture.reference} --layers"
    raise RecipeError(Problem(option, what, expected, hint))


def find_block_of(architecture: Architecture, layer: str) -> str:
    """Returns the block that a layer lies in, or its own name where that is in none.

    Args:
        architecture: The record of the base.
        layer: Name of a layer.
    """
    unit = find_unit_name(architecture, layer)
    return (find_block_name(architecture, unit) if unit else None) or layer
