"""Publishes a run's model in the formats that are asked for, each after its proof."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras

from tl_toolkit.export.formats import Ask, FinishedModel, Format, Limits, find_format
from tl_toolkit.export.parity import check_report, compare
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS, ExportFormat, split_formats
from tl_toolkit.runs.files import drafted, write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task, answers_pixels
from tl_toolkit.tasks.dense.parity import compare_pixels

__all__ = ["publish"]


def publish(
    model: keras.Model,
    folder: RunFolder,
    *,
    classes: Sequence[str],
    resize: Literal["stretch", "crop"],
    task: Task,
    files: Mapping[str, bytes],
    formats: Sequence[str],
) -> dict[str, Path]:
    """Writes each format under the run's export folder.

    Args:
        model: The kept model.
        folder: The run.
        classes: Class names in the order of the model's outputs.
        resize: How images come to the model's size, as in the recipe.
        task: What the model was trained for.
        files: Encoded validation images by name, on which an exported model is compared.
        formats: Words of the table of formats.

    Returns:
        The path of each format.

    Raises:
        ParityError: An exported model differs from the model; what was published before stays.
        RecipeError: A format is unknown.
    """
    finished = FinishedModel(model, task, classes, resize)
    return {
        name: _publish(finished, folder.export, EXPORT_FORMATS[name], find_format(name), files)
        for name in split_formats(formats)
    }


def _publish(
    finished: FinishedModel,
    folder: Path,
    line: ExportFormat,
    form: Format,
    files: Mapping[str, bytes],
) -> Path:
    path = folder / line.path
    folder.mkdir(exist_ok=True)
    # Not beside its place: servers watch that folder for new versions.
    with tempfile.TemporaryDirectory(prefix=f".{line.name}.", dir=folder) as scratch:
        draft = Path(scratch, path.name)
        form.write(finished, draft)
        if form.ask is not None:
            report = _compare(finished, draft, files, form.ask, form.limits)
            _prove(report, folder / line.proof)
        with drafted(path) as place:
            os.rename(draft, place)
    return path


def _compare(
    finished: FinishedModel, draft: Path, files: Mapping[str, bytes], ask: Ask, limits: Limits
) -> dict[str, Any]:
    model, classes, resize = finished.model, finished.classes, finished.resize
    if answers_pixels(finished.task):
        return compare_pixels(
            model, draft, files, task=finished.task, classes=classes, resize=resize
        )  # fmt: skip
    return compare(
        model, draft, files,
        classes=classes, resize=resize, ask_exported=ask, limits=limits,
    )  # fmt: skip


def _prove(report: Mapping[str, Any], path: Path) -> None:
    """Writes the report; a failed report lies beside the proof of what is published."""
    failed = path.with_name(f"{path.stem}.failed{path.suffix}")
    write_json(path if report["holds"] else failed, report)
    check_report(report, where=str(failed))
    failed.unlink(missing_ok=True)
