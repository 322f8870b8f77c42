"""Prints the text of a command: results on stdout, all other text on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_toolkit.cli.command import current
from tl_toolkit.errors import OutputError
from tl_toolkit.printing.tables import build_table, numbers_of, open_console
from tl_toolkit.printing.words import escape_controls
from tl_toolkit.recipe.tasks import TaskSection
from tl_toolkit.runs.files import write_atomically

if TYPE_CHECKING:
    from tl_toolkit.printing.tables import FittedTable


def print_message(message: str) -> None:
    """Prints a sentence for people, to stderr.

    Args:
        message: The sentence.
    """
    _print(escape_controls(message))


def warn(message: str) -> None:
    """Prints an error for people, to stderr; red where colours are welcome.

    Args:
        message: The error.
    """
    colours = current.terminal.isatty() and "NO_COLOR" not in os.environ
    message = escape_controls(message)
    _print(click.style(message, fg="red") if colours else message)


def _print(text: str) -> None:
    print(text, file=current.terminal, flush=True)


def show(table: FittedTable | str) -> None:
    """Prints a result for people, to stdout.

    Args:
        table: The result.
    """
    if isinstance(table, str):
        click.echo(escape_controls(table))
    else:
        open_console(sys.stdout).print(table)


def write_result(path: Path, text: str, *, option: str = "-o FILE") -> None:
    """Writes a result to a file, or to stdout where the file is called `-`.

    Args:
        path: The file; one that exists is replaced.
        text: The result.
        option: What names another file, for an error.

    Raises:
        OutputError: The file cannot be written.
    """
    if is_stdout(path):
        click.echo(text, nl=False)
        return
    try:
        write_atomically(path, text)
    except OutputError as error:
        hint = f"{option} in a folder you may write to, with space left"
        raise OutputError(
            [
                replace(problem, expected="", hint=hint) if "--out" in problem.hint else problem
                for problem in error.problems
            ]
        ) from error


def is_stdout(path: Path) -> bool:
    """Returns whether a name of a file stands for stdout.

    Args:
        path: The name.
    """
    return str(path) == "-"


def show_json(value: Any) -> None:
    """Prints a result for machines, to stdout.

    Args:
        value: What JSON can hold, and paths.
    """
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def show_metrics(name: str, metrics: Mapping[str, Any], task: TaskSection) -> None:
    """Prints the metrics of one split, and of each class or column where there are any.

    Args:
        name: The split, or the folder of its images.
        metrics: As in metrics.json.
        task: Of the run.
    """
    numbers = numbers_of(metrics)
    columns = [task.title_of(key) for key in numbers]
    rows: list[list[Any]] = [["", *numbers.values()]]
    intervals = metrics.get("intervals", {})
    for title, place in (("95 % from", 0), ("to", 1)) if intervals else ():
        bounds = [intervals[key][place] if key in intervals else None for key in numbers]
        rows.append([title, *bounds])
    for key, title in task.baselines.items():
        if key in metrics:
            rows.append([title, *map(metrics[key].get, numbers)])
    show(f"{name}\n")
    show(build_table(["", *columns], rows))
    certainty = task.describe_certainty(metrics)
    sentences = [*([certainty] if certainty else []), *task.describe_comparisons(metrics)]
    if sentences:
        show("")
    for sentence in sentences:
        show(sentence)
    groups = metrics.get(f"per_{task.grouped_by}")
    if groups:
        columns = list(next(iter(groups.values())))
        # Counts first: metrics of few images mean little.
        columns.sort(key=lambda column: column not in ("images", "pixels"))
        rows = [[label, *(row[column] for column in columns)] for label, row in groups.items()]
        show("")
        show(build_table([task.grouped_by, *map(task.title_of, columns)], rows))
    for details in task.list_details(metrics):
        show(f"\n{details.title}\n")
        show(build_table(details.columns, details.rows))
