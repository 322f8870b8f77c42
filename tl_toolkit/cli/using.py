"""`tltool evaluate`, `predict` and `export`: what is done with a finished run."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tl_toolkit.cli.console import (
    ConsoleProgress,
    divert_noise,
    draw_table,
    show,
    show_json,
    show_metrics,
    tell,
    warn,
)
from tl_toolkit.errors import DataError

if TYPE_CHECKING:
    from tl_toolkit.evaluation.predict import Prediction


@click.command("evaluate")
@click.argument("run")
@click.option(
    "--data", type=click.Path(path_type=Path), help="A folder per class.  [the run's own]"
)
@click.option("--fail-under", multiple=True, metavar="METRIC=VALUE", help="Exit 4 when worse.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics as JSON on stdout.")
def evaluate_command(
    run: str, data: Path | None, fail_under: tuple[str, ...], as_json: bool
) -> None:
    """Measure the model of RUN on its test images, or on those of another folder.

    RUN is a folder, or NAME/NNN, NAME/latest or latest under runs/. A run without test images is
    measured on its validation images. METRIC is accuracy, balanced_accuracy, macro_f1 (at least
    VALUE) or loss (at most).
    """
    thresholds = dict(map(_read_threshold, fail_under))
    from tl_toolkit.evaluation.metrics import check_names

    check_names(thresholds)
    divert_noise()
    from tl_toolkit.api import load_run
    from tl_toolkit.evaluation.metrics import check_thresholds

    metrics = load_run(run).evaluate(data, progress=ConsoleProgress())
    for path, reason in metrics["skipped"].items():
        warn(f"skipped {path}: {reason}")
    absent = [name for name, row in metrics["per_class"].items() if not row["images"]]
    if absent:
        warn(f"no images of {', '.join(absent)}: the means are over the other classes")
    if as_json:
        show_json(metrics)
    else:
        show_metrics(metrics["split"], metrics)
    check_thresholds(metrics, thresholds)


def _read_threshold(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        if math.isfinite(float(value)):
            return name, float(value)
        raise ValueError
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected METRIC=VALUE, as accuracy=0.9") from None


@click.command("predict")
@click.argument("run")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table",
    show_default=True,
)  # fmt: skip
def predict_command(run: str, paths: tuple[Path, ...], form: str) -> None:
    """Ask the model of RUN about image files, and about folders of images.

    A file that cannot be decoded is named and the exit code is 3; the others are answered.
    """
    divert_noise()
    from tl_toolkit.api import load_run

    found = load_run(run).predict(paths, progress=ConsoleProgress())
    {"table": _print_table, "csv": _print_csv, "jsonl": _print_lines}[form](found)
    refused = [prediction for prediction in found if prediction.error]
    for prediction in refused:
        warn(f"{prediction.path}: {prediction.error}")
    if refused:
        raise DataError(f"{len(refused)} of {len(found)} files could not be decoded")


def _print_table(found: list[Prediction]) -> None:
    rows = [[row.path, row.label, row.probability] for row in found if not row.error]
    show(draw_table(["file", "class", "probability"], rows))


def _print_csv(found: list[Prediction]) -> None:
    classes = next((list(row.probabilities) for row in found if not row.error), [])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "label", "probability", *classes, "error"])
    for row in found:
        values = [row.probabilities.get(name) for name in classes]
        writer.writerow([row.path, row.label, row.probability, *values, row.error])


def _print_lines(found: list[Prediction]) -> None:
    from tl_toolkit.evaluation.predict import as_record

    for row in found:
        click.echo(json.dumps(as_record(row), ensure_ascii=False))


@click.command("export")
@click.argument("run")
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(["saved_model", "weights"]),
    default=("saved_model",), show_default=True,
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON on stdout.")
def export_command(run: str, formats: tuple[str, ...], as_json: bool) -> None:
    """Export the model of RUN; a SavedModel is published only if it answers as the model does."""
    divert_noise()
    from tl_toolkit.api import load_run

    opened = load_run(run)
    paths = opened.export(formats)
    for path in paths.values():
        tell(f"exported: {path}")
    if "saved_model" in paths:
        report = opened.folder.read_json(opened.folder.export / "parity.json")
        tell(
            f"largest difference in probability: {report['pixels']['largest_difference']:.1e} from "
            f"pixels, {report['bytes']['largest_difference']:.1e} from bytes"
        )
    if as_json:
        show_json({name: str(path) for name, path in paths.items()})
