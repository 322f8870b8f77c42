"""`tltool card`: the model card of a run."""

from __future__ import annotations

from pathlib import Path

import click

from tl_toolkit.cli.arguments import takes_licences, takes_root
from tl_toolkit.cli.console import is_stdout, print_message, show_json, write_result


@click.command("card")
@click.argument("run")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("-"), metavar="FILE",
    help="Write the card to FILE, as README.md beside model.keras.  [stdout]",
)  # fmt: skip
@takes_licences
@takes_root
@click.option("--json", "as_json", is_flag=True, help="Print the metadata as JSON on stdout.")
def card_command(
    run: str, output: Path, licence: str, data_license: str, root: Path, as_json: bool
) -> None:
    """Write the model card of RUN: Markdown, with the metadata that the Hugging Face Hub reads.

    Data, recipe, results with intervals, limits, licences of base and data, and how to load it. All
    figures are the run's own; no model is opened, and no place on this machine is named.
    """
    from tl_toolkit.api.card import card
    from tl_toolkit.printing.markdown import read_front_matter

    text = card(run, root=root, license=licence, data_license=data_license)
    if as_json:
        show_json(read_front_matter(text))
    if not as_json or not is_stdout(output):
        write_result(output, text)
    if not is_stdout(output):
        print_message(f"written: {output}")
