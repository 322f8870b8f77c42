"""Compares the rates of a phase with what trains in it."""

from __future__ import annotations

from collections.abc import Sequence

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.errors import Problem, closest
from tl_toolkit.plan.findings import Finding, Findings
from tl_toolkit.recipe.schema import Phase

__all__ = ["check_rates"]

_HEAD = "head"


def check_rates(
    phase: Phase, index: int, architecture: Architecture, units: Sequence[str]
) -> Findings:
    """Refuses the rate of a block or unit that is none, or that does not train.

    Args:
        phase: The phase.
        index: Its place in the recipe.
        architecture: The record of the base.
        units: The units that it trains.
    """
    members = {unit.name: {unit.name} for block in architecture.blocks for unit in block.units}
    members |= {block.name: {unit.name for unit in block.units} for block in architecture.blocks}
    trained = [name for name, own in members.items() if own & set(units)]
    for name in phase.learning_rates or ():
        if name == _HEAD or name in trained:
            continue
        what = f"phases[{index}].learning_rates: {name!r} "
        if name in members:
            what += f"does not train in phase {phase.name!r}"
            expected = "expected blocks and units of unfreeze, or head."
            hint = f"phases.{phase.name}.unfreeze={{from: {_first_unit(architecture, name)}}}"
        else:
            what += "is no block or unit"
            near = closest(name, [*trained, _HEAD])
            expected = f"expected one of {', '.join([*_blocks_of(architecture, trained), _HEAD])}."
            expected, hint = (
                f"{expected} {near}".rstrip(),
                f"tltool models show {architecture.reference}",
            )
        yield Finding(("phases", index, "learning_rates", name), Problem("", what, expected, hint))


def _first_unit(architecture: Architecture, name: str) -> str:
    blocks = {block.name: block.units[0].name for block in architecture.blocks}
    return blocks.get(name, name)


def _blocks_of(architecture: Architecture, trained: Sequence[str]) -> list[str]:
    return [block.name for block in architecture.blocks if block.name in trained]
