"""What the toolkit knows about each architecture, as plain data: sizes, blocks, weight files.

No Keras here, so that a recipe can be checked, and an architecture shown, in milliseconds. Blocks
and counts come from `blocks.json`, which `python -m tl_toolkit.architectures.generate` writes from
the graphs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

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
from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = [
    "ARCHITECTURES",
    "PIXEL_RULES",
    "Architecture",
    "Argument",
    "Block",
    "LayerShapes",
    "PixelRule",
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


class UnfreezeFrom(Protocol):
    """The recipe's `unfreeze: {from: UNIT}`."""

    @property
    def unit(self) -> str:
        """Name of the first unit that trains."""


def _load_architectures() -> Mapping[str, Architecture]:
    generated = json.loads(BLOCKS_FILE.read_text(encoding="utf-8"))
    # A record that is still without blocks must load: the generator draws it.
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
            tuple(Unit(unit, end) for unit, end in entry["units"].items()),
            entry["parameters"],
        )
        for name, entry in generated["blocks"].items()
    )
    rest = {name: generated[name] for name in ("parameters", "output")}
    return replace(record, blocks=blocks, taps=tuple(generated["taps"]), **rest)


ARCHITECTURES: Mapping[str, Architecture] = _load_architectures()
"""Every architecture by name."""


def find_architecture(name: str) -> Architecture:
    """Returns the record of `name`.

    Raises:
        RecipeError: There is no such architecture; the text names the closest one.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = closest(name, ARCHITECTURES) or f"expected one of {len(ARCHITECTURES)} names."
    expected = f"Unknown base; {near}"
    raise RecipeError(Problem("", f"model.base = {name!r}", expected, "tltool models list"))


@cache
def read_variants(name: str) -> tuple[Variant, ...]:
    """Returns the weight shapes of an architecture for each set of arguments that is on record.

    The first are the defaults. Shapes hold at the default size; those of a base that ends in a
    vector depend on the image size.
    Read from a file of its own on the first call.
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
    """Returns the unit that a layer's name tells, None where the rules are silent about it."""
    known = architecture.layer_units.get(layer_name)
    return known or rename(layer_name, architecture.unit_names)


def find_block_name(architecture: Architecture, unit_name: str) -> str | None:
    """Returns the block that a unit's name tells, None for what is no unit."""
    if architecture.layer_units:
        blocks = {unit.name: block.name for block in architecture.blocks for unit in block.units}
        return blocks.get(unit_name)
    return rename(unit_name, architecture.block_names)


def complete_arguments(
    architecture: Architecture, arguments: Mapping[str, Value]
) -> dict[str, Value]:
    """Returns every argument of the builder: the given values, in their own types, else defaults.

    Raises:
        RecipeError: An argument is unknown or out of range; all problems at once.
    """
    problems = check_arguments(architecture, arguments)
    if problems:
        raise RecipeError(tuple(problems.values()))
    defaults = {name: argument.default for name, argument in architecture.arguments.items()}
    given = {name: architecture.arguments[name].kind(value) for name, value in arguments.items()}
    return {**defaults, **given}


def check_arguments(
    architecture: Architecture, arguments: Mapping[str, Value]
) -> dict[str, Problem]:
    """Returns what is wrong with a base's arguments, by argument name; empty when all is well."""
    problems = {}
    for name, value in arguments.items():
        expected = _expect_argument(architecture, name, value)
        if expected:
            hint = f"tltool models show {architecture.reference}"
            problems[name] = Problem("", f"model.arguments.{name} = {value!r}", expected, hint)
    return problems


def _expect_argument(architecture: Architecture, name: str, value: Value) -> str:
    """Says what was expected instead of `value`; "" when it is right."""
    argument = architecture.arguments.get(name)
    if argument is None:
        known = ", ".join(sorted(architecture.arguments)) or "none"
        near = closest(name, architecture.arguments)
        return f"{architecture.name} has no argument {name!r}; " + (near or f"it has: {known}.")
    if argument.choices:
        choices = ", ".join(argument.choices)
        return "" if value in argument.choices else f"Expected one of: {choices}."
    kinds = (int, float) if argument.kind is float else (argument.kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and argument.kind is not bool):
        return f"Expected {_KIND_WORDS[argument.kind]}, got {type(value).__name__}."
    return _expect_range(argument, value)


_KIND_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}


def _expect_range(argument: Argument, value: Value) -> str:
    if isinstance(value, str) or argument.low is None or argument.high is None:
        return ""
    # `not (low <= x <= high)` and not its mirror image: a NaN is out of every range.
    if not argument.low <= value <= argument.high:
        return f"Expected {argument.low:g} to {argument.high:g}."
    return ""


def check_image_size(architecture: Architecture, image_size: tuple[int, int]) -> Problem | None:
    """Returns what is wrong with (height, width) for this base, None when it is large enough."""
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


