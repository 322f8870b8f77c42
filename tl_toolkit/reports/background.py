"""What a run was made of: its data, what was frozen, what it cost, its recipe."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_toolkit import __version__
from tl_toolkit.printing.words import describe_seconds, describe_size
from tl_toolkit.reports.facts import RunFacts
from tl_toolkit.reports.matrices import plot_bars
from tl_toolkit.reports.sections import DataTable, Listing, Part, Section, Text

__all__ = ["build_cost", "build_data", "build_freezing", "build_recipe", "describe_origin"]

_MOST_LISTED = 50
_DIGITS = 12  # of a SHA-256


def build_data(counts: Sequence[DataTable], facts: RunFacts) -> Section:
    """Returns the section of the images.

    Args:
        counts: Tables of the task, as images by class and split.
        facts: Of the run.
    """
    manifest = facts.manifest
    parts: list[Part] = list(counts)
    excluded = [example for example in manifest.examples if not example.usable]
    if excluded:
        listed = excluded[:_MOST_LISTED]
        rows = [[facts.shorten(it.path), it.split, it.verdict, it.reason] for it in listed]
        more = f", of which {_MOST_LISTED} are listed" if len(excluded) > len(listed) else ""
        caption = f"Excluded images: {len(excluded):,}{more}"
        parts.append(DataTable(caption, ["image", "split", "verdict", "reason"], rows))
    else:
        parts.append(Text(f"All {len(manifest.examples):,} images were usable."))
    return Section("data", "Data", [*parts, *_list_leaks(facts)])


def _list_leaks(facts: RunFacts) -> list[Part]:
    leaks = facts.metrics.get("leaks", ())
    if not leaks:
        return [Text("No image of one split is in another.")]
    text = (
        f"{len(leaks):,} images are there twice, in two splits or with two targets: the scores may "
        "be too good."
    )
    rows = [
        [facts.shorten(leak["path"]), leak["split"], facts.shorten(leak["equals"]),
         leak["equals_split"], leak.get("differs", "")]
        for leak in leaks[:_MOST_LISTED]
    ]  # fmt: skip
    columns = ["image", "split", "equals", "its split", "differs in"]
    table = DataTable("Equal images in several places", columns, rows)
    return [Text(text, is_warning=True), table]


def build_freezing(receipts: Mapping[str, Mapping[str, Any]]) -> Section:
    """Returns the section that proves what was frozen.

    Args:
        receipts: What receipt.json holds, by phase.
    """
    parts: list[Part] = []
    for phase, receipt in receipts.items():
        caption = (
            f"{phase}: {receipt['steps']:,} steps; "
            f"{'what was frozen did not move' if receipt['holds'] else 'does not hold'}"
        )
        rows = [
            [
                part["part"],
                part["state"],
                part["parameters"],
                f"{part['moved']} of {part['tensors']}",
                part["sha256_before"][:_DIGITS],
                part["sha256_after"][:_DIGITS],
            ]
            for part in receipt["parts"]
        ]
        columns = ["block", "state", "parameters", "tensors moved", "SHA-256 before", "after"]
        parts.append(DataTable(caption, columns, rows))
        texts = [*receipt["problems"], *receipt["warnings"]]
        parts += [Text(f"{phase}: {text}", is_warning=True) for text in texts]
    return Section("freezing", "What was frozen", parts)


def build_cost(seconds: Mapping[str, float], cost: Mapping[str, Any]) -> Section:
    """Returns the section of what the run took.

    Args:
        seconds: By step of the run.
        cost: As `tl_toolkit.evaluation.costs.measure_cost`; {} of runs of earlier versions.
    """
    total = sum(seconds.values())
    rows: list[list[Any]] = [["time", describe_seconds(total)]]
    if cost:
        rows += [
            ["parameters of the model", cost["parameters"]],
            ["multiply-accumulates for one image", cost["multiply_accumulates"]],
            ["most memory of the process", describe_size(cost["memory_bytes"])],
        ]
        if "gpu_memory_bytes" in cost:
            rows.append(["most memory on the GPU", describe_size(cost["gpu_memory_bytes"])])
    bars = [(name, value, describe_seconds(value)) for name, value in seconds.items()]
    longest = max(seconds, key=lambda name: seconds[name], default="")
    description = f"{describe_seconds(total)} in all; the longest step is {longest}."
    parts: list[Part] = [DataTable("What the run took", ["", "value"], _as_text(rows))]
    if bars:
        parts.append(plot_bars("cost-seconds", "Time by step", description, bars))
    return Section("cost", "Cost", parts)


def _as_text(rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Returns rows whose numbers are of different kinds, and need no common column."""
    return [[name, f"{value:,}" if isinstance(value, int) else value] for name, value in rows]


def build_recipe(files: Mapping[str, str], numerics: Mapping[str, Any]) -> Section:
    """Returns the section from which the run can be repeated.

    Args:
        files: What recipe.yaml and lock.json hold, by name.
        numerics: Of lock.json: versions, machine, device.
    """
    versions = [[name, str(value)] for name, value in numerics.get("versions", {}).items()]
    facts = {name: value for name, value in numerics.items() if isinstance(value, str)}
    parts: list[Part] = []
    if numerics:
        rows = [*versions, *facts.items()]
        parts.append(DataTable("What it ran on", ["", "value"], rows))
    parts += [Listing(name, text) for name, text in files.items()]
    return Section("recipe", "Recipe and lock", parts)


def describe_origin(path: Path, began: float | None) -> str:
    """Returns what made a report, from what.

    Args:
        path: The folder of the run.
        began: When it began, in seconds since 1970; None if that is not known.
    """
    day = f", begun {time.strftime('%Y-%m-%d %H:%M', time.localtime(began))}" if began else ""
    return f"Written by tl_toolkit {__version__} from {path}{day}."
