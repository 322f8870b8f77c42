"""`tltool reproduce`."""

from __future__ import annotations

from pathlib import Path

import click

from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.errors import ReproductionError
from tl_toolkit.plan.values import describe_value
from tl_toolkit.printing.tables import build_table
from tl_toolkit.runs.states import name_run


@click.command("reproduce")
@click.argument("run")
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Folder of the repetition.  [runs/NAME-reproduced/NNN]",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1),
    help="Size of TensorFlow's thread pools.  [that of RUN]",
)  # fmt: skip
@click.option(
    "--devices", metavar="all|N|0,1", help="Train on so many GPUs.  [as many as RUN]"
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
def reproduce_command(
    run: str, out: Path | None, threads: int | None, devices: str | None, as_json: bool
) -> None:
    """Train the finished RUN again from its recipe and lock, and compare the two bit for bit.

    Weights, history, metrics and predictions are compared, and what differs beside them: data,
    versions, machine. The exit code is 4 if any of the results differ. Exports are left out.
    """
    from tl_toolkit.api.reproducing import reproduce

    found = reproduce(run, out=out, threads=threads, devices=devices, progress=current.print_run())
    if as_json:
        show_json(found.as_json())
    else:
        rows = [[part.name, "equal" if part.is_equal else part.text] for part in found.parts]
        title = f"{name_run(found.original)} and {name_run(found.again)}"
        show(build_table(["", title], rows))
    if found.conditions and not as_json:
        pairs = found.conditions.items()
        rows = [[name, *map(describe_value, values)] for name, values in pairs]
        show("")
        show(build_table(["in lock.json", "then", "now"], rows))
    if not found.is_equal:
        raise ReproductionError(f"{found.original} differs from {found.again}: {found.explain()}")
    print_message("equal bit for bit")
