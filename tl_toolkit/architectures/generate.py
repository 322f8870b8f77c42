"""Writes `blocks.json` and `shapes.json` from the graphs.

Run `python -m tl_toolkit.architectures.generate NAME...` after a change of a builder or a record;
without names it builds every architecture, which takes minutes.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from tl_toolkit.architectures.graph import BlockGraph, build_base, find_blocks, layer_variables
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.architectures.taps import find_taps
from tl_toolkit.catalog.lookup import (
    BLOCKS_FILE,
    PIXEL_STEP,
    SHAPES_FILE,
    check_image_size,
)
from tl_toolkit.catalog.records import Architecture, Value
from tl_toolkit.catalog.registry import RECORDS
from tl_toolkit.keras_private import producer_of

__all__ = ["describe_blocks", "describe_shapes", "main"]


def describe_blocks(architecture: Architecture) -> dict[str, Any]:
    """Returns the entry of `blocks.json`, read off the graph for the default arguments.

    Args:
        architecture: The catalog's record.
    """
    blocks = _build(architecture, {})
    end = blocks[-1].units[-1].tensor
    return {
        "output": "map" if len(end.shape) == 4 else "vector",
        "taps": _describe_taps(architecture),
        "parameters": sum(map(_count, blocks)),
        "blocks": {
            block.name: {
                "parameters": _count(block),
                "units": {unit.name: unit.end_layer for unit in block.units},
                "channels": [unit.tensor.shape[-1] for unit in block.units],
            }
            for block in blocks
        },
    }


def _describe_taps(architecture: Architecture) -> list[str]:
    """Returns the layers of `find_taps`, at a size that has a whole number of cells if any has."""
    size = -(-architecture.default_size // PIXEL_STEP) * PIXEL_STEP
    if check_image_size(architecture, (size, size)):
        return []
    _, pixels, features = _build_base(architecture, {}, size)
    taps = find_taps(architecture, pixels, features)
    return [producer_of(tap).name for tap in taps]


def _count(block: BlockGraph) -> int:
    return sum(int(layer.count_params()) for layer in block.layers)


def describe_shapes(architecture: Architecture) -> list[dict[str, Any]]:
    """Returns the entry of `shapes.json`: a row for the defaults and for each published width.

    There is also a row for each word or switch that changes the layers or the weights.

    Args:
        architecture: The catalog's record.
    """
    default = _layer_shapes(_build(architecture, {}))
    rows: list[dict[str, Any]] = [{"arguments": {}, "layers": default}]
    for arguments in _published_arguments(architecture):
        rows.append(
            {"arguments": arguments, "layers": _layer_shapes(_build(architecture, arguments))}
        )
    for arguments in _switched_arguments(architecture):
        layers = _layer_shapes(_build(architecture, arguments))
        row = {"arguments": arguments, "layers": layers}
        if layers != default and row not in rows:
            rows.append(row)
    return rows


def _build(architecture: Architecture, arguments: Mapping[str, Value]) -> tuple[BlockGraph, ...]:
    _, pixels, features = _build_base(architecture, arguments, architecture.default_size)
    return find_blocks(architecture, pixels, features)


def _build_base(
    architecture: Architecture, arguments: Mapping[str, Value], size: int
) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
    image = keras.Input((size, size, 3), name="image")
    pixels = apply_pixel_rule(image, architecture.pixels)
    return image, pixels, build_base(architecture, pixels, arguments)


def _published_arguments(architecture: Architecture) -> Iterator[dict[str, Value]]:
    """Yields each distinct set of argument values; a value that is the default is left out."""
    seen: list[dict[str, Value]] = []
    for when in (file.when for file in architecture.weight_files):
        arguments = {
            name: value
            for name, value in when.items()
            if value != architecture.arguments[name].default
        }
        if arguments and arguments not in seen:
            seen.append(arguments)
    yield from seen


def _switched_arguments(architecture: Architecture) -> Iterator[dict[str, Value]]:
    """Yields every value but the default of each argument that is a word or a switch."""
    for name, argument in architecture.arguments.items():
        values: tuple[Value, ...] = (True, False) if argument.kind is bool else argument.choices
        yield from ({name: value} for value in values if value != argument.default)


def _layer_shapes(blocks: tuple[BlockGraph, ...]) -> dict[str, str]:
    """Returns each layer's weight shapes as text: "3x3x3x32", or "32 32 32 32" for a BatchNorm."""
    shapes = {}
    for block in blocks:
        for layer in block.layers:
            texts = ["x".join(map(str, v.shape)) or "()" for v in layer_variables(layer)]
            if texts:
                shapes[layer.name] = " ".join(texts)
    return shapes


def _read(path: Any) -> dict[str, Any]:
    entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def _write(path: Any, entries: Mapping[str, Any]) -> None:
    """Writes each architecture on a line of its own: the file stays small, its changes readable."""
    lines = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main(names: Sequence[str] = ()) -> None:
    """Builds architectures and writes both files.

    Args:
        names: The architectures that changed; the entries of others are kept. By default all.
    """
    chosen = [record for record in RECORDS if not names or record.name in names]
    if unknown := set(names) - {record.name for record in chosen}:
        raise SystemExit(f"unknown architectures: {', '.join(sorted(unknown))}")
    blocks, shapes = (_read(path) if names else {} for path in (BLOCKS_FILE, SHAPES_FILE))
    for record in chosen:
        print(record.name, flush=True)
        blocks[record.name] = describe_blocks(record)
        shapes[record.name] = describe_shapes(record)
        keras.backend.clear_session()
    order = [record.name for record in RECORDS]
    for path, entries in ((BLOCKS_FILE, blocks), (SHAPES_FILE, shapes)):
        _write(path, {name: entries[name] for name in order if name in entries})


if __name__ == "__main__":
    main(sys.argv[1:])
