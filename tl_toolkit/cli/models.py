"""`tltool models` and `env`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.catalog.lookup import (
    ARCHITECTURES,
    Architecture,
    Argument,
    find_architecture,
)
from tl_toolkit.catalog.records import Value
from tl_toolkit.cli.console import build_table, show, show_json, tell
from tl_toolkit.recipe.schema import UnfreezeFrom
from tl_toolkit.recipe.yaml_reader import read_scalar

if TYPE_CHECKING:
    from tl_toolkit.inspect.describe import Description, Row
    from tl_toolkit.inspect.probe import Probe


_SHARING = """
A convolution connects each position to a window only, and uses the same weights at every
position: as many connections share each weight.
"""


@click.group("models")
def models_command() -> None:
    """List, show, draw and probe architectures."""


@models_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def list_models(as_json: bool) -> None:
    """List the architectures that a recipe's model.base may name."""
    if as_json:
        show_json([_record(one) for one in ARCHITECTURES.values()])
        return
    rows = [
        [
            one.name,
            one.family,
            one.parameters,
            one.minimum_size,
            len(one.blocks),
            bool(one.weight_files),
        ]
        for one in ARCHITECTURES.values()
    ]
    # Within 80 columns.
    show(build_table(["name", "family", "parameters", "least", "blocks", "imagenet"], rows))
    show("\nleast: side of the smallest images; imagenet: whether weights are published")


def _record(one: Architecture) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "family": one.family,
        "paper": one.paper,
        "parameters": one.parameters,
        "minimum_size": one.minimum_size,
        "size_step": one.size_step,
        "default_size": one.default_size,
        "pixels": one.pixels,
        "arguments": {key: value.default for key, value in one.arguments.items()},
        "head": None if one.head is None else dict(one.head),
        "weight_files": [file.name for file in one.weight_files],
        "blocks": {block.name: [unit.name for unit in block.units] for block in one.blocks},
    }


_takes_size = click.option(
    "--input-size", type=click.IntRange(min=1), help="Side of the images.  [its default]"
)


def _takes_drawing(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say what is drawn on images of which size, and what trains."""
    decorators = (
        _takes_size,
        click.option("--classes", type=click.IntRange(min=2), help="Add the paper's classifier."),
        click.option(
            "--unfreeze", metavar="N|UNIT|BLOCKS", help="Count what trains: 2, conv_dw_12, a,b."
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


@models_command.command("show")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@_takes_drawing
@click.option("--units", "level", flag_value="units", help="A row for each unit.")
@click.option("--layers", "level", flag_value="layers", help="A row for each layer.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def show_model(
    name: str,
    arguments: tuple[str, ...],
    input_size: int | None,
    classes: int | None,
    unfreeze: str | None,
    level: str | None,
    as_json: bool,
) -> None:
    """Show architecture NAME in numbers: a row for each block.

    KEY=VALUE are arguments of the architecture, as alpha=0.25. Multiply-accumulates (MACs) and
    the memory of activations (float32) are for one image. The field is the receptive field: how
    many pixels one position of the output sees, padding included.
    """
    record = find_architecture(name)
    from tl_toolkit.api.inspect import describe_architecture

    found = describe_architecture(
        name,
        _read_arguments(arguments),
        image_size=_square(input_size),
        num_classes=classes,
        unfreeze=_read_unfreeze(unfreeze, record),
    )
    if as_json:
        show_json(_describe_json(record, found))
        return
    _show_rows(found, level or "blocks")
    for key, argument in record.arguments.items():
        show(f"\nargument {key}={_value(argument.default)}  ({_allowed(argument)})")
        show(f"    {argument.help}")
    height, width = found.image_size
    show(
        f"\n{found.title}: {found.parameters:,} parameters, {found.trainable:,} of them trainable"
        f"\nFor one image of {height} x {width}: "
        f"{_scale(found.multiply_accumulates).strip()} multiply-accumulates, "
        f"{_scale(found.activation_bytes)}B of activations"
    )
    if found.taps:
        taps = ", ".join(found.taps)
        show(f"A task of pixels reads {sum(found.taps.values()):,} channels: {taps}")


def _allowed(argument: Argument) -> str:
    if argument.kind is bool:
        return "true|false"
    return "|".join(argument.choices) or f"{argument.low:g} to {argument.high:g}"


def _value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_arguments(texts: Sequence[str]) -> dict[str, Any]:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r}: expected KEY=VALUE, as alpha=0.25")
    return {key: read_scalar(value) for key, _, value in (one.partition("=") for one in texts)}


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
    return UnfreezeFrom(unit=text)


def _describe_json(record: Architecture, found: Description) -> dict[str, Any]:
    return {
        **_record(record),
        "input_size": list(found.image_size),
        "rows": [asdict(row) for row in found.blocks],
        "units": [asdict(row) for row in found.units],
        "layers": [asdict(row) for row in found.layers],
        "taps": dict(found.taps),
        "totals": {
            "parameters": found.parameters,
            "trainable": found.trainable,
            "multiply_accumulates": found.multiply_accumulates,
            "activation_bytes": found.activation_bytes,
        },
    }


def _show_rows(found: Description, level: str) -> None:
    rows: tuple[Row, ...] = getattr(found, level)
    heads = {"blocks": ["block"], "units": ["block", "unit"], "layers": ["layer", "kind"]}[level]
    columns = [*heads, "output", "parameters", "MACs", "field", "memory", "trains"]
    table = [[*_names(row, level), *_numbers(row, level)] for row in rows]
    # Figures with their units are words to the table, which would set them to the left.
    for index in range(len(heads) + 2, len(columns)):
        width = max(len(columns[index]), *(len(line[index]) for line in table))
        columns[index] = columns[index].rjust(width)
        for line in table:
            line[index] = line[index].rjust(width)
    show(build_table(columns, table))
    windows = [row for row in rows if row.formula and row.connections_per_weight]
    if not windows:
        return
    show(_SHARING)
    lines = [[row.end, row.formula, row.connections_per_weight] for row in windows]
    show(build_table(["convolution", "output size", "connections per weight"], lines))


def _names(row: Row, level: str) -> list[str | None]:
    if level == "blocks":
        return [row.block]
    if level == "units":
        return [row.block, row.unit]
    return [row.end, row.kind.replace("Normalization", "Norm")]


def _numbers(row: Row, level: str) -> list[Any]:
    others = len(row.outputs) - 1
    shape = "x".join(map(str, row.shape)) if level == "layers" else _times(row.shape)
    return [
        shape + (f" (+{others})" if others else ""),
        row.parameters,
        _scale(row.multiply_accumulates, 3) if row.multiply_accumulates else "",
        _field(row.receptive_field),
        f"{_scale(row.activation_bytes, 3)}B",
        f"{row.trainable / row.parameters:.0%}" if row.parameters else "",
    ]


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _field(size: tuple[int, int] | None) -> str:
    if size is None:
        return "all"
    return str(size[0]) if size[0] == size[1] else _times(size)


def _scale(count: int, digits: int = 4) -> str:
    """Writes a count with so many digits and a unit: 15.35 G, 118 M, 850 k or 12."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            places = max(digits - len(str(count // size)), 0)
            return f"{count / size:.{places}f} {letter}"
    return f"{count} "


@models_command.command("draw")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The SVG file to write."
)
@_takes_drawing
def build_model(
    name: str,
    arguments: tuple[str, ...],
    input_size: int | None,
    output: Path,
    classes: int | None,
    unfreeze: str | None,
) -> None:
    """Draw architecture NAME as SVG: blocks, units with shapes, what is frozen, what trains.

    Units that repeat are folded. A browser shows the file.
    """
    record = find_architecture(name)
    if output.suffix.lower() != ".svg":
        raise click.BadParameter(f"{str(output)!r}: expected a name that ends in .svg")
    from tl_toolkit.api.inspect import render_architecture

    path = render_architecture(
        name,
        output,
        _read_arguments(arguments),
        image_size=_square(input_size),
        num_classes=classes,
        unfreeze=_read_unfreeze(unfreeze, record),
    )
    tell(f"drawn: {path}")


