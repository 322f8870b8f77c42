"""`tltool rank-bases`: which base suits the images of a recipe."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.cli.arguments import takes_recipe
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.printing.tables import Figure, build_table
from tl_toolkit.printing.words import describe_count

if TYPE_CHECKING:
    from tl_toolkit.api.rank_bases import BaseRanking, RankedBase

_FACTORS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_COST = re.compile(r"([0-9.]+(?:e[0-9]+)?)\s*([kmgb]?)", re.I)


def read_cost(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """Reads a number of operations or weights, as 600M.

    Args:
        context: Click's.
        parameter: The option.
        text: What was typed; None for nothing.
    """
    if text is None:
        return None
    match = _COST.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        return float(match[1]) * _FACTORS[match[2].lower()]
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected a number, as 600M or 4.2G") from None


@click.command("rank-bases")
@takes_recipe
@click.argument("overrides", nargs=-1, metavar="[OVERRIDE]...")
@click.option(
    "--bases", metavar="A,B,...",
    help="Their names, as mobilenet; one with arguments as mobilenet:alpha=0.25, once more with "
    "--bases where it has several.  [all whose weights are here]",
    multiple=True,
)  # fmt: skip
@click.option("--most-operations", metavar="N", callback=read_cost,
              help="Multiply-accumulates for an image, as 600M.")  # fmt: skip
@click.option("--most-parameters", metavar="N", callback=read_cost,
              help="Weights of the base, as 5M.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the ranking as JSON on stdout.")
def rank_bases_command(
    recipe: Path,
    overrides: tuple[str, ...],
    bases: tuple[str, ...],
    most_operations: float | None,
    most_parameters: float | None,
    as_json: bool,
) -> None:
    """Rank bases by how well they tell the images of RECIPE apart, without any training.

    By a linear probe on maps of all depths and nearest neighbours, both cross-validated. Each base
    runs once over the images; a fine-tune that follows reads what was stored.
    """
    from tl_toolkit.api.rank_bases import rank_bases

    ranking = rank_bases(
        recipe, overrides, bases=split_names(bases) or None, most_operations=most_operations,
        most_parameters=most_parameters, progress=current.print_events(),
    )  # fmt: skip
    if as_json:
        show_json(ranking.as_json())
        return
    _show(ranking)
    if ranking.changes:
        words = ["tltool", "finetune", str(recipe), *overrides, *ranking.changes]
        print_message(f"next: {shlex.join(words)}")
    for problem in ranking.problems:
        print_message(f"before, change: {problem}")


def split_names(texts: tuple[str, ...]) -> list[str]:
    """Returns the names; what has a `=` in it and no `:` is an argument of the name before.

    Args:
        texts: As typed, names separated by commas.
    """
    names: list[str] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        if names and "=" in part and ":" not in part:
            names[-1] += f",{part}"
        elif part:
            names.append(part)
    return names


def _show(ranking: BaseRanking) -> None:
    title = ranking.metric.replace("_", " ")
    columns = [
        "base", f"probe {title}", "from", "to", "neighbours", "from", "to", "parameters",
        "operations", "seconds",
    ]  # fmt: skip
    show(build_table(columns, [_list_cells(base) for base in ranking.bases]))
    show("")
    best = ranking.nominated
    if best is None or best.probe is None:
        show("no base fits: raise --most-operations or --most-parameters")
        return
    bounds = best.probe_interval
    interval = "" if bounds is None else f" ({bounds[0]:.3f} to {bounds[1]:.3f})"
    show(
        f"nominated: {best.name}, {title} {best.probe:.3f}{interval} of its probe, "
        f"cross-validated on {ranking.images:,} images"
    )
    if tied := ranking.tied:
        cheapest = tied[0]
        fewer = ""
        if cheapest.operations < best.operations:
            fewer = f"; {cheapest.name} takes the fewest operations"
        show(f"not to be told apart from it: {', '.join(base.name for base in tied)}{fewer}")


def _list_cells(base: RankedBase) -> list[Any]:
    return [
        base.name,
        base.probe,
        *(base.probe_interval or (None, None)),
        base.neighbors,
        *(base.neighbors_interval or (None, None)),
        Figure(describe_count(base.parameters)),
        Figure(describe_count(base.operations)),
        None if base.seconds is None else Figure(f"{base.seconds:.1f}"),
    ]
