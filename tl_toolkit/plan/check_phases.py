"""Compares the rates and parts of phases with what trains in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.errors import Problem, closest
from tl_toolkit.plan.findings import Finding, Findings
from tl_toolkit.recipe.schedules import PlateauSchedule, Schedule
from tl_toolkit.recipe.schema import Data, Phase, Recipe, UnfreezeGradual

__all__ = ["check_accumulation", "check_rates", "check_stages", "refuse_accumulation"]

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
    rates = phase.learning_rates
    if rates is not None and not isinstance(rates, Mapping):
        if phase.layer_decay != 1:
            what = f"phases[{index}].layer_decay = {phase.layer_decay:g}"
            expected = f"expected none beside learning_rates: {rates}, which sets all of them."
            hint = f"~phases.{phase.name}.layer_decay"
            yield Finding(("phases", index, "layer_decay"), Problem("", what, expected, hint))
        return
    for name in rates or ():
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


def check_stages(recipe: Recipe) -> Findings:
    """Refuses a phase that unfreezes block by block where that cannot be.

    Args:
        recipe: The recipe.
    """
    names = [phase.name for phase in recipe.phases]
    for index, phase in enumerate(recipe.phases):
        unfreeze = phase.unfreeze
        if not isinstance(unfreeze, UnfreezeGradual):
            continue
        path = ("phases", index, "unfreeze", "gradual")
        what = f"phases[{index}].unfreeze.gradual = {unfreeze.gradual}"
        needed = unfreeze.gradual * unfreeze.every
        if phase.epochs < needed:
            expected = (
                f"expected at least {needed} epochs, {unfreeze.every} for each block, got "
                f"{phase.epochs}."
            )
            yield Finding(path, Problem("", what, expected, f"phases.{phase.name}.epochs={needed}"))
        if isinstance(phase.learning_rate, PlateauSchedule):
            expected = "expected another schedule: plateau would begin anew with each block."
            yield Finding(path, Problem("", what, expected, "learning_rate: {kind: cosine}"))
        if isinstance(phase.learning_rate, Schedule) and phase.learning_rate.finds_rate:
            expected = "expected a number in the schedule: each block would find another one."
            field = f"phases.{phase.name}.learning_rate.{phase.learning_rate.rate_field}"
            yield Finding(path, Problem("", what, expected, f"{field}=1e-3"))
        for stage in phase.stages:
            if stage.name in names:
                expected = f"expected no phase called {stage.name!r}, as a part of it is."
                yield Finding(path, Problem("", what, expected))


def check_accumulation(recipe: Recipe, counts: Mapping[str | None, Mapping[str, int]]) -> Findings:
    """Refuses a phase that ends before its accumulated gradients change anything.

    Args:
        recipe: The recipe.
        counts: Images by class in each split; those of None may become training images too.
    """
    batches = ceil(_count_most_images(recipe.data, counts) / recipe.data.batch_size)
    for index, phase in enumerate(recipe.phases):
        needed = phase.optimizer.accumulate
        shortest = min(phase.stages, key=lambda stage: stage.epochs)
        steps = shortest.epochs * batches
        if 0 < steps < needed:
            problem = refuse_accumulation(f"phases.{phase.name}", steps, needed, shortest.name)
            what = f"phases[{index}].optimizer.accumulate = {needed}"
            path = ("phases", index, "optimizer", "accumulate")
            yield Finding(path, replace(problem, where="", what=what))


def _count_most_images(data: Data, counts: Mapping[str | None, Mapping[str, int]]) -> int:
    """Returns how many images train at most; with folds, in the training of any of them."""
    limit = data.examples_per_class
    images = [count for split in ("train", None) for count in counts.get(split, {}).values()]
    images = [count if limit is None else min(count, limit) for count in images]
    if data.folds is not None and data.group is None:  # folds of groups may differ in size
        images = [count - count // data.folds for count in images]
    return sum(images)


def refuse_accumulation(field: str, steps: int, accumulate: int, part: str) -> Problem:
    """Returns the problem of a phase that ends before its gradients change anything.

    Args:
        field: The field of the phase.
        steps: Batches in all epochs of the part, at most.
        accumulate: Batches that it takes.
        part: Name of the phase, or of the part of it that ends too early.
    """
    return Problem(
        f"{field}.optimizer.accumulate",
        f"{accumulate} batches are averaged, and {part} has {steps}",
        f"expected at most {steps}, the batches of all epochs of {part}: its weights would never "
        "change.",
        f"{field}.optimizer.accumulate={max(1, steps // 4)}",
    )


def _first_unit(architecture: Architecture, name: str) -> str:
    blocks = {block.name: block.units[0].name for block in architecture.blocks}
    return blocks.get(name, name)


def _blocks_of(architecture: Architecture, trained: Sequence[str]) -> list[str]:
    return [block.name for block in architecture.blocks if block.name in trained]
