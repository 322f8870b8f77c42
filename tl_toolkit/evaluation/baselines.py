"""The same recipe with a few fields replaced, on the same images and measured the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tl_toolkit.errors import ToolkitError
from tl_toolkit.evaluation.folds import cross_validate, join_measured
from tl_toolkit.evaluation.splits import Measured, compare_runs, evaluate_trained
from tl_toolkit.events import Event, Handler, message
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.check import plan_baseline
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import TrainingSettings, feature_values, training_settings
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.devices import Devices
from tl_toolkit.training.lock import identify_training
from tl_toolkit.training.loop import Paused, plan_phases
from tl_toolkit.training.prepare import assemble_model, build_trainer
from tl_toolkit.training.resume import Checkpoints, StateSettings, find_paused


def train_baseline(
    plan: Plan,
    images: Mapping[str, Images],
    folder: RunFolder,
    *,
    run: Measured,
    progress: Handler,
    devices: Devices | None = None,
) -> dict[str, Any]:
    """Trains `recipe.baseline` beside the run.

    Args:
        plan: Plan of a recipe with a `baseline`; its images are used as they are.
        images: The run's own images, by split.
        folder: The run; the baseline's histories go under baseline/, and so do its states, from
            which it goes on where it was stopped.
        run: What was measured of the run itself; receives how it compares with the baseline.
        progress: Receives its events, named as the baseline's.
        devices: Where the gradients of steps are computed; None for one device.

    Returns:
        The replaced fields, the kept epoch, and metrics by split.
    """
    baseline = plan_baseline(plan)
    if baseline is None:
        raise ValueError("recipe.baseline: expected changes, got none")

    def report(event: Event) -> None:
        progress(_label(event))

    task = build_task(baseline.recipe, baseline.classes)
    transfer = assemble_model(baseline, task, report)
    place = RunFolder(folder.baseline)
    settings = training_settings(baseline)
    report(Event("planned", facts={"phases": plan_phases(transfer, settings.phases)}))
    features = FeatureSettings.from_values(feature_values(baseline.recipe))
    trainer = build_trainer(
        CompiledPhases(transfer, baseline.recipe.precision, devices=devices),
        features,
        images,
        progress=report,
    )
    kept = None
    if every := plan.recipe.checkpoint and plan.recipe.checkpoint.every:
        kept = StateSettings(every, settings.batch_size, identify_training(baseline, transfer))
    folds, judged = None, None
    try:
        if baseline.recipe.data.folds is not None:
            folds = cross_validate(baseline, trainer, task, images["train"], settings, place, kept)
            judged = folds.trainings.judge(settings)
        checkpoints = kept.open(place) if kept else None
        training = trainer.train(
            settings, place, judged=judged, checkpoints=checkpoints,
            paused=_read_state(checkpoints, settings, report),
        )  # fmt: skip
    except ToolkitError as error:
        raise _relabel(error) from error
    measured = evaluate_trained(trainer, task, images)
    if folds:
        measured = join_measured(folds, measured)
    chosen = plan.recipe.baseline
    name = chosen if isinstance(chosen, str) else "baseline"
    compare_runs(run, measured, name, task.final_score or task.score)
    plain = plan.recipe.model_dump(mode="json", include={"baseline"})["baseline"]
    changes = {"word" if isinstance(chosen, str) else "changes": plain}
    return {**changes, "best": training.best.as_row(), **measured.metrics}


def _read_state(
    checkpoints: Checkpoints | None, settings: TrainingSettings, report: Handler
) -> Paused | None:
    """Returns the state that the baseline goes on from, and says what it is."""
    if checkpoints is None:
        return None
    paused, texts = find_paused(checkpoints, settings.phases)
    for text in texts:
        report(message(text))
    return paused


def _label(event: Event) -> Event:
    """Returns the same event under the baseline's names."""
    facts = dict(event.facts)
    if "phase" in facts:
        facts["phase"] = f"baseline {facts['phase']}"
    if "phases" in facts:
        facts["phases"] = [
            {**phase, "name": f"baseline {phase['name']}"} for phase in facts["phases"]
        ]
    text = event.text and f"baseline: {event.text}"
    return replace(event, text=text, facts=facts)


def _relabel(error: ToolkitError) -> ToolkitError:
    """Returns the same error, named as the baseline's, with its fields in the hint."""
    return type(error)(
        [
            replace(
                problem,
                where=f"baseline, {problem.where}",
                hint=problem.hint.replace("phases.", "baseline.phases."),
            )
            for problem in error.problems
        ]
    )
