"""`tltool benchmark`."""

from __future__ import annotations

import click

from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import print_message, show, show_json
from tl_toolkit.printing.tables import Figure, build_table
from tl_toolkit.printing.words import describe_size
from tl_toolkit.recipe.export_formats import split_formats


def _read_numbers(_: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    """Returns numbers with commas between them."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r}: expected numbers from 1 on, as 1,32")
    return numbers


@click.command("benchmark")
@click.argument("run")
@click.option(
    "--formats", callback=lambda _, __, text: split_formats(text) if text else None,
    help="Formats to time, with commas between.  [all that RUN was exported to]",
)  # fmt: skip
@click.option("--batch", default="1,32", show_default=True, callback=_read_numbers,
              help="Images of a call, with commas between.")  # fmt: skip
@click.option("--threads", default="1,2", show_default=True, callback=_read_numbers,
              help="Threads of a call, with commas between.")  # fmt: skip
@click.option("--calls", type=click.IntRange(min=1), default=30, show_default=True,
              help="Calls of each kind.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on stdout.")
def benchmark_command(
    run: str,
    formats: tuple[str, ...] | None,
    batch: tuple[int, ...],
    threads: tuple[int, ...],
    calls: int,
    as_json: bool,
) -> None:
    """Time the model of RUN in each format that it was exported to, beside Keras's predict.

    Each row is a fresh process; loading the model is not in it. The figures are written to
    benchmark.json and benchmark.svg in the export folder of RUN.
    """
    from tl_toolkit.api.benchmark import benchmark
    from tl_toolkit.api.run import load_run

    opened = load_run(run)
    current.use_run(opened.folder)
    found = benchmark(
        opened, formats=formats, batch=batch, threads=threads, calls=calls,
        progress=current.print_events(),
    )  # fmt: skip
    if as_json:
        show_json(found.as_json())
    else:
        titles = ["format", "batch", "threads", "ms a call", "95 % within", "images/s", "size"]
        rows = [
            [row.format, row.batch, row.threads, Figure(f"{row.p50_ms:.2f}"),
             Figure(f"{row.p95_ms:.2f}"), Figure(f"{row.images_per_second:.0f}"),
             Figure(describe_size(row.bytes))]
            for row in found.timings
        ]  # fmt: skip
        show(build_table(titles, rows))
        print_message(", ".join(f"{name} {value}" for name, value in found.machine.items()))
    print_message(f"written: {opened.folder.benchmark}, {opened.folder.benchmark_plot.name}")
