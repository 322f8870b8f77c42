"""Publishes a run's model in the requested formats, each after its proof."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tl_toolkit.events import Handler, ignore, message
from tl_toolkit.export.formats import FinishedModel, Format, find_format
from tl_toolkit.export.graph_parity import compare_graph
from tl_toolkit.export.parity import check_report
from tl_toolkit.export.quick import describe_origin
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS, ExportFormat, split_formats
from tl_toolkit.runs.files import (
    drafted,
    name_draft,
    remove_drafts,
    reporting_unwritable,
    write_json,
)
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.locks import hold
from tl_toolkit.tasks.types import Ask

__all__ = ["publish"]


def publish(
    finished: FinishedModel,
    folder: RunFolder,
    *,
    files: Mapping[str, bytes],
    formats: Sequence[str],
    report: Handler = ignore,
) -> dict[str, Path]:
    """Writes each format under the run's export folder.

    Args:
        finished: The kept model.
        folder: The run.
        files: Encoded validation images by name, on which an exported model is compared.
        formats: Words of the table of formats.
        report: Receives a line when each of several formats begins.

    Returns:
        The path of each format.

    Raises:
        ParityError: An exported model differs from the model; earlier exports stay.
        RecipeError: A format is unknown, or another process exports this run.
        OutputError: The export folder cannot be written, or the disk is full.
    """
    with reporting_unwritable(folder.export):
        folder.export.mkdir(exist_ok=True)
    with hold(folder.export):
        remove_drafts(folder.export)
        names, paths = split_formats(formats), {}
        for number, name in enumerate(names, start=1):
            if len(names) > 1:
                report(message(f"exporting {name}, {number} of {len(names)}"))
            line = EXPORT_FORMATS[name]
            paths[name] = _publish(finished, folder, line, find_format(name), files)
        return paths


def _publish(
    finished: FinishedModel,
    run: RunFolder,
    line: ExportFormat,
    form: Format,
    files: Mapping[str, bytes],
) -> Path:
    folder = run.export
    path, proof = folder / line.path, folder / line.proof if line.proof else None
    with _open_scratch(folder, path) as scratch:
        draft = scratch / path.name
        with form.asking(draft) if form.asking else contextlib.nullcontext() as ask:
            with reporting_unwritable(path):
                form.write(finished, draft)
            origin = describe_origin(run, draft)
            report = {**_compare(finished, draft, form, files, ask), **origin}
        second = form.beside and form.beside(finished, scratch, form.limits.pixels)
        if second is not None:
            report |= {"lines": second, "holds": report["holds"] and second["holds"]}
        if proof is not None:
            _refuse_unequal(report, proof)
            # At no time does a proof lie beside another model than the one that it is of.
            with reporting_unwritable(proof):
                proof.unlink(missing_ok=True)
        for file in [path] if second is None else [folder / second["file"], path]:
            with drafted(file) as place:
                os.rename(scratch / file.name, place)
    if proof is not None:
        write_json(proof, report)
    if form.document is not None:
        form.document(finished, folder)
    return path


@contextlib.contextmanager
def _open_scratch(folder: Path, path: Path) -> Iterator[Path]:
    """Gives a folder to write a model to; not beside its place, which servers watch."""
    scratch = name_draft(Path(path.stem), folder)
    with reporting_unwritable(folder):
        scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compare(
    finished: FinishedModel,
    draft: Path,
    form: Format,
    files: Mapping[str, bytes],
    ask: Ask | None,
) -> Mapping[str, Any]:
    """Returns the report on what was written; empty where nothing can be asked."""
    if ask is None and form.runtime:
        return compare_graph(finished, form, draft)
    if ask is None:
        return {}
    return finished.task.compare_served(
        finished.model, files, finished.resize, ask=ask, limits=form.limits
    )


def _refuse_unequal(report: Mapping[str, Any], proof: Path) -> None:
    """Keeps a failed report beside the proof of what is published, and raises its error."""
    failed = proof.with_name(f"{proof.stem}.failed{proof.suffix}")
    if not report["holds"]:
        write_json(failed, report)
    check_report(report, where=str(failed))
    with reporting_unwritable(failed):
        failed.unlink(missing_ok=True)
