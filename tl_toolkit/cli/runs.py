"""`tltool runs`: what lies under runs/."""

from __future__ import annotations

from pathlib import Path

import click

from tl_toolkit.cli.console import print_message, show, show_json

_root_option = click.option(
    "--root", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
    help="Folder of all runs.",
)  # fmt: skip


@click.group("runs")
def runs_command() -> None:
    """List, show, compare and remove runs."""


@runs_command.command("list", short_help="List all runs.")
@_root_option
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON on stdout.")
def list_runs(root: Path, as_json: bool) -> None:
    """List all runs, searches and curves: state, base, scores, size.

    A run that is damaged was done, and lacks a file that it held; one that was killed has no
    process any more, though its status.json says running.
    """
    from tl_toolkit.api import listing
    from tl_toolkit.cli.run_tables import build_list
    from tl_toolkit.printing.words import describe_size

    infos = listing.list_runs(root)
    if as_json:
        show_json([info.as_json() for info in infos])
        return
    if infos:
        show(build_list(infos))
    count = "1 run" if len(infos) == 1 else f"{len(infos)} runs"
    print_message(f"{count} in {root}, {describe_size(sum(info.bytes for info in infos))}")


@runs_command.command("show", short_help="Show one run.")
@click.argument("run")
@_root_option
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON on stdout.")
def show_run(run: str, root: Path, as_json: bool) -> None:
    """Show the phases of RUN, its scores with their intervals, its files and versions.

    RUN is a folder, or NAME/NNN, NAME/latest, NAME or latest under runs/; a search too, and a run
    that is not finished.
    """
    from tl_toolkit.api.listing import describe_run
    from tl_toolkit.cli.run_tables import show_description

    description = describe_run(run, root=root)
    if as_json:
        show_json(description.as_json())
    else:
        show_description(description)
