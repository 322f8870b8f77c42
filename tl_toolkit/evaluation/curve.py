"""Scores by the number of training images: with transfer, by a linear probe, and from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure

from tl_toolkit.evaluation.splits import evaluate_trained
from tl_toolkit.events import Event, Handler
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.images.pipeline import Images
from tl_toolkit.images.splits import keep_fraction
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.training import (
    PhaseSettings,
    TrainingSettings,
    feature_values,
    training_settings,
)
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.tasks.resampling import find_intervals
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.loop import Trainer
from tl_toolkit.training.prepare import assemble_model, build_trainer, load_images
from tl_toolkit.transfer.precision import set_precision
from tl_toolkit.tuning.report import finish_axis, save_figure

__all__ = ["CurvePoint", "Subset", "lengthen", "measure_curve", "plot_curve", "sample_subsets"]

_COLORS = {"transfer": "#4c72b0", "probe": "#55a868", "scratch": "#c44e52"}


@dataclass(frozen=True)
class CurvePoint:
    """A method that learned from some of the training images.

    Attributes:
        fraction: The share of the training images.
        images: Their number.
        method: transfer, probe or scratch.
        score: What it reached on the images that the curve is measured on.
        interval: Its 95 % interval; None where there is none.
        seconds: Seconds that it took.
    """

    fraction: float
    images: int
    method: str
    score: float
    interval: list[float] | None
    seconds: float

    def as_record(self) -> dict[str, Any]:
        """Returns plain values, which JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class Subset:
    """Some of the training images, and all images of the other splits.

    Attributes:
        fraction: The share of the training images.
        images: Images by split.
        places: Their places among all training images.
    """

    fraction: float
    images: Mapping[str, Images]
    places: np.ndarray


def sample_subsets(
    plan: Plan, task: Task, manifest: Manifest, fractions: Sequence[float]
) -> list[Subset]:
    """Returns nested subsets, stratified by class, the largest first; of equal ones the first.

    Args:
        plan: The plan; its seed and its classes decide the subsets.
        task: Loads the targets.
        manifest: All images.
        fractions: Shares of the training images, above 0 to 1.
    """
    listing = plan.listing
    stratify = listing.columns.index(listing.stratify) if listing.stratify else None
    everything = [example.path for example in manifest.of("train")]
    subsets: list[Subset] = []
    for fraction in sorted(set(fractions), reverse=True):
        kept = keep_fraction(manifest.examples, fraction, seed=plan.recipe.seed, stratify=stratify)
        part = replace(manifest, examples=tuple(kept))
        chosen = {example.path for example in part.of("train")}
        places = np.array([place for place, path in enumerate(everything) if path in chosen])
        if subsets and len(places) == len(subsets[-1].places):
            continue
        subsets.append(Subset(fraction, load_images(plan, task, part), places))
    return subsets


class Learner(Protocol):
    """A method of a curve."""

    def learn(self, subset: Subset) -> tuple[float, list[float] | None]:
        """Returns score and interval after learning from a subset.

        Args:
            subset: The images.
        """


def measure_curve(
    plan: Plan,
    scratch: Plan | None,
    task: Task,
    manifest: Manifest,
    fractions: Sequence[float],
    progress: Handler,
    *,
    known: Sequence[CurvePoint] = (),
) -> Iterator[CurvePoint]:
    """Trains each method on each subset, the largest first, whose features the others share.

    Args:
        plan: The plan.
        scratch: Plan of the same network from scratch; None leaves it out.
        task: The task of the plan.
        manifest: All images.
        fractions: As in `sample_subsets`.
        progress: Receives the events of the work, but for those of epochs.
        known: Points of an interrupted curve: a subset that every method has learned from is left
            out.

    Yields:
        The points of a subset after each other.
    """
    done = {(point.images, point.method) for point in known}
    subsets = sample_subsets(plan, task, manifest, fractions)
    transfer = _Training(plan, task, progress)
    learners: dict[str, Learner] = {"transfer": transfer}
    if task.has_yardsticks:
        learners["probe"] = _Probe(transfer)
    if scratch is not None:
        learners["scratch"] = _Training(scratch, build_task(scratch.recipe, plan.classes), progress)
    for subset in subsets:
        if all((len(subset.places), method) in done for method in learners):
            continue
        for method, learner in learners.items():
            began = perf_counter()
            score, interval = learner.learn(subset)
            seconds = round(perf_counter() - began, 3)
            count = len(subset.places)
            yield CurvePoint(subset.fraction, count, method, score, interval, seconds)


