"""Writes `blocks.json` and `shapes.json` from the graphs.

Run `python -m tl_toolkit.architectures.generate` after a change of a builder or a record.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tl_toolkit.architectures.catalog import BLOCKS_FILE, SHAPES_FILE
from tl_toolkit.architectures.graph import (
    BlockGraph,
    apply_pixel_rule,
    build_base,
    find_blocks,
    layer_variables,
)
from tl_toolkit.architectures.records import Architecture, Value
from tl_toolkit.architectures.registry import RECORDS

__all__ = ["describe_blocks", "describe_shapes"]


def describe_blocks(architecture: Architecture) -> dict[str, Any]:
    """Returns the entry of `blocks.json`, read off the graph for the default arguments."""
    blocks = _draw(architecture, {})
    end = blocks[-1].units[-1].tensor
    return {
        "output": "map" if len(end.shape) == 4 else "vector",
        "parameters": sum(layer.count_params() for block in blocks for layer in block.layers),
        "blocks": {
            block.name: {unit.name: unit.end_layer for unit in block.units} for block in blocks
        },
    }


def describe_shapes(architecture: Architecture) -> list[dict[str, Any]]:
    """Returns the entry of `shapes.json`: one row for the defaults and for each published width."""
    return [
        {"arguments": arguments, "layers": _layer_shapes(_draw(architecture, arguments))}
        for arguments in _published_arguments(architecture)
    ]


def _draw(architecture: Architecture, arguments: Mapping[str, Value]) -> tuple[BlockGraph, ...]:
    size = architecture.default_size
    image = keras.Input((size, size, 3), name="image")
    pixels = apply_pixel_rule(image, architecture.pixels)
    return find_blocks(architecture, pixels, build_base(architecture, pixels, arguments))


def _published_arguments(architecture: Architecture) -> Iterator[dict[str, Value]]:
    """Yields each distinct set of argument values; a value that is the default is left out."""
    seen: list[dict[str, Value]] = []
    for when in ({}, *(file.when for file in architecture.weight_files)):
        arguments = {
            name: value
            for name, value in when.items()
            if value != architecture.arguments[name].default
        }
        if arguments not in seen:
            seen.append(arguments)
    yield from seen


def _layer_shapes(blocks: tuple[BlockGraph, ...]) -> dict[str, str]:
    """Returns each layer's weight shapes as text: "3x3x3x32", or "32 32 32 32" for a BatchNorm."""
    shapes = {}
    for block in blocks:
        for layer in block.layers:
            texts = ["x".join(map(str, v.shape)) or "()" for v in layer_variables(layer)]
            if texts:
                shapes[layer.name] = " ".join(texts)
    return shapes


def _write(path: Any, entries: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Draws every architecture and writes both files."""
    _write(BLOCKS_FILE, {record.name: describe_blocks(record) for record in RECORDS})
    _write(SHAPES_FILE, {record.name: describe_shapes(record) for record in RECORDS})


if __name__ == "__main__":
    main()
