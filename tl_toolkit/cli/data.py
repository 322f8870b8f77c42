"""`tltool data`: checks sets of images, and splits them; neither changes an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import is_stdout, print_message, show, show_json, write_result
from tl_toolkit.errors import CheckFailedError
from tl_toolkit.printing.tables import build_table

if TYPE_CHECKING:
    from tl_toolkit.audit.report import DataReport


def _split_words(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _find_source(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    from tl_toolkit.recipe.shipped import find_recipe  # `--help` must not pay for it

    return path if path.exists() else find_recipe(path)


@click.group("data")
def data_command() -> None:
    """Check sets of images, and split them. No image is moved, changed or deleted."""


@data_command.command("check")
@click.argument("source", type=click.Path(path_type=Path), callback=_find_source)
@click.argument("overrides", nargs=-1)
@click.option(
    "--sheet", type=click.Path(path_type=Path), metavar="FILE.html",
    help="Write a page with small pictures of what was found.",
)  # fmt: skip
@click.option(
    "--exclusions", type=click.Path(path_type=Path), metavar="FILE.csv",
    help="Write the images to leave out, for data.exclude; rows that FILE holds stay.",
)  # fmt: skip
@click.option(
    "--exclude", "kinds", metavar="KINDS", callback=_split_words,
    help="Findings whose images go there, with commas.  [what cannot be read, and exact copies]",
)  # fmt: skip
@click.option(
    "--fail-on", metavar="KINDS", callback=_split_words, help="Exit 4 if one of these is found."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")
def check_data_command(
    source: Path,
    overrides: tuple[str, ...],
    sheet: Path | None,
    exclusions: Path | None,
    kinds: list[str] | None,
    fail_on: list[str] | None,
    as_json: bool,
) -> None:
    """Check the images of SOURCE: a folder, a table (CSV) or a recipe.

    Finds files that cannot be read, copies and near copies, across splits and classes too, dark,
    blurred and odd images, and classes that are missing or small. A second look is instant.
    """
    from tl_toolkit.api.data import check_data
    from tl_toolkit.audit.report import check_kinds

    check_kinds([*(kinds or ()), *(fail_on or ())])
    report = check_data(source, overrides, progress=current.print_events())
    if as_json:
        show_json(report.as_json())
    else:
        _show(report)
    if sheet is not None:
        from tl_toolkit.audit.sheet import render_sheet

        write_result(sheet, render_sheet(report), option="--sheet FILE")
        _name_written(sheet, "")
    if exclusions is not None:
        text, count = report.format_exclusions(exclusions, kinds)
        write_result(exclusions, text, option="--exclusions FILE")
        _name_written(exclusions, f", {count:,} images. Next: data.exclude={exclusions}")
    found = [kind for kind in fail_on or () if report.of(kind)]
    if found:
        raise CheckFailedError(f"found: {', '.join(found)}")


def _name_written(path: Path, more: str) -> None:
    if not is_stdout(path):
        print_message(f"written: {path}{more}")


def _show(report: DataReport) -> None:
    columns, rows = report.tabulate()
    if rows:
        show(build_table(columns, rows))
    else:
        show("nothing was found")
    for note in report.notes:
        print_message(f"note: {note}")
    splits = ", ".join(
        f"{sum(by_class.values()):,}{f' {split}' if split else ''}"
        for split, by_class in report.counts.items()
    )
    print_message(f"{report.images:,} images looked at, {splits or 0} usable")
