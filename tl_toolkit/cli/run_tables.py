"""The tables of `tltool runs`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tl_toolkit.cli.console import show
from tl_toolkit.printing.tables import Figure, FittedTable, build_table
from tl_toolkit.printing.words import describe_age, describe_kept, describe_seconds, describe_size
from tl_toolkit.recipe.tasks import find_task

if TYPE_CHECKING:
    from tl_toolkit.api.listing import RunDescription, RunInfo
    from tl_toolkit.api.removal import Pruned

__all__ = ["build_list", "build_pruned", "show_description"]


def build_list(infos: Sequence[RunInfo]) -> FittedTable:
    """Returns a table with a row for each run.

    Args:
        infos: The runs.
    """
    rows = [
        [
            info.name,
            info.state if info.kind == "run" else f"{info.kind}, {info.state}",
            info.task,
            info.base,
            info.metric.replace("_", " "),
            *(info.scores.get(split) for split in ("validation", "test")),
            Figure(describe_size(info.bytes)),
            describe_age(info.updated) if info.updated else "",
        ]
        for info in infos
    ]
    columns = ["run", "state", "task", "base", "metric", "validation", "test", "size", "updated"]
    return build_table(columns, rows)


def build_pruned(pruned: Sequence[Pruned]) -> FittedTable:
    """Returns a table with a row for each run that may go, and why.

    Args:
        pruned: The runs.
    """
    rows = [
        [
            each.info.name,
            each.reason,
            Figure(describe_size(each.info.bytes)),
            describe_age(each.info.updated) if each.info.updated else "",
        ]
        for each in pruned
    ]
    return build_table(["run", "why it may go", "size", "updated"], rows)


def show_description(description: RunDescription) -> None:
    """Prints all that is known of a run.

    Args:
        description: Of the run.
    """
    facts = {name: text for name, text in _list_facts(description) if text}
    width = max(map(len, facts))
    show("\n".join(f"{name:{width}}  {text}" for name, text in facts.items()))
    for table in (_build_phases(description), _build_scores(description)):
        if table is not None:
            show("")
            show(table)
    files = [[path, Figure(describe_size(size))] for path, size in description.artifacts.items()]
    show("")
    show(build_table(["file", "size"], files))


def _list_facts(description: RunDescription) -> Iterator[tuple[str, str]]:
    info, lock, best = description.info, description.lock, description.best
    yield info.kind, f"{info.path} ({info.state})"
    if info.state in ("running", "killed") and description.process:
        yield "process", "{pid} on {host}".format_map({"host": "?", **description.process})
    yield "error", description.error
    if description.damaged:
        changed = ", ".join(description.damaged)
        yield "damaged", f"{changed}: not as the run wrote it. Try: tltool reproduce {info.name}"
    yield "recipe", ", ".join(filter(None, (info.recipe, info.task)))
    weights = lock.get("weights")
    yield "base", info.base + (f"; weights {weights}" if weights else "")
    if info.started:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.started))
        took = describe_seconds(max(0.0, (info.updated or info.started) - info.started))
        yield (
            "began",
            f"{began}, {'and took' if info.state == 'done' else 'last heard of after'} {took}",
        )
    yield "kept", describe_kept(best) if best else ""
    if info.kind != "run":
        scores = (f"{info.metric} {score:.4f}" for score in info.scores.values())
        yield "winner", ", ".join(scores)
    seeds = {name: lock[name] for name in ("seed", "split_seed") if name in lock}
    yield "seeds", ", ".join(f"{name} {value}" for name, value in seeds.items())
    numerics = lock.get("numerics", {})
    versions = {"python": numerics.get("python"), **numerics.get("versions", {})}
    yield "versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)
    yield (
        "machine",
        ", ".join(str(numerics[key]) for key in ("machine", "device") if key in numerics),
    )
    yield "data", f"SHA-256 {lock['data_sha256']}" if "data_sha256" in lock else ""


def _build_phases(description: RunDescription) -> FittedTable | None:
    if not description.phases:
        return None
    task = find_task(description.info.task)
    columns = ["phase", "epochs", "of", "last rate", f"best val {task.title_of(task.score)}"]
    rows = [
        [
            phase.name,
            phase.epochs,
            phase.planned,
            None if phase.learning_rate is None else Figure(f"{phase.learning_rate:.3g}"),
            phase.best,
        ]
        for phase in description.phases
    ]
    return build_table(columns, rows)


def _build_scores(description: RunDescription) -> FittedTable | None:
    """Returns the headline metrics of each split, with the bounds of their intervals."""
    if not description.splits:
        return None
    task = find_task(description.info.task)
    columns = max(map(task.select_headlines, description.splits.values()), key=len)
    rows: list[list[Any]] = []
    for split, metrics in description.splits.items():
        rows.append([split, *map(metrics.get, columns)])
        intervals = metrics.get("intervals", {})
        for title, place in (("  95 % from", 0), ("  to", 1)) if intervals else ():
            bounds = [intervals[name][place] if name in intervals else None for name in columns]
            rows.append([title, *bounds])
    return build_table(["", *map(task.title_of, columns)], rows)
