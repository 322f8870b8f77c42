"""Formats what `tltool models` prints: records, rows of figures, and measurements of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tl_toolkit.catalog.lookup import Architecture, Argument
from tl_toolkit.catalog.records import Value
from tl_toolkit.cli.console import show
from tl_toolkit.printing.tables import Figure, build_table
from tl_toolkit.printing.words import describe_count

if TYPE_CHECKING:
    from tl_toolkit.inspect.describe import Description, Row
    from tl_toolkit.inspect.probe import Probe

_SHARING = """
A convolution connects each position to a window only, and uses the same weights at every
position: as many connections share each weight.
"""


def record_of(architecture: Architecture) -> dict[str, Any]:
    """Returns an architecture's record for JSON.

    Args:
        architecture: Architecture of the catalog.
    """
    blocks = {block.name: [unit.name for unit in block.units] for block in architecture.blocks}
    return {
        "name": architecture.name,
        "title": architecture.title,
        "family": architecture.family,
        "paper": architecture.paper,
        "parameters": architecture.parameters,
        "minimum_size": architecture.minimum_size,
        "size_step": architecture.size_step,
        "default_size": architecture.default_size,
        "pixels": architecture.pixels,
        "arguments": {key: value.default for key, value in architecture.arguments.items()},
        "head": None if architecture.head is None else dict(architecture.head),
        "weight_files": [file.name for file in architecture.weight_files],
        "blocks": blocks,
    }


def describe_json(record: Architecture, description: Description) -> dict[str, Any]:
    """Returns a description for JSON.

    Args:
        record: Record of the architecture.
        description: Its figures.
    """
    return {
        **record_of(record),
        "input_size": list(description.image_size),
        "rows": [asdict(row) for row in description.blocks],
        "units": [asdict(row) for row in description.units],
        "layers": [asdict(row) for row in description.layers],
        "taps": dict(description.taps),
        "totals": {
            "parameters": description.parameters,
            "trainable": description.trainable,
            "multiply_accumulates": description.multiply_accumulates,
            "activation_bytes": description.activation_bytes,
        },
    }


def show_description(record: Architecture, description: Description, level: str) -> None:
    """Prints a description to stdout.

    Args:
        record: Record of the architecture.
        description: Its figures.
        level: A row for each of these: blocks, units or layers.
    """
    _show_rows(description, level)
    for key, argument in record.arguments.items():
        value = description.arguments.get(key, argument.default)
        default = f", default {_value(argument.default)}" if value != argument.default else ""
        show(f"\nargument {key}={_value(value)}  ({_allowed(argument)}{default})")
        show(f"    {argument.help}")
    height, width = description.image_size
    show(
        f"\n{description.heading}: {description.parameters:,} parameters, "
        f"{description.trainable:,} of them trainable"
        f"\nFor one image of {height} x {width}: "
        f"{describe_count(description.multiply_accumulates).strip()} multiply-accumulates, "
        f"{describe_count(description.activation_bytes)}B of activations"
    )
    if description.taps:
        taps = ", ".join(description.taps)
        show(f"A dense task reads {sum(description.taps.values()):,} channels: {taps}")


def _show_rows(description: Description, level: str) -> None:
    rows: tuple[Row, ...] = getattr(description, level)
    heads = {"blocks": ["block"], "units": ["block", "unit"], "layers": ["layer", "kind"]}[level]
    columns = [*heads, "output", "parameters", "MACs", "field", "memory", "trains"]
    table = [[*_names(row, level), *_numbers(row)] for row in rows]
    show(build_table(columns, table, keys=len(heads)))
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


def _numbers(row: Row) -> list[Any]:
    further = len(row.outputs) - 1
    shape = "x".join(map(str, row.shape))
    return [
        shape + (f" (+{further})" if further else ""),
        row.parameters,
        Figure(describe_count(row.multiply_accumulates, 3) if row.multiply_accumulates else ""),
        Figure(_field(row.receptive_field)),
        Figure(f"{describe_count(row.activation_bytes, 3)}B"),
        Figure(f"{row.trainable / row.parameters:.0%}" if row.parameters else ""),
    ]


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _field(size: tuple[int, int] | None) -> str:
    if size is None:
        return "all"
    return str(size[0]) if size[0] == size[1] else _times(size)


def _allowed(argument: Argument) -> str:
    if argument.kind is bool:
        return "true|false"
    return "|".join(argument.choices) or f"{argument.low:g} to {argument.high:g}"


def _value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def probe_json(probe: Probe) -> dict[str, Any]:
    """Returns the measurements of a probe, for JSON.

    Args:
        probe: The result.
    """
    blocks = [{**asdict(block), "dead_share": block.dead_share} for block in probe.blocks]
    return {**asdict(probe), "blocks": blocks}


def show_probe(probe: Probe) -> None:
    """Prints the measurements of a probe to stdout.

    Args:
        probe: The result.
    """
    height, width = probe.image_size
    show(
        f"{probe.num_images} images, {probe.images}, {height} x {width}; weights: {probe.weights}\n"
    )
    rows = [
        [
            block.block,
            "x".join(map(str, block.shape)),
            block.shift,
            None if block.difference is None else Figure(f"{block.difference:.1e}"),
            None if block.relative is None else Figure(f"{block.relative:.1e}"),
            None if block.compared is None else "x".join(map(str, block.compared)),
            "yes" if block.is_exact else "no" if block.compared else "",
            f"{block.dead:,} of {block.channels:,} ({block.dead_share:.1%})",
        ]
        for block in probe.blocks
    ]
    columns = ["block", "output", "shift", "difference", "relative", "compared", "equivariant"]
    show(build_table([*columns, "dead channels"], rows))
    reasons: dict[str, list[str]] = {}
    for block in probe.blocks:
        reasons.setdefault(block.reason, []).append(block.block)
    show("")
    for reason, blocks in reasons.items():
        show(f"{', '.join(blocks)}: {reason}")
    show(
        "\nshift: pixels; difference: largest between f(shift x) and shift f(x);"
        "\nrelative: divided by the largest |f(x)|; compared: positions of the output;"
        "\nequivariant: equal but for rounding; dead channels: of the ReLU outputs,"
        "\nthose that are zero on all images"
    )
