"""The records that describe an architecture, a pixel rule, a weight file: plain data, no Keras."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Architecture",
    "Argument",
    "Block",
    "NameRules",
    "PixelRule",
    "Unit",
    "Value",
    "WeightFile",
]

Value = bool | int | float | str
"""What a builder's argument may be in a recipe."""

NameRules = tuple[tuple[str, str], ...]
"""Pairs (regular expression, replacement); the first that matches a whole name renames it."""


@dataclass(frozen=True)
class Argument:
    """One argument of a builder that a recipe may set.

    Attributes:
        kind: float (takes whole numbers too), int, str or bool.
        default: The value when the recipe is silent; it gives the network of the paper.
        help: What it changes, one sentence.
        low: Least value of a number, itself allowed.
        high: Greatest value of a number, itself allowed.
        choices: All values of a string.
    """

    kind: type[Value]
    default: Value
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class PixelRule:
    """How raw RGB pixels in 0..255 become what a base expects: `color(image) * scale + offset`.

    Attributes:
        name: The word a record uses.
        color: "rgb" leaves the channels alone, "bgr" turns their order, "grey" is
            0.2989 R + 0.5870 G + 0.1140 B as one channel.
        scale: One factor, or one for each channel after `color`.
        offset: One summand, or one for each channel after `color`.
        help: The result in words.
    """

    name: str
    color: Literal["rgb", "bgr", "grey"]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    help: str


@dataclass(frozen=True, eq=False)
class WeightFile:
    """A published file of weights without its classifier.

    Attributes:
        name: File name, in the cache and in the address.
        url: Where it is had.
        when: Values of the builder's arguments it was trained with.
        image_size: Side of the square images it was trained on.
        sha256: Hexadecimal digest, None where nobody has published or measured one.
        bytes: Its size, None where not known.
    """

    name: str
    url: str
    when: Mapping[str, Value]
    image_size: int
    sha256: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Unit:
    """The finest part that can be unfrozen: `name`, and the layer that `end`s it (a cut)."""

    name: str
    end: str


@dataclass(frozen=True)
class Block:
    """What a person freezes by name: a run of units, input to output."""

    name: str
    units: tuple[Unit, ...]


@dataclass(frozen=True, eq=False)
class Architecture:
    """All that can be known about an architecture without drawing it.

    Attributes:
        name: The word in recipes.
        title: Its name in print.
        paper: Where it was described.
        builder: "module:function"; called with the preprocessed tensor and keyword arguments.
        minimum_size: Least height and width of the image.
        default_size: Height and width that `parameters` and the catalog's shapes are for.
        pixels: Name of its pixel rule.
        arguments: What a recipe may set, by name.
        unit_names: Rules from layer names to unit names. A layer without a rule belongs to the unit
            around it.
        block_names: Rules from unit names to block names.
        weight_files: The published files.
        blocks: Blocks and units for the default arguments, input to output (generated).
        parameters: Number of weights of the base for the default arguments at the default size,
            moving statistics included (generated).
        output: Whether the base ends in a feature "map" or in a "vector" (generated).
    """

    name: str
    title: str
    paper: str
    builder: str
    minimum_size: int
    default_size: int
    pixels: str
    unit_names: NameRules
    block_names: NameRules
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    weight_files: tuple[WeightFile, ...] = ()
    blocks: tuple[Block, ...] = ()
    parameters: int = 0
    output: Literal["map", "vector"] = "map"

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units, input to output."""
        return tuple(unit for block in self.blocks for unit in block.units)
