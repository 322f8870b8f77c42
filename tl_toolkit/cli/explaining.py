"""`tltool explain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.cli.arguments import is_argument, read_arguments, takes_offline
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json, warn
from tl_toolkit.errors import DataError
from tl_toolkit.inspect.methods import HEAT_METHODS
from tl_toolkit.printing.tables import build_table
from tl_toolkit.runs.files import check_folder

if TYPE_CHECKING:
    from tl_toolkit.api.explain import Explanation
    from tl_toolkit.api.subjects import Subject


@click.command("explain", short_help="Show what a model sees: heat maps, activations, filters.")
@click.argument("words", nargs=-1, metavar="[RUN] [KEY=VALUE]... [IMAGES]...")
@click.option(
    "--any", "unfinished", is_flag=True,
    help="Let latest mean the newest run that holds a model, an interrupted one too.",
)  # fmt: skip
@click.option("--method", help=f"{', '.join(HEAT_METHODS)}.  [{HEAT_METHODS[0]}]")
@click.option("--class", "target", metavar="NAME", help="Class to explain.  [the predicted one]")
@click.option(
    "--block", metavar="NAME",
    help="Block, unit or layer whose map is explained.  [the last with an extent]",
)  # fmt: skip
@click.option("--activations", metavar="BLOCK", help="Show the channels of a block instead.")
@click.option("--filters", metavar="LAYER", help="Show the filters of a layer instead; or first.")
@click.option("--edge-filters", is_flag=True, help="Show classical edge filters; needs no RUN.")
@click.option("--base", metavar="NAME", help="An architecture instead of RUN, without a head.")
@click.option("--weights", help="Of --base: imagenet, random or a weight file.  [random]")
@click.option("--input-size", type=click.IntRange(min=1), help="Of --base: side of the images.")
@click.option("--seed", type=int, help="Of --base: random weights follow from it.  [0]")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("explanations"),
    show_default=True, metavar="DIR", help="Folder that receives pictures, and index.html.",
)  # fmt: skip
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print what was explained as JSON.")
def explain_command(
    words: tuple[str, ...],
    unfinished: bool,
    method: str | None,
    target: str | None,
    block: str | None,
    activations: str | None,
    filters: str | None,
    edge_filters: bool,
    base: str | None,
    weights: str | None,
    input_size: int | None,
    seed: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Show which parts of IMAGES speak for a class of RUN, or what is inside its model.

    Each image gets a picture, the heat over the photo in grey, and index.html shows all of them.
    With --base the features of an architecture are explained; KEY=VALUE are its arguments, as
    alpha=0.25. First filters are shown beside the classical edge filters that they resemble.
    """
    heat = {"--method": method, "--class": target, "--block": block}
    others = {"--activations": activations, "--filters": filters, "--edge-filters": edge_filters}
    of_base = {"--weights": weights, "--input-size": input_size, "--seed": seed}
    _refuse_together(heat, others, of_base, base=base)
    images = list(words)
    subject: Subject | None = None
    check_folder(out)
    if base is not None:
        subject = _read_base(base, [word for word in words if is_argument(word)], of_base)
        images = [word for word in words if not is_argument(word)]
    elif not edge_filters:
        subject = _open_run(images, unfinished=unfinished)
    if filters is not None and subject is not None:
        result = _show_filters(subject, images, filters, out, as_json=as_json)
    elif not images:
        raise click.UsageError("Expected images, as in: tltool explain latest photo.jpg")
    elif edge_filters or subject is None:
        result = _show_edges(images, out)
    elif activations is not None:
        result = _show_activations(subject, images, activations, out)
    else:
        values = {"method": method or HEAT_METHODS[0], "target": target, "block": block}
        result = _show_heat(subject, images, values, out, as_json=as_json)
    if as_json:
        show_json(result)
    refused = [record for record in result.get("images", []) if record.get("error")]
    if refused:
        raise DataError(f"{len(refused)} of {len(result['images'])} files could not be read")


