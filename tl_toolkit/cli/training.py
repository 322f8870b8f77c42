"""`tltool finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from tl_toolkit.cli.arguments import takes_offline, takes_recipe
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import show_json


@click.command("finetune")
@takes_recipe
@click.argument("overrides", nargs=-1)
@click.option("--from", "start", metavar="RUN", help="Start from the weights of this run.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [runs/NAME/NNN]")
@click.option("--overwrite", is_flag=True, help="Replace the run that --out holds.")
@click.option(
    "--versus", type=click.Choice(["scratch"]),
    help="Train the same network from random weights beside it.",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True, help="Resume the run in --out, by default the recipe's newest."
)
@click.option("--threads", type=click.IntRange(min=1), help="Size of TensorFlow's thread pools.")
@click.option(
    "--devices", metavar="all|N|0,1", help="Train on several GPUs, which share each batch."
)
@click.option(
    "--hosts", metavar="HOST:PORT,...", help="Train on several hosts; the same list on each."
)
@click.option("--host-index", type=int, help="The place of this host in --hosts; 0 writes the run.")
@click.option(
    "--host-wait", metavar="SECONDS", type=float,
    help="How long hosts wait for one another before they train; 300 by default.",
)  # fmt: skip
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print metrics as JSON on stdout.")
def finetune_command(
    recipe: Path,
    overrides: tuple[str, ...],
    start: str | None,
    out: Path | None,
    overwrite: bool,
    versus: Literal["scratch"] | None,
    resume: bool,
    threads: int | None,
    devices: str | None,
    hosts: str | None,
    host_index: int | None,
    host_wait: float | None,
    as_json: bool,
) -> None:
    """Fine-tune, evaluate and export the model of RECIPE.

    RECIPE is a file, or the name of a shipped recipe (tltool recipes list), as quickstart.
    OVERRIDES replace fields: phases.head.epochs=3, model.weights=random, ~data.test.
    """
    from tl_toolkit.api.finetune import finetune

    run = finetune(
        recipe,
        overrides=overrides,
        start=start,
        out=out,
        overwrite=overwrite,
        resume=resume,
        versus=versus,
        threads=threads,
        devices=devices,
        hosts=hosts,
        host_index=host_index,
        host_wait=host_wait,
        progress=current.print_run(),
    )
    if as_json:
        is_here = run.folder.metrics.is_file()  # else another host has it
        show_json({"run": run.path, **(run.metrics if is_here else {})})
