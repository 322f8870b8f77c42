"""`tltool compare`: runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tl_toolkit.cli.arguments import refuse_two_results, takes_root
from tl_toolkit.cli.console import is_stdout, print_message, show, show_json, write_result
from tl_toolkit.printing.tables import build_table

if TYPE_CHECKING:
    from tl_toolkit.api.comparing import PairedTest, RunComparison

_MOST_SHOWN = 10  # images of each test


@click.command("compare", short_help="Compare runs: scores, what differs.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@takes_root
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE",
    help="Write a page in one file, with the images that one run alone predicts right; - is "
    "stdout.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
def compare_command(runs: tuple[str, ...], root: Path, html: Path | None, as_json: bool) -> None:
    """Compare RUNs: scores with intervals, and what differs in recipes, data and versions.

    The first is tested against each other one on the images that both predicted: by McNemar's exact
    test where a prediction is right or wrong, else by a paired bootstrap. Images that one of them
    alone predicts right are listed. No model is opened.
    """
    from tl_toolkit.api.comparing import compare

    refuse_two_results(as_json, {"--html": html})
    comparison = compare(runs, root=root)
    if as_json:
        show_json(comparison.as_json())
    elif html is None or not is_stdout(html):
        _show(comparison)
    if html is not None:
        write_result(html, comparison.format_page(), option="--html FILE")
        if not is_stdout(html):
            print_message(f"written: {html}")


def _show(comparison: RunComparison) -> None:
    """Prints what differs between runs, their scores, and whether they can be told apart."""
    for columns, rows in comparison.tabulate_differences():
        show(build_table(columns, rows))
        show("")
    if not comparison.fields:
        show("the recipes are equal\n")
    if comparison.splits:
        show(build_table(*comparison.tabulate_scores(), keys=2))
    verdicts = comparison.describe_verdicts()
    if verdicts:
        show("")
    for sentence in verdicts:
        show(sentence)
    for test in comparison.tests:
        if test.differing:
            show("")
            _show_differing(test)


def _show_differing(test: PairedTest) -> None:
    rows = [
        [image.path, image.target, image.predicted, image.other]
        for image in test.differing[:_MOST_SHOWN]
    ]
    show(build_table([f"{test.split} image", "label", test.run, test.other], rows))
    if more := len(test.differing) - len(rows):
        show(f"and {more:,} more: --html FILE shows them, --json lists them")