def _refuse_together(
    heat: dict[str, Any], others: dict[str, Any], of_base: dict[str, Any], *, base: str | None
) -> None:
    """Refuses options that do not go together."""
    chosen = [name for name, value in others.items() if value]
    given = [name for name, value in heat.items() if value is not None]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)}: expected one of them")
    if chosen and given:
        raise click.UsageError(f"{given[0]} goes with heat maps, not with {chosen[0]}")
    lonely = [name for name, value in of_base.items() if value is not None]
    if lonely and base is None:
        raise click.UsageError(f"{lonely[0]} goes with --base NAME; a run has its own")
    if base is not None and others["--edge-filters"]:
        raise click.UsageError("--edge-filters needs an image alone, and no --base")


def _read_base(name: str, arguments: Sequence[str], of_base: dict[str, Any]) -> Subject:
    from tl_toolkit.api.subjects import Base

    side = of_base["--input-size"]
    return Base(
        name,
        read_arguments(arguments),
        image_size=side,
        weights=of_base["--weights"] or "random",
        seed=of_base["--seed"] or 0,
    )


def _open_run(words: list[str], *, unfinished: bool) -> Subject:
    """Opens the run that the first word names, and leaves the others."""
    if not words:
        raise click.UsageError("Expected a run and images, as in: tltool explain latest photo.jpg")
    from tl_toolkit.api.run import load_run

    run = load_run(words.pop(0), unfinished=unfinished)
    current.use_run(run.folder)
    return run


def _show_heat(
    subject: Subject, images: list[str], values: dict[str, Any], out: Path, *, as_json: bool
) -> dict[str, Any]:
    from tl_toolkit.api.explain import explain

    explanations = explain(subject, images, out=out, progress=current.print_events(), **values)
    for item in explanations:
        if item.error:
            warn(item.error if item.error.startswith(repr(item.path)) else
                 f"{item.path}: {item.error}")  # fmt: skip
    if not as_json:
        _show_table([item for item in explanations if not item.error])
    index = out / "index.html"
    print_message(f"rendered: {index}")
    return {"index": str(index), "images": [item.as_record() for item in explanations]}


def _show_table(explanations: Sequence[Explanation]) -> None:
    has_shares = any(item.share is not None for item in explanations)
    columns = ["file", "explained", "value", *(["share"] if has_shares else []), "picture"]
    rows = []
    for item in explanations:
        shares = [item.share] if has_shares else []
        rows.append([Path(item.path).name, item.label, item.value, *shares, item.file])
    if explanations:
        first = explanations[0]
        show(f"{first.method} of {first.block} ({first.layer})\n")
        show(build_table(columns, rows))


def _show_activations(subject: Subject, images: list[str], block: str, out: Path) -> dict[str, Any]:
    from tl_toolkit.api.insides import render_activations

    records = []
    for image, place in _name_sheets(images, f"{_as_name(block)}_activations", out):
        layer = render_activations(subject, image, block, place)
        print_message(f"rendered: {place}")
        records.append({"path": image, "block": block, "layer": layer, "file": str(place)})
    return {"images": records}


def _show_edges(images: list[str], out: Path) -> dict[str, Any]:
    from tl_toolkit.api.insides import render_edge_filters

    records = []
    for image, place in _name_sheets(images, "edge_filters", out):
        render_edge_filters(image, place)
        print_message(f"rendered: {place}")
        records.append({"path": image, "file": str(place)})
    return {"images": records}


def _show_filters(
    subject: Subject, images: list[str], layer: str, out: Path, *, as_json: bool
) -> dict[str, Any]:
    from tl_toolkit.api.insides import render_filters

    if images:
        raise click.UsageError(f"--filters needs no image, got {images[0]!r}")
    place = out / f"{_as_name(layer)}_filters.png"
    matches = render_filters(subject, layer, place)
    if matches and not as_json:
        rows = [[match.index, match.name, match.cosine, match.chance] for match in matches]
        show(build_table(["filter", "resembles", "cosine", "by chance"], rows))
        show("\nby chance: the share of random filters that resemble one as much")
    print_message(f"rendered: {place}")
    return {"file": str(place), "matches": [vars(match) for match in matches]}


def _name_sheets(images: Sequence[str], kind: str, out: Path) -> list[tuple[str, Path]]:
    """Returns the sheet of each image."""
    from tl_toolkit.images.pictures import name_outputs

    names = name_outputs([Path(image) for image in images])
    return [(image, out / f"{names[Path(image)]}_{kind}.png") for image in images]


def _as_name(name: str) -> str:
    return name.replace("/", "_")
