"""The same recipe with a few fields replaced, on the same images and measured the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tl_toolkit.errors import ToolkitError
from tl_toolkit.evaluation.splits import measure_trained
from tl_toolkit.events import Progress, Relay
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.load import build_baseline
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.loop import plan_phases
from tl_toolkit.training.prepare import assemble_model, build_trainer


def train_baseline(
    recipe: Recipe,
    images: Mapping[str, Images],
    classes: tuple[str, ...],
    folder: RunFolder,
    *,
    progress: Progress,
) -> dict[str, Any]:
    """Trains `recipe.baseline` beside the run.

    Args:
        recipe: A recipe with a `baseline`; its data are used as they are.
        images: The run's own images, by split.
        classes: Class names in order.
        folder: The run; the baseline's histories go under baseline/.
        progress: Is told of its epochs.

    Returns:
        The replaced fields, the kept epoch, and metrics by split.
    """
    other = build_baseline(recipe)
    if other is None:
        raise ValueError("recipe.baseline: expected changes, got none")
    labelled = _Labelled(progress)
    transfer = assemble_model(other, classes, labelled)
    place = RunFolder(folder.path / "baseline")
    settings = training_settings(other)
    labelled.planned(plan_phases(transfer, settings.phases))
    trainer = build_trainer(CompiledPhases(transfer), other, images, progress=labelled)
    try:
        training = trainer.train(settings, place)
    except ToolkitError as error:
        raise _relabel(error) from error
    return {
        "changes": dict(recipe.baseline or {}),
        "best": training.best.as_row(),
        **measure_trained(trainer, transfer.task, images, classes)[0],
    }


class _Labelled(Relay):
    """Passes events on under names that tell the baseline from the run."""

    def planned(self, phases: Sequence[Mapping[str, Any]]) -> None:
        super().planned([{**row, "name": f"baseline {row['name']}"} for row in phases])

    def phase_began(self, name: str, epochs: int, steps: int) -> None:
        super().phase_began(f"baseline {name}", epochs, steps)

    def epoch_ended(self, row: Mapping[str, Any], *, best: bool) -> None:
        super().epoch_ended({**row, "phase": f"baseline {row['phase']}"}, best=best)

    def said(self, message: str) -> None:
        super().said(f"baseline: {message}")


def _relabel(error: ToolkitError) -> ToolkitError:
    """The same error, telling that it is the baseline's, and what of the baseline to change."""
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
