"""Publishes a run's model in the requested formats, each after its proof."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_toolkit.export.formats import FinishedModel, Format, find_format
from tl_toolkit.export.parity import check_report
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS, ExportFormat, split_formats
from tl_toolkit.runs.files import drafted, write_json
from tl_toolkit.runs.folder import RunFolder

__all__ = ["publish"]


def publish(
    finished: FinishedModel,
    folder: RunFolder,
    *,
    files: Mapping[str, bytes],
    formats: Sequence[str],
) -> dict[str, Path]:
    """Writes each format under the run's export folder.

    Args:
        finished: The kept model.
        folder: The run.
        files: Encoded validation images by name, on which an exported model is compared.
        formats: Words of the table of formats.

    Returns:
        The path of each format.

    Raises:
        ParityError: An exported model differs from the model; earlier exports stay.
        RecipeError: A format is unknown.
    """
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
            report = finished.task.compare_served(
                finished.model, files, finished.resize,
                ask=functools.partial(form.ask, draft), limits=form.limits,
            )  # fmt: skip
            _prove(report, folder / line.proof)
        with drafted(path) as place:
            os.rename(draft, place)
    return path


def _prove(report: Mapping[str, Any], path: Path) -> None:
    """Writes the report; a failed report lies beside the proof of what is published."""
    failed = path.with_name(f"{path.stem}.failed{path.suffix}")
    write_json(path if report["holds"] else failed, report)
    check_report(report, where=str(failed))
    failed.unlink(missing_ok=True)
