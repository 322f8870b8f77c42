"""`tltool evaluate`, `predict` and `export`: what is done with a finished run."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tl_toolkit.cli.console import (
    ConsoleProgress,
    build_table,
    divert_noise,
    show,
    show_json,
    show_metrics,
    tell,
    warn,
)
from tl_toolkit.errors import DataError
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS, describe_formats, split_formats


@click.command("evaluate")
@click.argument("run")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A folder like the recipe's test.  [the run's own]",
)
@click.option("--fail-under", multiple=True, metavar="METRIC=VALUE", help="Exit 4 when worse.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics as JSON on stdout.")
def evaluate_command(
    run: str, data: Path | None, fail_under: tuple[str, ...], as_json: bool
) -> None:
    """Measure the model of RUN on its test images, or on those of another folder.

    RUN is a folder, or NAME/NNN, NAME/latest or latest under runs/. A run without test images is
    measured on its validation images. METRIC is a metric of the run's task, as accuracy, macro_f1
    or mean_iou (at least VALUE), loss or an angle (at most).
    """
    thresholds = dict(map(_read_threshold, fail_under))
    divert_noise()
    from tl_toolkit.api.run import load_run
    from tl_toolkit.evaluation.metrics import check_names, check_thresholds
    from tl_toolkit.recipe.pixel_schema import PIXEL_TASKS

    opened = load_run(run)
    if thresholds and opened.folder.metrics.is_file():  # an interrupted run has none
        check_names(thresholds, opened.metrics)
    metrics = opened.evaluate(data, progress=ConsoleProgress().handle)
    for path, reason in metrics["skipped"].items():
        warn(f"skipped {path}: {reason}")
    classes = metrics.get("per_class", {})
    absent = [name for name, row in classes.items() if row.get("images", row.get("pixels")) == 0]
    if absent:
        warn(_tell_absent(absent, of_pixels=opened.recipe.task in PIXEL_TASKS))
    if as_json:
        show_json(metrics)
    else:
        show_metrics(metrics["split"], metrics)
    check_thresholds(metrics, thresholds)


def _tell_absent(classes: list[str], *, of_pixels: bool) -> str:
    names = ", ".join(classes)
    if not of_pixels:
        return f"no images of {names}: the means are over the other classes"
    return (
        f"no pixel of {names} in the masks: mean accuracy leaves it out; mean IoU counts it where "
        "it was predicted"
    )


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
    "--out", type=click.Path(path_type=Path),
    help="Folder for masks and overlays, where each pixel has an answer.  [predictions]",
)  # fmt: skip
@click.option(
    "--native", is_flag=True, help="Likewise: do not resize images, in windows if they are large."
)
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "jsonl"]), default="table",
    show_default=True,
)  # fmt: skip
def predict_command(
    run: str, paths: tuple[Path, ...], out: Path | None, native: bool, form: str
) -> None:
    """Ask the model of RUN about image files, and about folders of images.

    A file that cannot be decoded is named and the exit code is 3; the others are answered. Where
    each pixel has an answer, a file's mask and an overlay are written as PNG.
    """
    divert_noise()
    from tl_toolkit.api.run import load_run
    from tl_toolkit.recipe.pixel_schema import PIXEL_TASKS

    opened = load_run(run)
    if out is None and opened.recipe.task in PIXEL_TASKS:
        out = Path("predictions")
    found = opened.predict(paths, out=out, native=native, progress=ConsoleProgress().handle)
    records = [one.as_record() for one in found]
    if form == "csv":
        _print_csv(records, opened.classes)
    else:
        {"table": _print_table, "jsonl": _print_lines}[form](records)
    refused = [record for record in records if record["error"]]
    for record in refused:
        warn(f"{record['path']}: {record['error']}")
    if refused:
        raise DataError(f"{len(refused)} of {len(found)} files could not be decoded")


def _print_table(records: list[dict[str, Any]]) -> None:
    answered = [record for record in records if not record["error"]]
    if any("probabilities" in record for record in records):
        rows = [[record["path"], record["label"], record["probability"]] for record in answered]
        show(build_table(["file", "class", "probability"], rows))
        return
    pictures = _pictures(records)
    has_classes = any(record["shares"] for record in answered)
    rows = []
    for record in answered:
        most = next(iter(record["shares"].items()), (None, None)) if has_classes else ()
        rows.append([record["path"], *most, *map(record["files"].get, pictures)])
    columns = ["most of it", "share"] if has_classes else []
    show(build_table(["file", *columns, *pictures], rows))


def _print_csv(records: list[dict[str, Any]], classes: Sequence[str]) -> None:
    """Prints a row for each file, with a column for each class of the run."""
    first = ["path"] if "shares" in records[0] else ["path", "label", "probability"]
    plain = [*first, *_pictures(records)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*plain, *classes, "error"])
    for record in records:
        values = [_by_class(record).get(name) for name in classes]
        found = {**record, **record.get("files", {})}
        writer.writerow([*map(found.get, plain), *values, record["error"]])


def _pictures(records: list[dict[str, Any]]) -> list[str]:
    """Returns the kinds of pictures that were written, as mask and overlay."""
    return next((list(record["files"]) for record in records if record.get("files")), [])


def _by_class(record: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = record.get("probabilities") or record.get("shares") or {}
    return found


def _print_lines(records: list[dict[str, Any]]) -> None:
    for record in records:
        click.echo(json.dumps(record, ensure_ascii=False))


@click.command("export")
@click.argument("run")
@click.option(
    "--to", "--format", "formats", multiple=True, default=("saved_model",), show_default=True,
    callback=lambda _, __, values: split_formats(values),
    help=f"{describe_formats()}. May be given again, or name several with commas between.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON on stdout.")
def export_command(run: str, formats: tuple[str, ...], as_json: bool) -> None:
    """Export the model of RUN; a SavedModel is published only if it answers as the model does."""
    divert_noise()
    from tl_toolkit.api.run import load_run

    opened = load_run(run)
    paths = opened.export(formats)
    for path in paths.values():
        tell(f"exported: {path}")
    for proof in (EXPORT_FORMATS[name].proof for name in paths):
        if proof:
            report = opened.folder.read_json(opened.folder.export / proof)
            tell(
                f"largest difference: {report['pixels']['largest_difference']:.1e} from "
                f"pixels, {report['bytes']['largest_difference']:.1e} from bytes"
            )
    if as_json:
        show_json({name: str(path) for name, path in paths.items()})
