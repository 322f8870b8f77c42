"""`tltool evaluate`, `predict` and `export`: the verbs of a finished run."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from tl_toolkit.api.engines import ENGINES, Engine
from tl_toolkit.cli.arguments import takes_ray, takes_workers
from tl_toolkit.cli.command import current
from tl_toolkit.cli.console import (
    is_stdout,
    print_message,
    show_json,
    show_metrics,
    warn,
    write_result,
)
from tl_toolkit.errors import DataError, Problem
from tl_toolkit.plan.tta import TTA_VIEWS
from tl_toolkit.printing.tables import build_table, open_console
from tl_toolkit.recipe.export_formats import (
    EXPORT_FORMATS,
    MIN_TENSORFLOWS,
    describe_formats,
    split_formats,
)
from tl_toolkit.runs.files import check_place, write_rows

if TYPE_CHECKING:
    from tl_toolkit.api.run import Run
    from tl_toolkit.recipe.tasks import TaskSection
    from tl_toolkit.tasks.predictions import Prediction


_FORMS = {".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl"}

_any_option = click.option(
    "--any", "unfinished", is_flag=True,
    help="Let latest mean the newest run that holds a model, an interrupted one too.",
)  # fmt: skip


_tta_option = click.option(
    "--tta", is_flag=True,
    help="Average the outputs over each image and its mirror images: those that the recipe trains "
    "with, else the horizontal one.",
)  # fmt: skip
_tta_views_option = click.option(
    "--tta-views", metavar="VIEWS",
    help=f"Average over these views: {', '.join(TTA_VIEWS)}, with commas between.",
)  # fmt: skip


@click.command("evaluate")
@click.argument("run")
@_any_option
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A folder or a table like the recipe's.  [the run's own images]",
)
@_tta_option
@_tta_views_option
@click.option("--fail-under", multiple=True, metavar="METRIC=VALUE", help="Exit 4 when worse.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics as JSON on stdout.")
def evaluate_command(
    run: str,
    unfinished: bool,
    data: Path | None,
    tta: bool,
    tta_views: str | None,
    fail_under: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure the model of RUN on its test images, or on those of another folder or table.

    RUN is a folder, or NAME/NNN, NAME/latest, NAME or latest under runs/. A run without test images
    is measured on its validation images. METRIC is a metric of the run's task, as accuracy,
    macro_f1 or mean_iou (at least VALUE), loss or an angle (at most); mAP and IoU are known too.
    """
    thresholds = dict(map(_read_threshold, fail_under))
    from tl_toolkit.api.run import load_run
    from tl_toolkit.evaluation.metrics import check_limits, check_names, check_thresholds

    opened = load_run(run, unfinished=unfinished)
    current.use_run(opened.folder)
    task = opened.recipe.task
    aliases = task.list_aliases()
    if thresholds and opened.folder.metrics.is_file():  # an interrupted run has none
        check_names(thresholds, opened.metrics, ungraded=task.ungraded, aliases=aliases)
    check_limits(thresholds, lower_is_better=task.lower_is_better, aliases=aliases)
    metrics = opened.evaluate(data, tta=tta_views or tta, progress=current.print_events())
    if absent := task.describe_absent(metrics):
        warn(absent)
    if as_json:
        show_json(metrics)
    else:
        show_metrics(metrics["split"], metrics, task)
    check_thresholds(
        metrics,
        thresholds,
        lower_is_better=task.lower_is_better,
        ungraded=task.ungraded,
        aliases=aliases,
    )


