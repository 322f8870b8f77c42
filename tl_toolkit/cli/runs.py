"""`tltool runs`: what lies under runs/."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tl_toolkit.cli.arguments import takes_root
from tl_toolkit.cli.console import print_message, show, show_json, warn
from tl_toolkit.errors import Problem, RecipeError

if TYPE_CHECKING:
    from tl_toolkit.api.listing import RunInfo


class _Runs(click.Group):
    """Names the verb for what people look for here."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ("compare", "diff"):
            ctx.fail(f"There is no command {cmd_name!r} here; did you mean 'tltool compare'?")
        return super().get_command(ctx, cmd_name)


@click.group("runs", cls=_Runs)
def runs_command() -> None:
    """List, show and remove runs."""


@runs_command.command("list", short_help="List all runs.")
@takes_root
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
    if not root.is_dir():
        print_message(f"{root}: no such folder, so that it holds no runs")
        return
    print_message(f"{_count(infos)} in {root}, {describe_size(sum(info.bytes for info in infos))}")


@runs_command.command("show", short_help="Show one run.")
@click.argument("run")
@takes_root
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


@runs_command.command("remove", short_help="Remove runs, each by its name.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@takes_root
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_runs(runs: tuple[str, ...], root: Path, yes: bool) -> None:
    """Remove RUN..., each a folder or NAME/NNN: what a run has written, and nothing else.

    latest and NAME are refused, as they name no certain run, and so is what is no run, what a
    process writes to, and what lies behind a link. Other files in a folder stay.
    """
    from tl_toolkit.api import removal
    from tl_toolkit.cli.run_tables import build_list

    infos = removal.plan_removal(runs, root=root)
    show(build_list(infos))
    _warn_of_needed(infos, root)
    if yes or _ask(f"Remove {_count(infos)}?"):
        _remove([info.path for info in infos], root)


@runs_command.command("prune", short_help="List what may go, and remove it with --yes.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@takes_root
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Keep the N best of a name.")
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON on stdout.")
def prune_runs(
    names: tuple[str, ...], root: Path, keep: int | None, yes: bool, as_json: bool
) -> None:
    """List the runs that did not end: interrupted, killed, failed; --yes removes them.

    With --keep N also those runs of each recipe NAME that are done and not among its N best, by
    their score on validation images. A run that another one started from or learned from stays.
    """
    from tl_toolkit.api import removal
    from tl_toolkit.cli.run_tables import build_pruned

    pruned = removal.prune_runs(names, root=root, keep=keep)
    if as_json:
        show_json([each.as_json() for each in pruned])
    elif pruned:
        show(build_pruned(pruned))
    if yes:
        _remove([each.info.path for each in pruned], root)
    elif pruned:
        print_message(f"nothing is removed yet; --yes removes {_count(pruned)}")
    else:
        print_message(f"nothing to remove in {root}")


def _remove(paths: Sequence[Path], root: Path) -> None:
    """Removes runs one by one, so that what is said is what is done."""
    from tl_toolkit.api.removal import remove_runs

    for path in paths:
        for removed in remove_runs(path, root=root):
            kept = f"; kept in it: {', '.join(removed.kept)}" if removed.kept else ""
            print_message(f"removed {removed.path}{kept}")


def _warn_of_needed(infos: Sequence[RunInfo], root: Path) -> None:
    from tl_toolkit.api.removal import find_needing

    for name, needed in find_needing(infos, root=root):
        warn(f"{name} began with {needed} or learned from it, and cannot be run again without it")


def _ask(question: str) -> bool:
    """Asks at a terminal; elsewhere nobody could answer."""
    if not sys.stdin.isatty():
        expected = "There is no terminal to ask at."
        raise RecipeError(Problem("runs remove", "nothing is removed", expected, "--yes"))
    return click.confirm(question, err=True)


def _count(runs: Sequence[object]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"
