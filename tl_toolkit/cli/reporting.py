"""`tltool report`."""

from __future__ import annotations

import click

from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show_json


@click.command("report")
@click.argument("run")
@click.option(
    "--any", "unfinished", is_flag=True,
    help="Let latest mean the newest run that holds a model, an interrupted one too.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the path as JSON on stdout.")
def report_command(run: str, unfinished: bool, as_json: bool) -> None:
    """Write report/index.html in the folder of RUN: a page in one file, which needs no network.

    RUN is a run, a search, a learning curve, or what tltool auto made. Beside the page lies each of
    its charts as SVG. An earlier report is replaced.
    """
    from tl_toolkit.api.report import find_reported, report

    folder = find_reported(run, unfinished=unfinished)
    current.use_run(folder)
    page = report(folder.path, progress=current.print_events())
    if as_json:
        show_json({"report": str(page)})
    else:
        print_message(f"report: {page}")
