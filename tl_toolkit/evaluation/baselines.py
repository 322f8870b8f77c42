"""The same recipe with a few fields replaced, on the same images and measured the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_toolkit.data.pipeline import Images
from tl_toolkit.evaluation.metrics import measure
from tl_toolkit.evaluation.predict import predict_images
from tl_toolkit.progress import Progress
from tl_toolkit.recipe.load import build_baseline
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs import RunFolder
from tl_toolkit.training.loop import train_phases
from tl_toolkit.transfer.assemble import assemble


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
    transfer = assemble(
        other.model, image_size=other.data.image_size, num_classes=len(classes), seed=other.seed
    )
    place = RunFolder(folder.path / "baseline")
    training = train_phases(transfer, other, images, place, progress=_Labelled(progress))
    return {
        "changes": dict(recipe.baseline or {}),
        "best": training.best.as_row(),
        **{
            split: measure(
                images[split].labels, predict_images(transfer.model, images[split]), classes
            )
            for split in images
            if split != "train"
        },
    }


class _Labelled(Progress):
    """Passes events on under names that tell the baseline from the run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def phase_began(self, name: str, epochs: int, steps: int) -> None:
        self._progress.phase_began(f"baseline {name}", epochs, steps)

    def stepped(self, step: int, loss: float) -> None:
        self._progress.stepped(step, loss)

    def epoch_ended(self, row: Mapping[str, Any], *, best: bool) -> None:
        self._progress.epoch_ended({**row, "phase": f"baseline {row['phase']}"}, best=best)

    def said(self, message: str) -> None:
        self._progress.said(f"baseline: {message}")
