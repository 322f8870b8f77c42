"""`tltool data`: checks sets of images, and splits them; neither changes an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.cli.arguments import refuse_two_results
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
    from tl_toolkit.sources.objects import ObjectPath, as_path

    path = as_path(path)
    if isinstance(path, ObjectPath):
        return path
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
    "--base", metavar="NAME",
    help="For a folder or table: find doubtful labels and outliers by this architecture.",
)  # fmt: skip
@click.option(
    "--weights", metavar="FILE|imagenet", default="imagenet", show_default=True,
    help="Its weights.",
)  # fmt: skip
@click.option("--no-features", is_flag=True, help="Do not use the base of a recipe.")
@click.option("--follow-links", is_flag=True, help="In a folder, use links that lead out of it.")
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
    base: str | None,
    weights: str,
    no_features: bool,
    follow_links: bool,
    fail_on: list[str] | None,
    as_json: bool,
) -> None:
    """Check the images of SOURCE: a folder, a table (CSV) or a recipe.

    Finds files that cannot be read, copies and near copies, across splits and classes too, dark,
    blurred and odd images, and classes that are missing or small. The base of a recipe, or --base,
    also finds labels that are likely wrong and outliers. A second look is instant.
    """
    from tl_toolkit.api.data import check_data
    from tl_toolkit.audit.report import check_kinds

    if kinds is not None and exclusions is None:
        raise click.UsageError("--exclude says what goes to a file: --exclusions FILE.csv names it")
    check_kinds([*(kinds or ()), *(fail_on or ())])
    written = refuse_two_results(as_json, {"--sheet": sheet, "--exclusions": exclusions})
    report = check_data(
        source, overrides, base=base, weights=weights, features=not no_features,
        follow_links=follow_links,
        progress=current.print_events(),
    )  # fmt: skip
    if as_json:
        show_json(report.as_json())
    elif not written:
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


@data_command.command("split")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE.csv",
    help="The table, for data.csv. One that exists is continued: its images stay. - is stdout.",
)  # fmt: skip
@click.option("--validation", type=float, default=0.2, show_default=True, help="Its share.")
@click.option("--test", type=float, default=0.0, show_default=True, help="Its share.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another one, other splits.")
@click.option("--exact", is_flag=True, help="Meet the shares of each class to the image.")
@click.option("--group", metavar="COLUMN", help="Keep images together whose values are equal.")
@click.option("--near", is_flag=True, help="Keep images together that look the same.")
@click.option(
    "--time", metavar="COLUMN|exif", help="Train on the oldest images, test on the newest."
)
@click.option(
    "--stratify", metavar="COLUMN", default="label", show_default=True,
    help="Column of the classes in a table.",
)  # fmt: skip
@click.option("--follow-links", is_flag=True, help="In a folder, use links that lead out of it.")
@click.option("--overwrite", is_flag=True, help="Begin anew where FILE exists.")
@click.option("--json", "as_json", is_flag=True, help="Print counts and splits as JSON on stdout.")
def split_data_command(source: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Split SOURCE, a folder of class folders or a table (CSV), and write a table for data.csv.

    The split of an image follows from a hash of its bytes and the seed alone: images that are added
    move no others. Equal images stay together. No image is copied or moved. SOURCE may be an
    address, as s3://BUCKET/FOLDER or s3://BUCKET/TABLE.csv.
    """
    from tl_toolkit.api.split import split_data
    from tl_toolkit.sources.objects import is_address

    place = None if is_stdout(output) else output
    split = split_data(source, place, progress=current.print_events(), **options)
    if place is None:
        click.echo(split.format(Path.cwd()), nl=False)
    elif as_json:
        show_json(split.as_json())
    else:
        show(build_table(*split.tabulate()))
    for note in split.notes:
        print_message(f"note: {note}")
    if place is not None:
        new = sum(image.is_new for image in split.images)
        grouped = f" data.group={split.group}" if split.group else ""
        count = "1 image is" if new == 1 else f"{new:,} images are"
        is_remote = any(is_address(image.path) for image in split.images)
        hint = f"data.csv={output}{grouped}{' data.links=follow' if is_remote else ''}"
        print_message(f"written: {output}, {count} new. Next: {hint}")