@models_command.command("probe")
@click.argument("name")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--set", "arguments", multiple=True, metavar="KEY=VALUE", help="An argument, as alpha=0.25."
)
@_takes_size
@click.option(
    "--weights", default="random", show_default=True, help="imagenet, random or a weight file."
)
@click.option("--seed", default=0, show_default=True, help="Of random weights and drawn images.")
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as JSON.")
def probe_model(
    name: str,
    arguments: tuple[str, ...],
    input_size: int | None,
    images: tuple[Path, ...],
    weights: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure the blocks of architecture NAME on IMAGES: equivariance, and dead channels.

    The images are moved down and right by as many pixels as a block's positions are apart, and
    the outputs compared: f(shift x) with shift f(x). A dead channel is zero on all images, at
    every position. Without IMAGES, some are drawn in code.
    """
    find_architecture(name)
    from tl_toolkit.api.inspect import probe_architecture

    found = probe_architecture(
        name,
        images,
        _read_arguments(arguments),
        image_size=_square(input_size),
        weights=weights,
        seed=seed,
    )
    if as_json:
        show_json(_probe_json(found))
    else:
        _show_probe(found)


def _probe_json(found: Probe) -> dict[str, Any]:
    blocks = [{**asdict(block), "dead_share": block.dead_share} for block in found.blocks]
    return {**asdict(found), "blocks": blocks}


def _show_probe(found: Probe) -> None:
    height, width = found.image_size
    show(
        f"{found.num_images} images, {found.images}, {height} x {width}; weights: {found.weights}\n"
    )
    rows = [
        [
            block.block,
            _times(block.shape),
            block.shift,
            None if block.difference is None else f"{block.difference:.1e}",
            None if block.relative is None else f"{block.relative:.1e}",
            None if block.compared is None else _times(block.compared),
            "yes" if block.is_exact else "no" if block.compared else "",
            f"{block.dead:,} of {block.channels:,} ({block.dead_share:.1%})",
        ]
        for block in found.blocks
    ]
    columns = ["block", "output", "shift", "difference", "relative", "compared", "equivariant"]
    show(build_table([*columns, "dead channels"], rows))
    reasons: dict[str, list[str]] = {}
    for block in found.blocks:
        reasons.setdefault(block.reason, []).append(block.block)
    show("")
    for reason, blocks in reasons.items():
        show(f"{', '.join(blocks)}: {reason}")
    show(
        "\nshift: pixels; difference: largest between f(shift x) and shift f(x); relative: divided"
        "\nby the largest |f(x)|; compared: positions of the output; equivariant: equal but for"
        "\nrounding; dead channels: of the ReLU outputs, those that are zero on all images"
    )


@click.command("env")
def env_command() -> None:
    """Print versions, devices and the flags that a float's last bits depend on, as JSON."""
    from tl_toolkit.runtime import describe_numerics, start_tensorflow

    start_tensorflow()
    show_json(describe_numerics())