class _Training:
    """A recipe as a method: one model, which starts anew from the same weights on each subset."""

    def __init__(self, plan: Plan, task: Task, progress: Handler) -> None:
        self.task = task
        self._progress = _leave_epochs_out(progress)
        self._plan = plan
        transfer = assemble_model(plan, task, progress)
        self._compiled = CompiledPhases(transfer, plan.recipe.precision)
        self._initial = [
            (variable, variable.numpy()) for _, _, variable in self._compiled.transfer.variables()
        ]
        self.trainer: Trainer | None = None

    def learn(self, subset: Subset) -> tuple[float, list[float] | None]:
        """Trains all phases on a subset, and measures the kept model."""
        for variable, value in self._initial:
            variable.assign(value)
        # What was measured of the subset before was measured in float32.
        set_precision(self._compiled.transfer, self._compiled.precision)
        features = FeatureSettings.from_values(feature_values(self._plan.recipe))
        self.trainer = build_trainer(
            self._compiled, features, subset.images, progress=self._progress
        )
        self.trainer.train(lengthen(training_settings(self._plan), subset.fraction))
        measured = evaluate_trained(self.trainer, self.task, subset.images).metrics
        metrics = measured.get("test") or measured["validation"]
        name = self.task.final_score or self.task.score
        return metrics[name], metrics.get("intervals", {}).get(name)


class _Probe:
    """A linear probe as a method, on vectors that a training leaves behind."""

    def __init__(self, training: _Training) -> None:
        self._training = training
        self._vectors: dict[str, np.ndarray] = {}

    def learn(self, subset: Subset) -> tuple[float, list[float] | None]:
        """Solves a probe on the vectors of a subset; those of the first one are all."""
        trainer, task = self._training.trainer, self._training.task
        if not self._vectors and trainer is not None:
            count = sum(map(len, subset.images.values()))
            self._vectors = trainer.read_untrained(most_images=count) or {}
            self._known = subset.places
        split = "test" if "test" in subset.images else "validation"
        train = self._vectors["train"][np.isin(self._known, subset.places)]
        predict = task.fit_yardsticks(train, subset.images["train"].targets)["probe"]
        targets = subset.images[split].targets
        metrics, sample = task.measure(predict(self._vectors[split]), targets)
        name = task.final_score or task.score
        intervals = find_intervals(sample) | metrics.get("intervals", {})
        return metrics[name], intervals.get(name)


def lengthen(settings: TrainingSettings, fraction: float) -> TrainingSettings:
    """Returns settings with as many steps on a fraction of the images as on all of them.

    Whatever counts in epochs counts more of them: phases and their stages, schedules, patience.

    Args:
        settings: For all images.
        fraction: The share of the images, above 0 to 1.
    """
    phases = [
        phase if phase.solver else _lengthen_phase(phase, fraction) for phase in settings.phases
    ]
    stopping = settings.stopping
    if stopping is not None:
        stopping = replace(stopping, patience=round(stopping.patience / fraction))
    return replace(settings, phases=tuple(phases), stopping=stopping)


def _lengthen_phase(phase: PhaseSettings, fraction: float) -> PhaseSettings:
    """Returns a phase, or a stage of one, that begins and ends where as many steps are taken."""
    first = round(phase.first_epoch / fraction)
    last = round((phase.first_epoch + phase.epochs) / fraction)
    whole, rate = phase.schedule_epochs, phase.learning_rate
    return replace(
        phase,
        first_epoch=first,
        epochs=last - first,
        schedule_epochs=None if whole is None else round(whole / fraction),
        learning_rate=rate if isinstance(rate, float | str) else rate.lengthen(1 / fraction),
    )


def _leave_epochs_out(progress: Handler) -> Handler:
    left_out = {"planned", "phase_began", "step_ended", "epoch_ended", "message"}

    def report(event: Event) -> None:
        if event.kind not in left_out:
            progress(event)

    return report


def plot_curve(path: Path, points: Sequence[CurvePoint], score: str) -> None:
    """Plots the score of each method by the number of training images.

    Args:
        path: The SVG file.
        points: The points.
        score: Title of the score.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for method, color in _COLORS.items():
        line = sorted(
            (point for point in points if point.method == method), key=lambda point: point.images
        )
        if not line:
            continue
        images = [point.images for point in line]
        axis.plot(images, [point.score for point in line], "o-", color=color, label=method)
        bounds = [point.interval or [point.score] * 2 for point in line]
        low, high = zip(*bounds, strict=True)
        axis.fill_between(images, low, high, color=color, alpha=0.15, linewidth=0)
    numbers = sorted({point.images for point in points})
    axis.set_xscale("log")
    axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axis.minorticks_off()
    axis.set_xlabel("training images")
    axis.legend(frameon=False)
    finish_axis(axis, score)
    save_figure(figure, path)
