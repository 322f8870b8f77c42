"""`tltool embed`, `similar` and `label-next`: features as a product."""

from __future__ import annotations

from pathlib import Path

import click

from tl_toolkit.cli.arguments import (
    read_arguments,
    refuse_two_results,
    takes_offline,
    takes_root,
)
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import is_stdout, print_message, show, show_json, write_result
from tl_toolkit.errors import DataError
from tl_toolkit.printing.tables import build_table
from tl_toolkit.runs.files import check_place

_POOLINGS = ("average", "max", "both", "statistics", "pyramid", "sum", "flatten")

_takes_block = click.option(
    "--block", metavar="NAME",
    help="The block, unit or layer whose map is read, as `tltool models show` names them.  [the "
    "last one]",
)  # fmt: skip
_takes_weights = click.option(
    "--weights", default="imagenet", show_default=True, metavar="imagenet|random|FILE",
    help="Of a base; a run has its own.",
)  # fmt: skip


@click.command("embed")
@click.argument("source", metavar="RUN|BASE")
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="features.npz, or features.parquet with pyarrow.",
)  # fmt: skip
@_takes_block
@click.option("--pooling", type=click.Choice(_POOLINGS), help="How the map becomes a vector.")
@_takes_weights
@click.option("--image-size", type=click.IntRange(min=8), metavar="SIDE",
              help="Of a base: the side of its images.  [its own]")  # fmt: skip
@click.option("--arg", "arguments", multiple=True, metavar="KEY=VALUE",
              help="Argument of a base, as alpha=0.25; may be repeated.")  # fmt: skip
@takes_root
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print counts as JSON on stdout.")
def embed_command(
    source: str,
    paths: tuple[str, ...],
    output: Path,
    block: str | None,
    pooling: str | None,
    weights: str,
    image_size: int | None,
    arguments: tuple[str, ...],
    root: Path,
    as_json: bool,
) -> None:
    """Write a vector of features for each image in PATHS, by the model of RUN or by BASE.

    BASE is an architecture or a Keras model, .keras. Features are kept in the feature store: a
    second call computes nothing. A file that cannot be decoded is named, and the exit code is 3.
    """
    from tl_toolkit.api.embedding import check_features_file, embed

    check_features_file(output)
    check_place(output)
    features = embed(
        source, paths, block=block, pooling=pooling, weights=weights, image_size=image_size,
        arguments=read_arguments(arguments), root=root, progress=current.print_events(),
    )  # fmt: skip
    features.save(output)
    counts = features.as_json()
    if as_json:
        show_json(counts)
    print_message(f"written: {output}, {counts['images']:,} images of {counts['features']} numbers")
    if features.skipped:
        total = len(features.skipped) + len(features.paths)
        raise DataError(f"{len(features.skipped)} of {total} files could not be read")


@click.command("similar")
@click.argument("source", metavar="RUN|BASE")
@click.argument("image", type=click.Path())
@click.argument("folder", type=click.Path())
@click.option("-n", "number", type=click.IntRange(min=1), default=12, show_default=True,
              help="How many.")  # fmt: skip
@click.option(
    "--sheet", type=click.Path(path_type=Path), metavar="FILE.html",
    help="Write a page in one file that shows the images.",
)  # fmt: skip
@_takes_block
@_takes_weights
@takes_root
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print the images as JSON on stdout.")
def similar_command(
    source: str,
    image: str,
    folder: str,
    number: int,
    sheet: Path | None,
    block: str | None,
    weights: str,
    root: Path,
    as_json: bool,
) -> None:
    """Find the images in FOLDER that are most like IMAGE, by the model of RUN or by BASE.

    By the cosine of their features, the most similar first. Features are kept in the feature store.
    """
    from tl_toolkit.api.similar import render_similar, similar

    refuse_two_results(as_json, {"--sheet": sheet})
    found = similar(
        source, image, folder, n=number, block=block, weights=weights, root=root,
        progress=current.print_events(),
    )  # fmt: skip
    if as_json:
        show_json([{"path": each.path, "similarity": each.similarity} for each in found])
    elif sheet is None or not is_stdout(sheet):
        show(build_table(["image", "similarity"], [[it.path, it.similarity] for it in found]))
    if sheet is not None:
        write_result(sheet, render_similar(image, found), option="--sheet FILE")
        if not is_stdout(sheet):
            print_message(f"written: {sheet}")


@click.command("label-next")
@click.argument("run")
@click.argument("folder", type=click.Path())
@click.option("-n", "number", type=click.IntRange(min=1), default=50, show_default=True,
              help="How many.")  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("-"), metavar="FILE.csv",
    help="Write the table to FILE, which is replaced if it exists.  [stdout]",
)  # fmt: skip
@takes_root
@click.option("--json", "as_json", is_flag=True, help="Print the images as JSON on stdout.")
def label_next_command(run: str, folder: str, number: int, output: Path, root: Path,
                       as_json: bool) -> None:  # fmt: skip
    """Choose the images in FOLDER whose labels would teach the model of RUN most.

    Those that it is uncertain of, unlike each other and unknown to it, as a table with a column of
    labels to fill in, which `data.csv` of a recipe reads.
    """
    from dataclasses import asdict

    from tl_toolkit.api.label_next import label_next

    if not is_stdout(output):
        check_place(output)
    chosen = label_next(run, folder, n=number, root=root, progress=current.print_events())
    if as_json:
        show_json([asdict(image) for image in chosen.images])
    if not is_stdout(output):
        chosen.save(output)
        count = f"{len(chosen.images):,} of {chosen.looked_at:,} images"
        hint = f"fill in the column {chosen.column}, then data.csv={output}"
        print_message(f"written: {output}, {count}. Next: {hint}")
    elif not as_json:
        click.echo(chosen.format(Path.cwd()), nl=False)
