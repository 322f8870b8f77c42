"""Looks up an architecture in the catalog of plain data: sizes, blocks, weight files.

No Keras here, so that a recipe can be checked, and an architecture shown, in milliseconds. Blocks
and counts come from `blocks.json`, which `python -m tl_toolkit.architectures.generate` writes from
the graphs.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tl_toolkit.catalog.arguments import (
    check_arguments,
    complete_arguments,
    suggest_published,
)
from tl_toolkit.catalog.records import (
    Architecture,
    Argument,
    Block,
    PixelRule,
    Unit,
    Value,
    WeightFile,
    rename,
)
from tl_toolkit.catalog.registry import PIXEL_RULES, RECORDS
from tl_toolkit.catalog.unfreezing import Unfreeze, resolve_unfreeze
from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = [
    "ARCHITECTURES",
    "PIXEL_RULES",
    "Architecture",
    "Argument",
    "Block",
    "LayerShapes",
    "PixelRule",
    "Unfreeze",
    "Unit",
    "Variant",
    "WeightFile",
    "check_arguments",
    "check_image_size",
    "complete_arguments",
    "find_architecture",
    "find_block_name",
    "find_unit_name",
    "find_weight_file",
    "read_variants",
    "resolve_unfreeze",
    "describe_unpublished",
]

BLOCKS_FILE = Path(__file__).with_name("blocks.json")
SHAPES_FILE = Path(__file__).with_name("shapes.json")

PIXEL_STEP = 32
"""Images are padded to a multiple of this many pixels before single pixels of them are predicted:
the stride of the last map of all bases that have maps on whole strides."""

LayerShapes = Mapping[str, tuple[tuple[int, ...], ...]]
"""Shapes of the weights of each layer that has any, in the order of `layer.weights`."""

Variant = tuple[Mapping[str, Value], LayerShapes]
"""Argument values (the rest are defaults) and the shapes that go with them."""


def _load_architectures() -> Mapping[str, Architecture]:
    generated = json.loads(BLOCKS_FILE.read_text(encoding="utf-8"))
    # A record without blocks must load: the generator adds them.
    return MappingProxyType(
        {
            record.name: _complete(record, generated[record.name])
            if record.name in generated
            else record
            for record in RECORDS
        }
    )


def _complete(record: Architecture, generated: Mapping[str, Any]) -> Architecture:
    blocks = tuple(
        Block(
            name,
            tuple(
                Unit(unit, end, channels)
                for (unit, end), channels in zip(
                    entry["units"].items(), entry["channels"], strict=True
                )
            ),
            entry["parameters"],
        )
        for name, entry in generated["blocks"].items()
    )
    rest = {name: generated[name] for name in ("parameters", "output")}
    return replace(record, blocks=blocks, taps=tuple(generated["taps"]), **rest)


ARCHITECTURES: Mapping[str, Architecture] = _load_architectures()
"""Every architecture by name."""


def find_architecture(name: str) -> Architecture:
    """Returns the record of an architecture.

    Args:
        name: Its name in the catalog.

    Raises:
        RecipeError: There is no such architecture; the text names the closest one.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.endswith(".keras"):
        expected = "A base of your own is a section, which names its file."
        hint = f"model.base={{model: {name}}}"
        raise RecipeError(Problem("", f"model.base = {name!r}", expected, hint))
    stem, dot, _ = name.rpartition(".")
    if dot and not closest(name, ARCHITECTURES):  # a file, whose ending is mistyped or another one
        expected = "Unknown base; a model of your own is a section, and its file ends in .keras."
        hint = f"model.base={{model: {stem}.keras}}"
        raise RecipeError(Problem("", f"model.base = {name!r}", expected, hint))
    near = closest(name, ARCHITECTURES) or f"expected one of {len(ARCHITECTURES)} names."
    expected = f"Unknown base; {near}"
    raise RecipeError(Problem("", f"model.base = {name!r}", expected, "tltool models list"))


@cache
def read_variants(name: str) -> tuple[Variant, ...]:
    """Returns the weight shapes of an architecture for each set of arguments that is on record.

    The first are the defaults. Shapes hold at the default size; those of a base that ends in a
    vector depend on the image size. They are read from a file of their own on the first call.

    Args:
        name: The architecture's name in the catalog.
    """
    rows = _read_shapes_file()[name]
    return tuple((row["arguments"], _parse_shapes(row["layers"])) for row in rows)


@cache
def _read_shapes_file() -> Any:
    return json.loads(SHAPES_FILE.read_text(encoding="utf-8"))


def _parse_shapes(layers: Mapping[str, str]) -> LayerShapes:
    return {
        layer: tuple(
            tuple(int(n) for n in shape.split("x")) if shape != "()" else ()
            for shape in text.split()
        )
        for layer, text in layers.items()
    }


