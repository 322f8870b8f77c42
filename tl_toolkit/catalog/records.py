"""The records that describe an architecture, a pixel rule, a weight file: plain data, no Keras."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "RGB",
    "EACH_UNIT_A_BLOCK",
    "Architecture",
    "Argument",
    "Block",
    "NameRules",
    "PixelRule",
    "Unit",
    "Value",
    "WeightFile",
    "rename",
]

RGB = 3
"""The channels of a photo."""

Value = bool | int | float | str
"""What a builder's argument may be in a recipe."""

NameRules = tuple[tuple[str, str], ...]
"""Pairs (regular expression, replacement); the first that matches a whole name renames it."""

EACH_UNIT_A_BLOCK: NameRules = ((r"(.+)", r"\1"),)
"""Rules of blocks for an architecture whose units are its blocks."""


def rename(name: str, rules: NameRules) -> str | None:
    """Returns what the first rule that matches the whole name makes of it, None if none does.

    Args:
        name: Name of a layer or a unit.
        rules: Tried in their order.
    """
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return None


@dataclass(frozen=True)
class Argument:
    """One argument of a builder that a recipe may set.

    Attributes:
        kind: float (takes whole numbers too), int, str or bool.
        default: The value if the recipe has none: that of the published files, if there are any.
        help: What it changes, one sentence.
        low: Least value of a number, itself allowed.
        high: Greatest value of a number, itself allowed.
        choices: All values of a string.
        alike: Values that have the same layers, names and shapes as the default has.
        weightless: Whether weights have the same names and shapes at every value, so that published
            files fit.
    """

    kind: type[Value]
    default: Value
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    alike: tuple[Value, ...] = ()
    weightless: bool = False


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
    """A published file of weights; a base uses its classifier only if it has such layers.

    Attributes:
        name: File name, in the cache and in the address.
        url: Its address.
        when: Values of the builder's arguments it was trained with.
        image_size: Side of the square images it was trained on.
        sha256: Hexadecimal digest, None where nobody has published or measured one.
        bytes: Its size, None where not known.
        md5: The digest that Keras's source gives for most files, None where it gives none.
    """

    name: str
    url: str
    when: Mapping[str, Value]
    image_size: int
    sha256: str | None = None
    bytes: int | None = None
    md5: str | None = None

    @property
    def digest(self) -> tuple[str, str] | None:
        """The name of the best digest that is known, "sha256" or "md5", and its digits."""
        if self.sha256 is not None:
            return "sha256", self.sha256
        return None if self.md5 is None else ("md5", self.md5)


@dataclass(frozen=True)
class Unit:
    """The finest part that can be unfrozen.

    Attributes:
        name: Its name.
        end: Name of the layer that ends it.
        channels: Of the map or vector that ends it, for the default arguments.
    """

    name: str
    end: str
    channels: int = 0


@dataclass(frozen=True)
class Block:
    """A run of units that users freeze by name.

    Attributes:
        name: Its name.
        units: Its units, input to output.
        parameters: Number of their weights, moving statistics included.
    """

    name: str
    units: tuple[Unit, ...]
    parameters: int = 0


@dataclass(frozen=True, eq=False)
class Architecture:
    """All that can be known about an architecture without building it.

    Attributes:
        name: The word in recipes.
        title: Its name in print.
        paper: Where it was described.
        builder: "module:function"; called with the preprocessed tensor and keyword arguments.
        settings: Keyword arguments of the builder that make it this architecture; fixed.
        family: A word that the architectures share which one builder builds in several sizes.
        minimum_size: Least height and width of the image.
        size_step: Heights and widths are the minimum plus a multiple of this.
        default_size: Height and width that `parameters` and the catalog's shapes are for.
        pixels: Name of its pixel rule.
        bands: Name of the rule that stands for all preprocessing, also of layers of the base that
            are left out for other channels than RGB; "" where the base has no such layers.
        arguments: What a recipe may set, by name.
        unit_names: Rules from layer names to unit names. A layer without a rule belongs to the unit
            around it.
        block_names: Rules from unit names to block names.
        weight_files: The published files.
        head: The classifier that the paper put on it, as a recipe's `model.head`; None if it has
            none.
        cut_width: How many tensors may cross from one unit to the next: one, unless later units
            read more than the last output.
        tap_units: The units whose ends its paper reads single pixels from; if the paper names none,
            the last map of each size.
        blocks: Blocks and units for the default arguments, input to output (generated).
        parameters: Number of weights of the base for the default arguments at the default size,
            moving statistics included (generated).
        output: Whether the base ends in a feature "map" or in a "vector" (generated).
        taps: Layers that single pixels are read from by default, for the default arguments; none
            where no map lies on a whole stride of the image (generated).
        layer_units: The unit of each layer of a model of the user's own, whose layers have any
            name; `unit_names` and `block_names` are empty then.
        fixed_size: The only (height, width) that such a model takes; None if it takes others too.
        file: The file of such a model; "" for an architecture of the catalog.
        doubt: A sentence on what its owner may want to change in such a model; "" for nothing.
        regularized: Layers of such a model whose kernels have a regularizer of their own.
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
    family: str = ""
    bands: str = ""
    settings: Mapping[str, Value] = field(default_factory=dict)
    size_step: int = 1
    cut_width: int = 1
    tap_units: tuple[str, ...] = ()
    head: Mapping[str, Any] | None = field(default_factory=dict)
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    weight_files: tuple[WeightFile, ...] = ()
    blocks: tuple[Block, ...] = ()
    parameters: int = 0
    output: Literal["map", "vector"] = "map"
    taps: tuple[str, ...] = ()
    layer_units: Mapping[str, str] = field(default_factory=dict)
    fixed_size: tuple[int, int] | None = None
    file: str = ""
    doubt: str = ""
    regularized: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """The name or file that `tltool models show` takes, as a shell reads it."""
        return shlex.quote(self.file or self.name)

    @property
    def units(self) -> tuple[Unit, ...]:
        """All units, input to output."""
        return tuple(unit for block in self.blocks for unit in block.units)
