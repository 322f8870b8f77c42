"""`tltool curve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tl_toolkit.cli.arguments import takes_offline, takes_recipe
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.printing.tables import Figure, build_table


def _read_fractions(context: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected shares, as 0.1,0.5,1") from None


@click.command("curve")
@takes_recipe
@click.argument("overrides", nargs=-1)
@click.option(
    "--fractions", default="0.05,0.1,0.2,0.5,1", show_default=True, callback=_read_fractions,
    help="Shares of the training images.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [runs/NAME-curve/NNN]")
@click.option("--resume", is_flag=True, help="Resume where it was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace what --out holds.")
@click.option("--threads", type=click.IntRange(min=1), help="Size of TensorFlow's thread pools.")
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print the points as JSON on stdout.")
def curve_command(as_json: bool, **options: Any) -> None:
    """Train RECIPE on parts of its training images: with transfer, as a probe, from scratch.

    The parts are nested and stratified by class, and all are measured on the same images. The
    points are written to curve.csv, curve.json and curve.svg.
    """
    from tl_toolkit.api.curve import curve

    run = curve(**options, progress=current.print_run())
    if as_json:
        show_json({"curve": run.path, **run.summary})
        return
    show(build_table(*_tabulate(run.points)))
    print_message(f"plotted in {run.folder.curve_plot}")


def _tabulate(points: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Returns a row for each number of images, with score and interval of each method."""
    methods = list(dict.fromkeys(point["method"] for point in points))
    columns = ["images", "of all", *(name for method in methods for name in (method, "95 %"))]
    rows: dict[int, list[Any]] = {}
    for point in points:
        row = rows.setdefault(
            point["images"], [point["images"], Figure(f"{point['fraction']:.0%}")]
        )
        interval = point["interval"]
        row += [
            point["score"],
            None if interval is None else Figure("{:.2f} to {:.2f}".format(*interval)),
        ]
    return columns, list(rows.values())
