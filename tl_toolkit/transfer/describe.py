"""An architecture in numbers: its units with shapes, parameters and what would train."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras

from tl_toolkit.architectures.catalog import Architecture, resolve_unfreeze
from tl_toolkit.architectures.graph import apply_pixel_rule, build_base, find_blocks
from tl_toolkit.recipe.schema import UnfreezeFrom
from tl_toolkit.transfer.freezing import is_batch_norm


def describe_base(
    architecture: Architecture,
    arguments: Mapping[str, Any],
    image_size: tuple[int, int],
    unfreeze: int | UnfreezeFrom | tuple[str, ...] = 0,
) -> list[dict[str, Any]]:
    """Draws a base and counts.

    Args:
        architecture: The catalog's record.
        arguments: Arguments of the builder.
        image_size: (height, width) in pixels.
        unfreeze: As in a recipe's phase, with frozen BatchNormalization.

    Returns:
        A row for each unit: block, unit, end (layer), shape (without the batch), parameters,
        trainable.

    Raises:
        RecipeError: An argument or `unfreeze` is out of range.
    """
    trained = set(resolve_unfreeze(architecture, unfreeze))
    image = keras.Input((*image_size, 3), dtype="float32")
    pixels = apply_pixel_rule(image, architecture.pixels)
    features = build_base(architecture, pixels, arguments)
    rows = []
    for block in find_blocks(architecture, pixels, features):
        for unit in block.units:
            trains = unit.name in trained
            rows.append(
                {
                    "block": block.name,
                    "unit": unit.name,
                    "end": unit.end_layer,
                    "shape": list(unit.tensor.shape[1:]),
                    "parameters": sum(layer.count_params() for layer in unit.layers),
                    "trainable": sum(_trainable(layer) for layer in unit.layers if trains),
                }
            )
    return rows


def _trainable(layer: keras.layers.Layer) -> int:
    if is_batch_norm(layer):
        return 0
    return sum(math.prod(variable.shape) for variable in layer.trainable_variables)
