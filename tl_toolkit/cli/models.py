"""`tltool models`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from tl_toolkit.catalog.lookup import ARCHITECTURES, Architecture
from tl_toolkit.cli.arguments import is_argument, read_arguments, takes_offline
from tl_toolkit.cli.console import is_stdout, print_message, show, show_json, write_result
from tl_toolkit.cli.model_tables import (
    describe_json,
    probe_json,
    record_of,
    show_description,
    show_probe,
)
from tl_toolkit.plan.bases import find_record
from tl_toolkit.printing.tables import build_table
from tl_toolkit.recipe.schema import UnfreezeFrom
from tl_toolkit.runs.files import check_place, is_stream


@click.group("models")
def models_command() -> None:
    """List, show, draw and probe architectures."""


@models_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def list_models(as_json: bool) -> None:
    """List the architectures that a recipe's model.base may name."""
    if as_json:
        show_json([record_of(architecture) for architecture in ARCHITECTURES.values()])
        return
    rows = [
        [
            architecture.name,
            architecture.family,
            architecture.parameters,
            architecture.minimum_size,
            len(architecture.blocks),
            bool(architecture.weight_files),
        ]
        for architecture in ARCHITECTURES.values()
    ]
    # Within 80 columns.
    show(build_table(["name", "family", "parameters", "least", "blocks", "imagenet"], rows))
    show("\nleast: side of the smallest images; imagenet: whether weights are published")


_takes_size = click.option(
    "--input-size", type=click.IntRange(min=1), help="Side of the images.  [its default]"
)


_takes_set = click.option(
    "--set", "set_arguments", multiple=True, metavar="KEY=VALUE", help="The same as KEY=VALUE."
)


def _takes_graph(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of the graph: image size, classifier, and what trains."""
    decorators = (
        _takes_set,
        _takes_size,
        click.option("--classes", type=click.IntRange(min=2), help="Add the paper's classifier."),
        click.option(
            "--unfreeze", metavar="N|UNIT|BLOCKS", help="Count what trains: 2, conv_dw_12, a,b."
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


@models_command.command(
    "show", short_help="Show an architecture, or a model in a file, in numbers."
)
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@_takes_graph
@click.option("--units", "level", flag_value="units", help="A row for each unit.")
@click.option("--layers", "level", flag_value="layers", help="A row for each layer.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def show_model(
    name: str,
    arguments: tuple[str, ...],
    set_arguments: tuple[str, ...],
    input_size: int | None,
    classes: int | None,
    unfreeze: str | None,
    level: str | None,
    as_json: bool,
) -> None:
    """Show architecture NAME, or a Keras model in a file, in numbers: a row for each block.

    KEY=VALUE are arguments of the architecture, as alpha=0.25. Multiply-accumulates (MACs) and
    the memory of activations (float32) are for one image. The field is the receptive field: how
    many pixels one position of the output sees, padding included.
    """
    record = find_record(name, _square(input_size))
    from tl_toolkit.api.inspect import describe_architecture

    description = describe_architecture(
        name,
        read_arguments([*arguments, *set_arguments]),
        image_size=_square(input_size),
        num_classes=classes,
        unfreeze=_read_unfreeze(unfreeze, record),
    )
    if as_json:
        show_json(describe_json(record, description))
        return
    show_description(record, description, level or "blocks")


def _square(side: int | None) -> tuple[int, int] | None:
    return None if side is None else (side, side)


def _read_unfreeze(
    text: str | None, architecture: Architecture
) -> int | UnfreezeFrom | tuple[str, ...]:
    """Reads `2`, the name of a unit, or names of blocks with commas between."""
    if not text or text.isdigit():
        return int(text or 0)
    names = tuple(text.split(","))
    if len(names) > 1 or any(block.name == text for block in architecture.blocks):
        return names
    return UnfreezeFrom.model_validate({"from": text})


@models_command.command("draw", short_help="Draw an architecture as SVG.")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="The SVG file, which is replaced if it exists; - is stdout.  [NAME.svg]",
)  # fmt: skip
@_takes_graph
def draw_model(
    name: str,
    arguments: tuple[str, ...],
    set_arguments: tuple[str, ...],
    input_size: int | None,
    output: Path | None,
    classes: int | None,
    unfreeze: str | None,
) -> None:
    """Draw architecture NAME as SVG: blocks, units with shapes, what is frozen, what trains.

    Repeated units are collapsed into one box. A browser shows the file. KEY=VALUE are arguments of
    the architecture, as alpha=0.25.
    """
    record = find_record(name, _square(input_size))
    output = output or Path(f"{Path(name).stem if record.file else name}.svg")
    if output.suffix.lower() != ".svg" and not (is_stdout(output) or is_stream(output)):
        raise click.BadParameter(f"{str(output)!r}: expected a name that ends in .svg")
    if not is_stdout(output):
        check_place(output)
    from tl_toolkit.api.inspect import render_diagram_of

    diagram = render_diagram_of(
        name,
        read_arguments([*arguments, *set_arguments]),
        image_size=_square(input_size),
        num_classes=classes,
        unfreeze=_read_unfreeze(unfreeze, record),
    )
    write_result(output, diagram)
    if not is_stdout(output):
        print_message(f"rendered: {output}")


@models_command.command(
    "probe", short_help="Measure its blocks on images: equivariance, dead channels."
)
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE | IMAGE]...")
@_takes_set
@_takes_size
@click.option(
    "--weights", default="random", show_default=True, help="imagenet, random or a weight file."
)
@click.option(
    "--seed", default=0, show_default=True, help="Of random weights and synthetic images."
)
@takes_offline
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def probe_model(
    name: str,
    words: tuple[str, ...],
    set_arguments: tuple[str, ...],
    input_size: int | None,
    weights: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure the blocks of architecture NAME on images: equivariance, and dead channels.

    IMAGE is a file, or a folder with all images inside; KEY=VALUE are arguments of the
    architecture, as alpha=0.25.

    The images are moved down and right by as many pixels as a block's positions are apart, and
    the outputs compared: f(shift x) with shift f(x). A dead channel is zero on all images, at
    every position. Without an IMAGE, some are rendered in code.
    """
    find_record(name, _square(input_size))
    from tl_toolkit.api.inspect import probe_architecture

    arguments = [word for word in words if is_argument(word)]
    probe = probe_architecture(
        name,
        [word for word in words if not is_argument(word)],
        read_arguments([*arguments, *set_arguments]),
        image_size=_square(input_size),
        weights=weights,
        seed=seed,
    )
    if as_json:
        show_json(probe_json(probe))
    else:
        show_probe(probe)
