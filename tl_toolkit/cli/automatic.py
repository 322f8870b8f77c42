"""`tltool auto`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.cli.arguments import takes_offline
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.cli.ranking import read_cost, split_names
from tl_toolkit.plan.values import describe_value, shorten_fields
from tl_toolkit.printing.tables import Figure, build_table
from tl_toolkit.recipe.tasks import TASKS
from tl_toolkit.runs.states import name_run

if TYPE_CHECKING:
    from tl_toolkit.api.auto import AutoRun
    from tl_toolkit.api.auto_record import AutoRecord

_MOST_TRIALS = 20


@click.command("auto")
@click.argument("data", metavar="FOLDER", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[OVERRIDE]...")
@click.option("--minutes", type=float, metavar="N", help="All the time that it may take.  [10]")
@click.option("--task", type=click.Choice([*TASKS]), help="[as the data looks]")
@click.option(
    "--bases", metavar="A,B,...", multiple=True,
    help="Bases to choose from, as rank-bases takes them.  [all whose weights are here]",
)  # fmt: skip
@click.option("--most-operations", metavar="N", callback=read_cost,
              help="Multiply-accumulates for an image, as 600M.")  # fmt: skip
@click.option("--most-parameters", metavar="N", callback=read_cost,
              help="Weights of the base, as 5M.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [runs/NAME-auto/NNN]")
@click.option("--resume", is_flag=True, help="Resume --out, or the newest that has not ended.")
@click.option("--overwrite", is_flag=True, help="Replace what --out holds.")
@click.option("--threads", type=click.IntRange(min=1), help="Size of TensorFlow's thread pools.")
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print what was tried as JSON on stdout.")
def auto_command(
    data: Path,
    overrides: tuple[str, ...],
    bases: tuple[str, ...],
    task: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make the best model of FOLDER that a number of minutes allows.

    A head on the cheapest base comes first, so that there is a result; then bases are ranked, and a
    search tries depths, rates and heads. OVERRIDES replace fields of the recipe that tltool init
    would write.
    """
    from tl_toolkit.api.auto import auto

    found = auto(
        data, overrides=overrides, task=task or "", bases=split_names(bases) or None,
        clock=current.clock, progress=current.print_run(), **options,
    )  # fmt: skip
    record = found.record
    if as_json:
        show_json({"auto": found.path, **record.as_json()})
        return
    _show(found, record)


def _show(found: AutoRun, record: AutoRecord) -> None:
    columns = ["tried", "", record.metric.replace("_", " "), "from", "to", "seconds"]
    show("")
    show(build_table(columns, _list_rows(record)))
    show("")
    for name, reason in record.skipped.items():
        show(f"not tried: {name}, {reason}")
    for text in record.why.values():
        show(text)
    show(f"time: {record.seconds:.0f} s of {60 * record.minutes:.0f} s")
    run = name_run(found.path / record.chosen)
    page = found.folder.report / "index.html"
    if page.is_file():
        print_message(f"report: {page}")
    print_message(f"next:\n  tltool predict {run} IMAGE...\n  tltool export {run}")
    print_message(f"again:\n  tltool finetune {found.recipe}")


def _list_rows(record: AutoRecord) -> list[list[Any]]:
    rows = [
        ["base", base.name, base.probe, *(base.probe_interval or (None, None)),
         Figure(f"{base.seconds or 0:.1f}")]
        for base in record.bases
    ]  # fmt: skip
    done = sorted(record.trials, key=lambda trial: -(trial["score"] or 0.0))[:_MOST_TRIALS]
    for trial in done:
        names = shorten_fields(list(trial["values"]))
        values = zip(names, trial["values"].values(), strict=True)
        about = "  ".join(f"{name} {describe_value(value)}" for name, value in values)
        seconds = Figure(f"{trial['seconds']:.1f}")
        rows.append([f"trial {trial['number']}", about, trial["score"], None, None, seconds])
    rows += [
        [run.name + (" *" if run.name == record.chosen else ""), f"{run.base}, {run.about}",
         run.score, *(run.interval or (None, None)), Figure(f"{run.seconds:.1f}")]
        for run in record.runs
    ]  # fmt: skip
    return rows
