"""`tltool search` and `sweep`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tl_toolkit.cli.arguments import takes_offline, takes_ray, takes_recipe, takes_workers
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.plan.values import describe_value
from tl_toolkit.printing.tables import build_table

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    takes_recipe,
    click.argument("overrides", nargs=-1),
    click.option("--resume", is_flag=True, help="Resume where it was interrupted."),
    click.option("--overwrite", is_flag=True, help="Replace what --out holds."),
    click.option(
        "--threads", type=click.IntRange(min=1), help="Size of TensorFlow's thread pools."
    ),
    takes_offline,
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout."),
)


def _takes_options(verb: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Returns a decorator that adds the options of a verb."""
    help_text = f"Folder.  [runs/NAME-{verb}/NNN]"
    place = click.option("--out", type=click.Path(path_type=Path), help=help_text)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed((*_OPTIONS[:2], place, *_OPTIONS[2:])):
            command = option(command)
        return command

    return decorate


@click.command("search")
@_takes_options("search")
@takes_ray
@takes_workers
def search_command(as_json: bool, **options: Any) -> None:
    """Try other values of some fields of RECIPE, trial after trial, and keep the best.

    The recipe's section `search` names the fields; without one they are the head's dropout and the
    number of blocks that the last phase unfreezes. The winner is written as best.yaml.
    """
    from tl_toolkit.api.search import search

    run = search(**options, progress=current.print_run())
    if as_json:
        show_json({"search": run.path, **run.summary})


@click.command("sweep")
@_takes_options("sweep")
@click.option("--phase", help="The phase whose depth is swept.  [the last one]")
@click.option("--units", is_flag=True, help="Go through units instead of blocks.")
def sweep_command(as_json: bool, **options: Any) -> None:
    """Train RECIPE with each depth of unfreezing, from the head alone to the whole base.

    Accuracy and cost of each depth are written to sweep.csv and sweep.svg.
    """
    from tl_toolkit.api.sweep import sweep

    run = sweep(**options, progress=current.print_run())
    if as_json:
        show_json({"sweep": run.path, **run.summary})
        return
    with open(run.folder.sweep_table, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    depths = [describe_value(*trial.values.values()) for trial in run.trials]
    # Parameters are as in the file, scores need not be so long.
    show(
        build_table(
            header,
            [
                [depth, *row[1:3], *map(_read_score, row[3:])]
                for depth, row in zip(depths, rows, strict=True)
            ],
        )
    )
    print_message(f"plotted in {run.folder.sweep_plot}")


def _read_score(cell: str) -> float:
    return float(cell or "nan")
