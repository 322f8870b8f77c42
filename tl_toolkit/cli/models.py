"""`tltool models` and `env`."""

from __future__ import annotations

import click

from tl_toolkit.architectures.catalog import (
    ARCHITECTURES,
    Architecture,
    check_image_size,
    find_architecture,
)
from tl_toolkit.cli.console import draw_table, show, show_json
from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.schema import UnfreezeFrom
from tl_toolkit.recipe.yaml_reader import read_scalar


@click.group("models")
def models_command() -> None:
    """List and show architectures."""


@models_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def list_models(as_json: bool) -> None:
    """List the architectures that a recipe's model.base may name."""
    if as_json:
        show_json([_record(name) for name in ARCHITECTURES])
        return
    rows = [
        [
            one.name,
            one.title,
            one.parameters,
            one.minimum_size,
            len(one.blocks),
            len(one.units),
            bool(one.weight_files),
        ]
        for one in ARCHITECTURES.values()
    ]
    columns = ["name", "title", "parameters", "least size", "blocks", "units", "imagenet"]
    show(draw_table(columns, rows))


def _record(name: str) -> dict[str, object]:
    one = find_architecture(name)
    return {
        "name": one.name,
        "title": one.title,
        "paper": one.paper,
        "parameters": one.parameters,
        "minimum_size": one.minimum_size,
        "default_size": one.default_size,
        "pixels": one.pixels,
        "arguments": {key: value.default for key, value in one.arguments.items()},
        "weight_files": [file.name for file in one.weight_files],
        "blocks": {block.name: [unit.name for unit in block.units] for block in one.blocks},
    }


@models_command.command("show")
@click.argument("name")
@click.argument("arguments", nargs=-1)
@click.option("--input-size", type=click.IntRange(min=8), help="Side of the images.  [its default]")
@click.option("--unfreeze", metavar="N|UNIT|BLOCKS", help="Count what trains: 2, conv_dw_12, a,b.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def show_model(
    name: str,
    arguments: tuple[str, ...],
    input_size: int | None,
    unfreeze: str | None,
    as_json: bool,
) -> None:
    """Show the blocks and units of architecture NAME: shapes, parameters, what trains.

    ARGUMENTS are those of the architecture, as alpha=0.25.
    """
    record = find_architecture(name)
    values = {key: read_scalar(value) for key, _, value in (a.partition("=") for a in arguments)}
    from tl_toolkit.runtime import start_tensorflow

    start_tensorflow()
    from tl_toolkit.transfer.describe import describe_base

    side = input_size or record.default_size
    _refuse_small(record, side)
    rows = describe_base(record, values, (side, side), _read_unfreeze(unfreeze, record))
    if as_json:
        show_json({**_record(name), "units": rows})
        return
    table = draw_table(
        ["block", "unit", "ends at", "output", "parameters", "trainable"],
        [
            [row["block"], row["unit"], row["end"], _shape(row["shape"]), row["parameters"],
             row["trainable"]]
            for row in rows
        ],
    )  # fmt: skip
    show(table)
    for key, argument in record.arguments.items():
        allowed = "|".join(argument.choices) or f"{argument.low:g} to {argument.high:g}"
        show(f"\nargument {key}={argument.default}  ({allowed}): {argument.help}")
    total = sum(row["parameters"] for row in rows)
    trainable = sum(row["trainable"] for row in rows)
    show(f"\n{record.title}: {total:,} parameters, {trainable:,} of them trainable")


def _refuse_small(record: Architecture, side: int) -> None:
    problem = check_image_size(record, (side, side))
    if problem is not None:
        raise RecipeError(problem)


def _shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


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


@click.command("env")
def env_command() -> None:
    """Print versions, devices and the flags that a float's last bits depend on, as JSON."""
    from tl_toolkit.runtime import describe_numerics, start_tensorflow

    start_tensorflow()
    show_json(describe_numerics())
