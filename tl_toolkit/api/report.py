"""`report`: a run, a search, a learning curve or `auto`, as one page of HTML."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_toolkit.api.inputs import Inputs
from tl_toolkit.api.listing import read_json
from tl_toolkit.api.progress import handling
from tl_toolkit.api.run import Run
from tl_toolkit.api.subjects import has_pair
from tl_toolkit.errors import DataError
from tl_toolkit.events import Handler, ignore, warning
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.printing.tables import list_summary
from tl_toolkit.printing.words import describe_folds
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS
from tl_toolkit.runs.folder import InFolder, RunFolder
from tl_toolkit.runs.places import find_run
from tl_toolkit.runs.states import name_run
from tl_toolkit.sources.objects import ObjectPath, is_address
from tl_toolkit.sources.stores import giving_up_on_silent

if TYPE_CHECKING:
    from tl_toolkit.reports.facts import RunFacts
    from tl_toolkit.reports.page import Report
    from tl_toolkit.reports.sections import Section
    from tl_toolkit.tasks.base import Task
    from tl_toolkit.tasks.types import Prediction

__all__ = ["build_report", "find_reported", "report"]


def report(
    run: str | Path | InFolder, *, root: str | Path = "runs", progress: Handler | bool = False
) -> Path:
    """Writes the report of a run, a search, or `auto`: report/index.html, its charts as SVG beside.

    The page is one file that needs no network. An earlier report is replaced.

    Args:
        run: As in `load_run`, or what it returns.
        root: Folder of all runs.
        progress: As in `finetune`.

    Returns:
        The page.

    Raises:
        DataError: There is no such run, it has not ended, or its files cannot be read.
        OutputError: The report cannot be written.
    """
    if isinstance(run, Run):
        opened = run
    elif isinstance(run, InFolder):
        opened = Run(RunFolder(run.path))
    else:
        opened = Run(find_reported(run, root=root))
    with handling(progress) as handle:
        from tl_toolkit.api.report_auto import build_auto_report
        from tl_toolkit.api.report_search import build_curve_report, build_search_report
        from tl_toolkit.reports.page import write_report

        builders = {
            "search": build_search_report,
            "sweep": build_search_report,
            "curve": build_curve_report,
            "auto": build_auto_report,
        }
        build = builders.get(opened.folder.kind, build_report)
        built = build(opened)
        if built.warning:
            handle(warning(built.warning))
        return write_report(opened.folder.report, built)


def find_reported(
    run: str | Path, *, root: str | Path = "runs", unfinished: bool = False
) -> RunFolder:
    """Finds the run of a report, or the one whose refusal says what is to be done before.

    Where `latest` means no finished run, `--any` may lead to one that has no metrics to report.

    Args:
        run: As in `load_run`.
        root: Folder of all runs.
        unfinished: As in `load_run`.

    Raises:
        DataError: There is no such run.
    """
    try:
        return find_run(run, root=Path(root), unfinished=unfinished)
    except DataError:
        with contextlib.suppress(DataError):
            newest = find_run(run, root=Path(root), unfinished=True)
            if not newest.metrics.is_file():
                return newest
        raise


def build_report(run: Run, *, predicts: bool = True) -> Report:
    """Returns the report of a run, from its files.

    Once an object store has not answered, no more pictures are asked for.

    Args:
        run: The run; the images of its galleries are read.
        predicts: Run the model for overlays, which takes seconds.

    Raises:
        DataError: Its files cannot be read.
    """
    from tl_toolkit.reports.background import describe_origin
    from tl_toolkit.reports.page import Report

    facts = _gather(run, predicts=predicts)
    verdict, sentences = _judge(run, facts)
    with giving_up_on_silent() as silent:
        sections = _build_sections(run, facts)
    return Report(
        f"{run.recipe.name} {run.path.name}",
        verdict,
        sentences,
        sections,
        describe_origin(run.path, run.folder.read_status().get("started")),
        _describe_silence(run, silent),
    )


def _describe_silence(run: Run, silent: Mapping[str, DataError]) -> str:
    """Returns which pictures are missing as a store did not answer, and what to type; or ""."""
    if not silent:
        return ""
    first = next(iter(silent.values())).problems[0]
    return (
        f"pictures of {', '.join(silent)} are missing in the report: {first.where} {first.what}. "
        f"Try: tltool report {name_run(run.path)}"
    )


def _judge(run: Run, facts: RunFacts) -> tuple[str, list[str]]:
    """Returns the verdict, and what qualifies it."""
    from tl_toolkit.reports.page import as_sentence

    section, measured = run.recipe.task, facts.measured
    if not measured:
        return "No images were left to measure the model on.", []
    name = section.final_score or section.score
    verdict = f"{section.title_of(name)} {measured[name]:.3f} on {facts.split} images"
    certainty = section.describe_certainty(measured)
    texts = [*section.describe_comparisons(measured), section.describe_absent(measured)]
    if "folds" in facts.metrics:
        texts.append("each of these images was predicted by a model trained without its fold")
        if facts.split == "validation":
            score = section.score
            texts.append(describe_folds(facts.metrics, score, section.title_of(score)))
    elif facts.split == "validation":
        texts.append("these images also chose the epoch, so that the score is a little too good")
    return (
        as_sentence("; ".join(filter(None, [verdict, certainty]))),
        [as_sentence(text) for text in texts if text],
    )


def _gather(run: Run, *, predicts: bool) -> RunFacts:
    from tl_toolkit.evaluation.pairing import read_columns
    from tl_toolkit.reports.facts import RunFacts

    folder = run.folder
    metrics = run.metrics  # first: without them, the run is to be resumed before all else
    manifest = Manifest.load(folder.manifest, classes=run.classes)
    predicts = predicts and folder.model.is_file()
    return RunFacts(
        classes=run.classes,
        manifest=manifest,
        metrics=metrics,
        predictions=read_columns(folder),
        state=read_json(folder.task_state),
        section=run.recipe.task,
        recipe=shlex.quote(str(folder.recipe)),
        predict=partial(_predict, run) if predicts else None,
        explain=partial(_explain, run, manifest) if predicts else None,
    )


def _predict(run: Run, paths: Sequence[str]) -> tuple[Task, list[Prediction]]:
    """Returns the task, and predictions of images of the run."""
    # `run.predict` would list each object first.
    inputs = Inputs([ObjectPath(path) if is_address(path) else Path(path) for path in paths])
    with run.numerics():
        from tl_toolkit.tasks.registry import build_task

        predictions = run.predict_inputs(inputs, None, (), native=False, report=ignore)
        return build_task(run.recipe, run.classes), predictions


def _explain(
    run: Run, manifest: Manifest, paths: Sequence[str], outputs: Sequence[int]
) -> list[str]:
    """Returns the heat map of each image, as a data URI; "" where there is none."""
    examples = {example.path: example for example in manifest.examples}
    is_pair = has_pair(run)
    pictures = [""] * len(paths)
    with run.numerics():
        import numpy as np

        from tl_toolkit.images.geometry import build_resize
        from tl_toolkit.images.pictures import as_photo
        from tl_toolkit.images.pipeline import decode_example, resize_pixels
        from tl_toolkit.inspect.drawing import lay_over
        from tl_toolkit.inspect.heatmaps import compute_heatmaps
        from tl_toolkit.printing.page import encode_picture
        from tl_toolkit.reports.facts import SIDE

        data, shown = run.recipe.data, {}
        resize = build_resize(data.resize, data.pad_color, data.channels)
        for place, path in enumerate(paths):
            with contextlib.suppress(DataError):  # it has moved: there is no picture of it
                image = decode_example(examples[path], data.channels).numpy()
                shown[place] = resize_pixels(image, data.image_size, resize)
        if shown:
            targets = [outputs[place] for place in shown]
            pixels = np.stack(list(shown.values()))
            heat = compute_heatmaps(run.model, pixels, targets=targets, is_pair=is_pair)
            for (place, image), heat_map in zip(shown.items(), heat, strict=True):
                picture = lay_over(as_photo(image).astype(np.uint8), heat_map)
                picture.thumbnail((SIDE, SIDE))
                pictures[place] = encode_picture(picture)
    return pictures


def _build_sections(run: Run, facts: RunFacts) -> list[Section]:
    from tl_toolkit.reports.background import (
        build_cost,
        build_data,
        build_freezing,
        build_recipe,
    )
    from tl_toolkit.reports.course import build_course
    from tl_toolkit.reports.exports import build_exports

    folder, task, metrics = run.folder, run.recipe.task, facts.metrics
    own = task.open("report")
    phases = {name: folder.phase(index, name) for index, name in enumerate(run.recipe.phase_names)}
    return [
        build_data(own.tabulate_data(facts), facts),
        build_course(
            run.history,
            best=metrics["best"],
            score=task.score,
            title=task.title_of(task.score),
            rates=_read_all(phases, "rates.json"),
        ),
        *own.build_sections(facts),
        _build_transfer(run, facts),
        build_freezing(_read_all(phases, "receipt.json")),
        build_cost(metrics.get("seconds", {}), metrics.get("cost", {})),
        build_exports(_read_proofs(folder), title_of=task.title_of),
        build_recipe(
            {path.name: path.read_text(encoding="utf-8", errors="replace")
             for path in (folder.recipe, folder.lock) if path.is_file()},
            read_json(folder.lock).get("numerics", {}),
        ),
    ]  # fmt: skip


def _build_transfer(run: Run, facts: RunFacts) -> Section:
    """Returns the scores of the run beside those of simpler predictors."""
    from tl_toolkit.reports.sections import DataTable, Section

    caption = "The run, and simpler predictors on the same images"
    table = DataTable(caption, *list_summary(facts.metrics, run.recipe.task))
    return Section("transfer", "Beside simpler methods", [table])


def _read_proofs(folder: RunFolder) -> dict[str, Any]:
    """Returns the proof of each format that was published."""
    paths = {name: folder.export / form.proof for name, form in EXPORT_FORMATS.items()
             if form.proof}  # fmt: skip
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def _read_all(folders: Mapping[str, Path], name: str) -> dict[str, Any]:
    """Returns a JSON file of each phase that has it."""
    return {phase: read_json(path / name) for phase, path in folders.items()
            if (path / name).is_file()}  # fmt: skip
