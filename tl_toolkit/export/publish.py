"""Publishes the formats of a run; a SavedModel is checked before anyone can see it."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import keras

from tl_toolkit.export.parity import ask, check_report
from tl_toolkit.export.saved_model import write_saved_model
from tl_toolkit.runs.files import drafted, write_json
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task
from tl_toolkit.transfer.heads import is_head
from tl_toolkit.transfer.weights import save_weights


def publish(
    model: keras.Model,
    folder: RunFolder,
    task: Task,
    *,
    resize: Literal["stretch", "crop"],
    files: Mapping[str, bytes],
    formats: Sequence[str],
) -> dict[str, Path]:
    """Writes each format under the run's export folder.

    Args:
        model: The kept model.
        folder: The run.
        task: What the model has learned.
        resize: How images come to the model's size.
        files: Encoded validation images by name, which a SavedModel is compared on.
        formats: `saved_model`, `weights`.

    Returns:
        The path of each format.

    Raises:
        ParityError: The SavedModel differs from the model; the published one, if any, is untouched.
    """
    paths = {}
    for name in formats:
        if name == "saved_model":
            paths[name] = _publish_saved_model(model, folder, task, resize, files)
        elif name == "weights":
            paths[name] = folder.export / "base.weights.h5"
            with drafted(paths[name]) as draft:
                save_weights([layer for layer in model.layers if not is_head(layer)], draft)
        else:
            raise ValueError(f"formats: expected saved_model or weights, got {name!r}")
    return paths


def _publish_saved_model(
    model: keras.Model,
    folder: RunFolder,
    task: Task,
    resize: Literal["stretch", "crop"],
    files: Mapping[str, bytes],
) -> Path:
    path = folder.export / "saved_model" / "1"
    report_path = folder.export / "parity.json"
    # Not beside its place: servers watch that folder for new versions.
    draft = folder.export / f".saved_model.{os.getpid()}"
    try:
        folder.export.mkdir(exist_ok=True)
        write_saved_model(model, draft, task, resize=resize)
        report = task.compare_served(model, files, resize, functools.partial(ask, draft))
        if not report["holds"]:  # parity.json stays the proof of what is published
            report_path = report_path.with_name("parity.failed.json")
        write_json(report_path, report)
        check_report(report, where=str(report_path))
        with drafted(path) as place:
            os.rename(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return path
