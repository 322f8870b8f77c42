"""Finds the units of a base that pixels are read from, by names alone.

No Keras here, so that a recipe can be checked in milliseconds. The assembly of the model checks
what only a graph shows, such as whether a layer is a map on a whole stride.
"""

from collections.abc import Iterator, Sequence

from tl_toolkit.catalog.lookup import Architecture, find_unit_name
from tl_toolkit.errors import Problem, closest

__all__ = ["check_taps", "find_unit_of", "is_no_layer", "units_read"]


def find_unit_of(architecture: Architecture, name: str) -> str | None:
    """Returns the unit that a layer lies in, or that has this name; None where no rule holds.

    Args:
        architecture: The base's record.
        name: Name of a layer or a unit.
    """
    units = {unit.name: unit.end for block in architecture.blocks for unit in block.units}
    ends = {end: unit for unit, end in units.items()}
    unit = name if name in units else ends.get(name) or find_unit_name(architecture, name)
    return unit if unit in units else None


def is_no_layer(architecture: Architecture, name: str) -> bool:
    """Returns whether a base has neither a layer nor a unit of a name; False if that is not known.

    Args:
        architecture: The base's record.
        name: Name of a layer or a unit.
    """
    # A few layers, such as the pools of PixelNet, are in the unit after them, whatever its name;
    # their names begin with that of a block.
    blocks = tuple(f"{block.name}_" for block in architecture.blocks)
    ruled = find_unit_name(architecture, name) is not None
    return find_unit_of(architecture, name) is None and (ruled or not name.startswith(blocks))


def check_taps(
    architecture: Architecture, names: Sequence[str], field: str
) -> Iterator[tuple[int, Problem]]:
    """Yields the place and the problem of each name that is no layer or unit of a base.

    Args:
        architecture: The base's record.
        names: Names that a recipe gives.
        field: Their field in the recipe, as `pixels.taps`.
    """
    units = [unit.name for block in architecture.blocks for unit in block.units]
    for index, name in enumerate(names):
        if is_no_layer(architecture, name):
            near = closest(name, [*units, *architecture.taps])
            expected = f"{architecture.name} has no such layer or unit. {near}".rstrip()
            hint = f"tltool models show {architecture.reference} --layers"
            if name in ("all", "inner") and field == "model.head.taps":
                expected = "expected the word itself, or units or layers in its place."
                hint = f"{field}={name}"
            yield index, Problem("", f"{field}[{index}] = {name!r}", expected, hint)


def units_read(architecture: Architecture, taps: Sequence[str] | None) -> tuple[str, ...] | None:
    """Returns the units up to the last map that pixels are read from, input to output.

    Args:
        architecture: The base's record.
        taps: The recipe's `pixels.taps`; None for the default ones.

    Returns:
        None if that depends on the graph, or if the base has no taps.
    """
    units = [unit.name for block in architecture.blocks for unit in block.units]
    tapped = [find_unit_of(architecture, tap) for tap in taps or architecture.taps]
    places = [units.index(unit) for unit in tapped if unit is not None]
    if not places or None in tapped:
        return None
    return tuple(units[: max(places) + 1])
