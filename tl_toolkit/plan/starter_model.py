"""The model and the phases of a first recipe, each value with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.plan.preset import estimate_splits, resolve_preset
from tl_toolkit.plan.starter_lines import FRACTION, quote, remark
from tl_toolkit.plan.tasks import Proposal
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.schedules import Schedule
from tl_toolkit.recipe.schema import Phase
from tl_toolkit.recipe.tasks import DEFAULT_TASK, find_task

__all__ = ["write_task", "write_training"]


def write_task(record: Architecture, proposal: Proposal) -> list[str]:
    """Returns the lines that name the task; the default one is named for what a preset chooses.

    Args:
        record: The base.
        proposal: The data.
    """
    if proposal.task or not (proposal.images and record.weight_files):
        return list(proposal.task)
    counts = {name: count for count, name in proposal.counts}
    balance, why = find_task(DEFAULT_TASK)().choose_balance(counts)
    if not balance:
        return []
    return ["task:", f"  kind: {DEFAULT_TASK}", remark(f"  balance: {balance}", why)]


def write_training(record: Architecture, proposal: Proposal, channels: int) -> list[str]:
    """Returns the rest of `model`, and the phases: fine-tuning if there are published weights.

    Args:
        record: The base.
        proposal: The data.
        channels: Channels of an image.
    """
    head = ["  head:", *proposal.head, "    dropout: 0.2", "", "phases:"]
    if not record.weight_files:
        return [
            remark("  weights: random", "none were published; a file is taken too"),
            *head,
            remark("  - name: all", "from random weights, everything trains"),
            "    epochs: 30",
            "    learning_rate: 1e-3",
            f"    unfreeze: {len(record.blocks)}",
            "    batch_norm: train",
            "    batch_norm_momentum: 0.9",
        ]
    weights = [*_write_arguments(record), remark("  weights: imagenet", "or a file")]
    if proposal.images:
        return [*weights, *_write_preset(record, proposal, channels)]
    last = record.blocks[-1].units[-2:][0].name
    return [
        *weights,
        *head,
        remark("  - name: head", "the new head alone, on a frozen base"),
        "    epochs: 10",
        "    learning_rate: 3e-3",
        remark("  - name: tune", "then the last units too, at a tenth of the rate"),
        "    epochs: 5",
        "    learning_rate: 3e-4",
        remark(f"    unfreeze: {{from: {last}}}", f"tltool models show {record.name}"),
    ]


def _write_preset(record: Architecture, proposal: Proposal, channels: int) -> list[str]:
    """Returns the head and the phases that a recipe without phases gets, with the reasons."""
    images, validation = estimate_splits(proposal.images, FRACTION)
    recipe = build_recipe(
        {
            "version": 1,
            "name": "starter",
            "data": {"train": ".", "image_size": record.default_size, "channels": channels},
            "model": {"base": record.name, "weights": "imagenet"},
        }
    ).recipe
    recipe, choices = resolve_preset(recipe, record, images, validation, outputs=proposal.outputs)
    head, lines = "model.head.", [remark("  head:", "docs/preset.md says more")]
    for choice in choices:
        if choice.field.startswith(head):
            name = choice.field.removeprefix(head)
            lines.append(remark(f"    {name}: {choice.value}", choice.why))
    why = {choice.field: choice.why for choice in choices}
    if not recipe.phases:
        return [*lines, "", remark("phases: []", why["phases"])]
    lines += ["", "phases:"]
    for phase in recipe.phases:
        lines += [
            remark(f"  - name: {phase.name}", why[f"phases.{phase.name}"]),
            *(f"    {line}" for line in _write_phase(phase)),
        ]
    return lines


def _write_phase(phase: Phase) -> list[str]:
    """Returns lines for the fields of a phase that differ from their defaults, but its name."""
    values = phase.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"name"})
    if isinstance(phase.learning_rate, Schedule):
        values["learning_rate"] = {"kind": phase.learning_rate.kind, **values["learning_rate"]}
    return [f"{name}: {_write_flow(value)}" for name, value in values.items()]


def _write_flow(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_write_flow(it)}' for name, it in value.items())}}}"
    return quote(value) if isinstance(value, str) else f"{value:g}"


def _write_arguments(record: Architecture) -> list[str]:
    """Returns the line of the arguments that published weights differ in, with the least values."""
    published: dict[str, set[float]] = {}
    for file in record.weight_files:
        for name, value in file.when.items():
            if isinstance(value, float) and file.image_size == record.default_size:
                published.setdefault(name, set()).add(value)
    chosen = {name: sorted(values) for name, values in published.items() if len(values) > 1}
    if not chosen:
        return []
    words = ", ".join(f"{name}: {values[0]:g}" for name, values in chosen.items())
    more = ", ".join(f"{value:g}" for values in chosen.values() for value in values[1:])
    return [remark(f"  arguments: {{{words}}}", f"or {more}: larger and slower")]
