"""Resolves `unfreeze` to the names of the units that train."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from tl_toolkit.catalog.records import Architecture, Block
from tl_toolkit.errors import Problem, RecipeError, closest

__all__ = ["Unfreeze", "UnfreezeFrom", "UnfreezeGradual", "UnfreezeOnly", "resolve_unfreeze"]


class UnfreezeFrom(Protocol):
    """The recipe's `unfreeze: {from: UNIT}`."""

    @property
    def unit(self) -> str:
        """Name of the first unit that trains."""


@runtime_checkable
class UnfreezeOnly(Protocol):
    """The recipe's `unfreeze: {only: [BLOCK, UNIT]}`."""

    @property
    def only(self) -> tuple[str, ...]:
        """Names of blocks or units."""


@runtime_checkable
class UnfreezeGradual(Protocol):
    """The recipe's `unfreeze: {gradual: N}`."""

    @property
    def gradual(self) -> int:
        """Blocks that train in the end."""


Unfreeze: TypeAlias = int | UnfreezeFrom | UnfreezeOnly | UnfreezeGradual | Sequence[str]


def resolve_unfreeze(architecture: Architecture, unfreeze: Unfreeze) -> tuple[str, ...]:
    """Returns the names of the units that train, or train in the end, input to output.

    Args:
        architecture: The base's record.
        unfreeze: How many blocks train, counted from the output; or the unit that training begins
            at; or names of blocks; or what else a recipe's `unfreeze` may be.

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
    if isinstance(unfreeze, UnfreezeGradual):
        if unfreeze.gradual > len(blocks):
            raise _unfreeze_error(architecture, str(unfreeze.gradual), ".gradual")
        return _unit_names(blocks[len(blocks) - unfreeze.gradual :])
    if isinstance(unfreeze, UnfreezeOnly):
        return _units_of_names(architecture, unfreeze.only)
    if isinstance(unfreeze, Sequence):
        return _units_of_blocks(architecture, unfreeze)
    units = _unit_names(blocks)
    # In a model of the user's own any layer stands for its unit: the user knows the layers.
    first = architecture.layer_units.get(unfreeze.unit, unfreeze.unit)
    if first not in units:
        raise _unknown_unit_error(architecture, unfreeze.unit)
    return units[units.index(first) :]


def _unit_names(blocks: Sequence[Block]) -> tuple[str, ...]:
    return tuple(unit.name for block in blocks for unit in block.units)


def _unfreeze_error(architecture: Architecture, value: str, field: str = "") -> RecipeError:
    names = ", ".join(block.name for block in architecture.blocks)
    count = len(architecture.blocks)
    expected = f"{architecture.name} has {count} blocks ({names}): expected 0 to {count}."
    hint = f"tltool models show {architecture.reference}"
    return RecipeError(Problem("", f"unfreeze{field} = {value}", expected, hint))


def _units_of_names(architecture: Architecture, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the units of blocks and of units, input to output."""
    members = {unit: {unit} for unit in _unit_names(architecture.blocks)}
    members |= {block.name: {unit.name for unit in block.units} for block in architecture.blocks}
    unknown = [name for name in names if name not in members]
    if unknown:
        blocks = ", ".join(block.name for block in architecture.blocks)
        near = closest(unknown[0], list(members))
        expected = f"{architecture.name} has the blocks {blocks}. {near}".rstrip()
        what = f"unfreeze.only = {', '.join(map(repr, unknown))}"
        hint = f"tltool models show {architecture.reference}"
        raise RecipeError(Problem("", what, expected, hint))
    chosen = set().union(*(members[name] for name in names))
    return tuple(unit for unit in _unit_names(architecture.blocks) if unit in chosen)


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
    if name in first:
        hint = f"unfreeze: {{from: {first[name]}}}"
    return RecipeError(Problem("", f"unfreeze.from = {name!r}", expected, hint))