def _read_threshold(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        if math.isfinite(float(value)):
            return name, float(value)
        raise ValueError
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected METRIC=VALUE, as accuracy=0.9") from None


def _require_paths(
    context: click.Context, parameter: click.Parameter, paths: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuses to predict nothing: PATHS are needed without --list, which is read before."""
    if not paths and context.params.get("listed") is None:
        raise click.MissingParameter(ctx=context, param=parameter)
    return paths


@click.command("predict")
@click.argument("run")
@_any_option
@click.argument("paths", nargs=-1, type=click.Path(), callback=_require_paths)
@click.option(
    "--out", type=click.Path(path_type=Path),
    help="Folder for masks and overlays, for dense tasks (an output per pixel), and for the "
    "predictions of --list.  [predictions]",
)  # fmt: skip
@click.option(
    "--list", "listed", type=click.Path(path_type=Path), metavar="FILE", is_eager=True,
    help="Predict the files of a list, a path on each line or the column `path` of a .parquet, "
    "and write Parquet files to --out; the same command goes on after a kill.",
)  # fmt: skip
@click.option(
    "--part", type=click.IntRange(min=1), default=4096, show_default=True,
    help="With --list: rows of a file.",
)  # fmt: skip
@takes_ray
@takes_workers
@click.option(
    "--native",
    is_flag=True,
    help="For dense tasks: predict images at their own size, large ones in windows.",
)
@_tta_option
@_tta_views_option
@click.option(
    "--engine", type=click.Choice(ENGINES), default="auto", show_default=True,
    help="What predicts: keras, or litert, the run's LiteRT export, which starts no TensorFlow; "
    "auto for litert where it lies in the run and can, for 32 images at most.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "jsonl"]),
    help="Form of the result.  [by the ending of -o, else table]",
)  # fmt: skip
@click.option("--top", type=click.IntRange(min=1), help="Show the K best classes.", metavar="K")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the result to FILE, which is replaced if it exists; - is stdout.  [stdout]",
)  # fmt: skip
def predict_command(
    run: str,
    unfinished: bool,
    paths: tuple[str, ...],
    out: Path | None,
    native: bool,
    tta: bool,
    tta_views: str | None,
    engine: Engine,
    form: str | None,
    top: int | None,
    output: Path | None,
    listed: Path | None,
    part: int,
    ray: str | None,
    workers: int | None,
) -> None:
    """Predict image files, and folders of images, with the model of RUN.

    PATHS may be -, a list of files on stdin, one a line or as find -print0 writes them. A file that
    is missing or cannot be decoded is named and the exit code is 3; all others are predicted.
    A Parquet or TFRecord file stands for the images in it, and shop.parquet#12 for one of them.
    For dense tasks (an output per pixel) a mask and an overlay are written as PNG for each file.
    """
    if listed is not None:
        has_engine = engine != "auto"
        if any((unfinished, paths, native, tta, tta_views, has_engine, form, top, output)):
            raise click.UsageError("--list goes with --out, --part, --ray and --workers alone")
        _predict_list(run, listed, out or Path("predictions"), part, ray, workers)
        return
    if ray is not None or workers is not None:
        raise click.UsageError("--ray and --workers go with --list")
    from tl_toolkit.api.run import load_run

    opened = load_run(run, unfinished=unfinished)
    current.use_run(opened.folder)
    if out is None and opened.recipe.task.is_dense:
        out = Path("predictions")
    if top is not None:
        opened.check_top()
    if output is not None and is_stdout(output):
        output = None
    if output is not None:
        check_place(output)
    form = form or _FORMS.get(output.suffix.lower() if output else "", "table")
    files = [file for path in paths for file in (_read_list() if path == "-" else [path])]
    predictions = opened.predict(
        files, out=out, native=native, tta=tta_views or tta, engine=engine,
        progress=current.print_events(),
    )  # fmt: skip
    records = [prediction.as_record() for prediction in predictions]
    if output is None:
        _print_predictions(opened, predictions, form, top, sys.stdout)
    else:
        text = io.StringIO()
        _print_predictions(opened, predictions, form, top, text)
        write_result(output, text.getvalue())
        print_message(f"written: {output}")
    refused = [record for record in records if record["error"]]
    for record in refused:
        path, error = record["path"], record["error"]
        warn(error if error.startswith(repr(path)) else f"{path}: {error}")
    if refused:
        raise DataError(f"{len(refused)} of {len(predictions)} files could not be read")


def _predict_list(
    run: str, listed: Path, out: Path, part: int, ray: str | None, workers: int | None
) -> None:
    """Predicts a list, and says what is written."""
    from tl_toolkit.api.predict_list import predict_list

    done = predict_list(
        run, listed, out=out, part=part, ray=ray, workers=workers, progress=current.print_events()
    )
    there = f", {done.rows - done.computed:,} of them before" if done.computed < done.rows else ""
    print_message(f"{done.rows:,} rows are in {done.folder}{there}")
    if done.errors:
        raise DataError(f"{done.errors:,} of {done.rows:,} files could not be read: column error")


def _read_list() -> list[str]:
    """Returns the files that stdin names, one a line, or with NULs between them."""
    data = sys.stdin.buffer.read()
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    files = [os.fsdecode(name) for name in names if name.strip()]
    if not files:
        raise DataError(Problem("-", "stdin names no file", "A file is expected on each line."))
    return files


def _print_predictions(
    run: Run, predictions: Sequence[Prediction], form: str, top: int | None, file: TextIO
) -> None:
    """Prints predictions in one of the forms."""
    if form == "csv":
        _print_csv(run, predictions, top, file)
    elif form == "jsonl":
        for prediction in predictions:
            record = prediction.as_record()
            if top is not None:
                best = sorted(record["probabilities"].items(), key=lambda item: -item[1])[:top]
                record["top"] = [{"label": name, "probability": value} for name, value in best]
            print(json.dumps(record, ensure_ascii=False), file=file)
    else:
        table = run.tabulate([item for item in predictions if item.error is None], top=top)
        columns = table.columns
        if top is not None:  # a figure beside its class needs no title, and the line is short
            columns = ["" if name.startswith("probability ") else name for name in columns]
        open_console(file).print(build_table(columns, table.rows))


def _print_csv(
    run: Run,
    predictions: Sequence[Prediction],
    top: int | None = None,
    file: TextIO | None = None,
) -> None:
    """Prints a row for each file; of a refused one its path and error."""
    good = [item for item in predictions if item.error is None]
    table = run.tabulate(good, wide=True, top=top)
    rows = iter(table.rows)
    lines: list[list[object]] = [[*table.columns, "error"]]
    for item in predictions:
        blank = [item.path, *[None] * (len(table.columns) - 1)]
        lines.append([*(next(rows) if item.error is None else blank), item.error])
    write_rows(file or sys.stdout, lines)


@click.command("export")
@click.argument("run")
@_any_option
@click.option(
    "--to", "--format", "formats", multiple=True, default=("saved_model",), show_default=True,
    callback=lambda _, __, values: split_formats(values),
    help=f"{describe_formats()}. May be repeated, or name several with commas between.",
)  # fmt: skip
@click.option(
    "--min-tensorflow", type=click.Choice(MIN_TENSORFLOWS),
    help="The oldest TensorFlow that loads the SavedModel; one for 2.20 reads WebP. By default "
    "what the recipe says, else 2.15.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON on stdout.")
def export_command(
    run: str,
    unfinished: bool,
    formats: tuple[str, ...],
    min_tensorflow: str | None,
    as_json: bool,
) -> None:
    """Export the model of RUN; a format is published only if its outputs equal the model's.

    They are compared on validation images of RUN, in the format's own runtime and a fresh process;
    where these have moved, on images that are rendered in code.
    """
    from tl_toolkit.api.run import load_run

    opened = load_run(run, unfinished=unfinished)
    current.use_run(opened.folder)
    paths = opened.export(formats, min_tensorflow=min_tensorflow, progress=current.print_events())
    for path in paths.values():
        print_message(f"exported: {path}")
    proofs = {name: EXPORT_FORMATS[name].proof for name in paths if EXPORT_FORMATS[name].proof}
    for name, proof in proofs.items():
        report = opened.folder.read_json(opened.folder.export / proof)
        print_message(_describe_proof(name, report, opened.recipe.task))
    if as_json:
        show_json({name: str(path) for name, path in paths.items()})


def _describe_proof(name: str, report: Mapping[str, Any], task: TaskSection) -> str:
    """Returns what a comparison found, in a line."""
    further = [_describe_further(*item) for item in report["further_outputs"].items()]
    if "outputs" not in report:
        words = [
            f"largest difference {report['pixels']['largest_difference']:.1e} from pixels",
            f"{report['bytes']['largest_difference']:.1e} from bytes",
        ]
        return f"{name}: {', '.join([*words, *further])}"
    words = [f"largest difference {report['outputs']['largest_difference']:.1e}"]
    if report["agreement"]["share"] is not None:
        words.append(f"{report['agreement']['share']:.1%} of answers equal")
    words += further
    if score := report["score"]:
        title = task.title_of(score["name"])
        words.append(f"{title} {score['exported']:.4f} (Keras {score['keras']:.4f})")
    times = report["latency"]
    if times:
        words.append(
            f"{times['p50_ms']:.1f} ms an image (95 % within {times['p95_ms']:.1f}; "
            f"{times['threads']} threads)"
        )
    words.append(f"{report['bytes'] / 1e6:.1f} MB")
    return f"{name}: {', '.join(words)}; {report['runtime']}, {report['images']} images"


def _describe_further(name: str, found: Mapping[str, Any]) -> str:
    """Returns how an output beside the main one compares."""
    if "equal" in found:
        return f"{name} {found['equal']:.1%} equal"
    return f"{name} within {found['largest_difference']:.1e}"
