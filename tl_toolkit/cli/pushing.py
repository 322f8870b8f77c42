"""`tltool push`."""

from __future__ import annotations

from pathlib import Path

import click

from tl_toolkit.cli.arguments import takes_licences, takes_root
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.printing.tables import Figure, build_table
from tl_toolkit.printing.words import describe_size
from tl_toolkit.recipe.export_formats import split_formats


@click.command("push")
@click.argument("run")
@click.argument("target")
@click.option(
    "--formats", callback=lambda _, __, text: split_formats(text) if text else None,
    help="Exports to push, with commas between.  [all that RUN was exported to]",
)  # fmt: skip
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--dry-run", is_flag=True, help="List the files, and write nothing.")
@takes_licences
@takes_root
@click.option("--json", "as_json", is_flag=True, help="Print the files as JSON on stdout.")
def push_command(
    run: str,
    target: str,
    formats: tuple[str, ...] | None,
    private: bool,
    dry_run: bool,
    licence: str,
    data_license: str,
    root: Path,
    as_json: bool,
) -> None:
    """Push the model of RUN with its card and exports to TARGET.

    TARGET is hf://OWNER/NAME, a repository of the Hugging Face Hub, or a folder. Keras loads the
    model from both. The Hub's client finds the token, by hf auth login or HF_TOKEN.
    """
    from tl_toolkit.api.push import push

    pushed = push(
        run, target, root=root, formats=formats, private=private, dry_run=dry_run,
        license=licence, data_license=data_license, progress=current.print_events(),
    )  # fmt: skip
    if as_json:
        show_json(pushed.as_json())
    elif dry_run:
        rows = [[name, Figure(describe_size(size))] for name, size in pushed.files.items()]
        show(build_table(["file", "size"], rows))
    if not dry_run:
        print_message(f"pushed: {pushed.url or pushed.target}")
        print_message(f'keras.saving.load_model("{pushed.target}")')