def find_unit_name(architecture: Architecture, layer_name: str) -> str | None:
    """Returns the unit that a layer lies in by its name, None where no rule holds for it.

    Args:
        architecture: The base's record.
        layer_name: Canonical name of a layer.
    """
    known = architecture.layer_units.get(layer_name)
    return known or rename(layer_name, architecture.unit_names)


def find_block_name(architecture: Architecture, unit_name: str) -> str | None:
    """Returns the block that a unit lies in by its name, None for what is no unit.

    Args:
        architecture: The base's record.
        unit_name: Name of a unit.
    """
    if architecture.layer_units:
        blocks = {unit.name: block.name for block in architecture.blocks for unit in block.units}
        return blocks.get(unit_name)
    return rename(unit_name, architecture.block_names)


def check_image_size(architecture: Architecture, image_size: tuple[int, int]) -> Problem | None:
    """Returns the problem of an image size for a base, None when the size is allowed.

    Args:
        architecture: The base's record.
        image_size: (height, width) in pixels.
    """
    least, step = architecture.minimum_size, architecture.size_step
    height, width = image_size
    if architecture.fixed_size not in (None, image_size):
        h, w = architecture.fixed_size or image_size
        return Problem(
            "",
            f"data.image_size = [{height}, {width}]",
            f"{architecture.name} was built for images of {h} x {w} pixels and takes no others.",
            f"data.image_size=[{h}, {w}]",
        )
    if min(image_size) >= least:
        if all((side - least) % step == 0 for side in image_size):
            return None
        near = [least + max(0, round((side - least) / step)) * step for side in image_size]
        return Problem(
            "",
            f"data.image_size = [{height}, {width}]",
            f"{architecture.name} needs sizes of {least} plus a multiple of {step}.",
            f"data.image_size=[{near[0]}, {near[1]}]",
        )
    usual = max(0, min(architecture.default_size, 224) - least)
    return Problem(
        "",
        f"data.image_size = [{height}, {width}]",
        f"{architecture.name} needs images of at least {least} x {least} pixels.",
        f"data.image_size={least + math.ceil(usual / step) * step}",
    )


def find_weight_file(
    architecture: Architecture, arguments: Mapping[str, Value], image_size: tuple[int, int]
) -> WeightFile | None:
    """Returns the published file for these arguments, None where none was published.

    As in Keras, square images of a size that the base was trained on take the file of that size,
    and all others take the file of the default size.

    Args:
        architecture: The base's record.
        arguments: Arguments of its builder; they must be valid.
        image_size: (height, width) in pixels.
    """
    completed = complete_arguments(architecture, arguments)
    defaults = {
        name: argument.default
        for name, argument in architecture.arguments.items()
        if not argument.weightless
    }
    values = {name: completed[name] for name in defaults}
    fitting = {
        file.image_size: file
        for file in architecture.weight_files
        if {**defaults, **file.when} == values
    }
    height, width = image_size
    if height == width and height in fitting:
        return fitting[height]
    return fitting.get(architecture.default_size)


def describe_unpublished(architecture: Architecture, arguments: Mapping[str, Value]) -> Problem:
    """Describes that no file was published for a base's arguments, and for which there is a file.

    Args:
        architecture: The base's record.
        arguments: Arguments of its builder; they must be valid.
    """
    completed = complete_arguments(architecture, arguments)
    defaults = complete_arguments(architecture, {})
    published: dict[str, list[Value]] = {}
    for file in architecture.weight_files:
        for name, value in {**defaults, **file.when}.items():
            if value not in published.setdefault(name, []):
                published[name].append(value)
    listed = "; ".join(
        f"{name} {', '.join(map(_spell, values))}"
        for name, values in published.items()
        if (len(values) > 1 or completed[name] not in values)
        and not architecture.arguments[name].weightless
    )
    expected = f"no ImageNet weights of {architecture.name} were ever published"
    if published:
        expected = f"ImageNet weights of {architecture.name} were published for {listed} only"
    expected += ": expected random or the path of a weight file."
    wrong = [
        name
        for name, values in published.items()
        if completed[name] not in values and not architecture.arguments[name].weightless
    ]
    hint = _find_way_out(architecture)
    if len(wrong) == 1:
        value = suggest_published(architecture, wrong[0], completed[wrong[0]])
        hint = f"model.arguments.{wrong[0]}={_spell(value)}, or model.weights=random"
    return Problem("", "model.weights = 'imagenet'", expected, hint)


def _spell(value: Value) -> str:
    """Returns a value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _find_way_out(architecture: Architecture) -> str:
    """Names the arguments that files were published for, or a base of the family that has some."""
    if architecture.weight_files:
        when = {**complete_arguments(architecture, {}), **architecture.weight_files[-1].when}
        return (
            "weights: random, or arguments: {"
            + ", ".join(f"{name}: {_spell(value)}" for name, value in when.items())
            + "}"
        )
    relatives = [
        relative.name
        for relative in ARCHITECTURES.values()
        if relative.family == architecture.family and relative.weight_files
    ]
    return "weights: random" + (f", or base: {relatives[0]}" if relatives else "")