def resolve_unfreeze(
    architecture: Architecture, unfreeze: int | UnfreezeFrom | Sequence[str]
) -> tuple[str, ...]:
    """Returns the names of the units that train, input to output.

    Args:
        architecture: The base's record.
        unfreeze: How many blocks train, counted from the output; or the unit that training begins
            at; or names of blocks.

    Raises:
        RecipeError: Out of range or unknown; its one problem has no place.
    """
    blocks = architecture.blocks
    if isinstance(unfreeze, bool) or (isinstance(unfreeze, int) and unfreeze < 0):
        raise _unfreeze_error(architecture, repr(unfreeze))
    if isinstance(unfreeze, int):
        if unfreeze > len(blocks):
            raise _unfreeze_error(architecture, repr(unfreeze))
        return _unit_names(blocks[len(blocks) - unfreeze :])
    if isinstance(unfreeze, Sequence):
        return _units_of_blocks(architecture, unfreeze)
    units = _unit_names(blocks)
    # In a model of the user's own any layer stands for its unit: who built it knows the layers.
    first = architecture.layer_units.get(unfreeze.unit, unfreeze.unit)
    if first not in units:
        raise _unknown_unit_error(architecture, unfreeze.unit)
    return units[units.index(first) :]


def _unit_names(blocks: Sequence[Block]) -> tuple[str, ...]:
    return tuple(unit.name for block in blocks for unit in block.units)


def _unfreeze_error(architecture: Architecture, found: str) -> RecipeError:
    names = ", ".join(block.name for block in architecture.blocks)
    count = len(architecture.blocks)
    expected = f"{architecture.name} has {count} blocks ({names}): expected 0 to {count}."
    hint = f"tltool models show {architecture.reference}"
    return RecipeError(Problem("", f"unfreeze = {found}", expected, hint))


def _units_of_blocks(architecture: Architecture, names: Sequence[str]) -> tuple[str, ...]:
    known = [block.name for block in architecture.blocks]
    unknown = [name for name in names if name not in known]
    if unknown:
        text = ", ".join(repr(name) for name in unknown)
        expected = f"{architecture.name} has the blocks {', '.join(known)}."
        near = closest(unknown[0], known)
        if unknown[0] in _unit_names(architecture.blocks):
            near = f"{unknown[0]!r} is a unit: unfreeze: {{from: {unknown[0]}}} trains from it on."
        expected = " ".join(part for part in (expected, near) if part)
        hint = f"tltool models show {architecture.reference}"
        raise RecipeError(Problem("", f"unfreeze = {text}", expected, hint))
    return _unit_names([block for block in architecture.blocks if block.name in names])


def _unknown_unit_error(architecture: Architecture, name: str) -> RecipeError:
    units = _unit_names(architecture.blocks)
    first = {block.name: block.units[0].name for block in architecture.blocks}
    if name in first:
        expected = f"{name!r} is a block; its first unit is {first[name]!r}."
    else:
        near = closest(name, units)
        expected = f"{architecture.name} has no unit {name!r}; " + (
            near or f"expected one of: {', '.join(units)}."
        )
    hint = f"tltool models show {architecture.reference}"
    return RecipeError(Problem("", f"unfreeze.from = {name!r}", expected, hint))


def find_weight_file(
    architecture: Architecture, arguments: Mapping[str, Value], image_size: tuple[int, int]
) -> WeightFile | None:
    """Returns the published file for these arguments, None where none was published.

    As Keras does, square images of a size that the base was trained on take the file of that size,
    all others the one of the default size.
    """
    given = complete_arguments(architecture, arguments)
    weighing = {
        name: argument.default
        for name, argument in architecture.arguments.items()
        if not argument.weightless
    }
    values = {name: given[name] for name in weighing}
    fitting = {
        file.image_size: file
        for file in architecture.weight_files
        if {**weighing, **file.when} == values
    }
    height, width = image_size
    if height == width and height in fitting:
        return fitting[height]
    return fitting.get(architecture.default_size)


def describe_unpublished(architecture: Architecture, arguments: Mapping[str, Value]) -> Problem:
    """Returns that no file was published for a base's arguments, and for which there is one.

    Args:
        architecture: The base's record.
        arguments: Arguments of its builder; they must be valid.
    """
    given = complete_arguments(architecture, arguments)
    defaults = complete_arguments(architecture, {})
    published: dict[str, list[Value]] = {}
    for file in architecture.weight_files:
        for name, value in {**defaults, **file.when}.items():
            if value not in published.setdefault(name, []):
                published[name].append(value)
    listed = "; ".join(
        f"{name} {', '.join(map(_spell, values))}"
        for name, values in published.items()
        if (len(values) > 1 or given[name] not in values)
        and not architecture.arguments[name].weightless
    )
    expected = f"no ImageNet weights of {architecture.name} were ever published"
    if published:
        expected = f"ImageNet weights of {architecture.name} were published for {listed} only"
    expected += ": expected random or the path of a weight file."
    return Problem("", "model.weights = 'imagenet'", expected, _find_way_out(architecture))


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
        one.name
        for one in ARCHITECTURES.values()
        if one.family == architecture.family and one.weight_files
    ]
    return "weights: random" + (f", or base: {relatives[0]}" if relatives else "")
