"""Trainers that trials with the same graph and images share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tl_toolkit.events import Handler
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.space import Space, find_unfrozen
from tl_toolkit.plan.training import feature_values
from tl_toolkit.recipe.load import replace_fields
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.folds import FoldTrainer
from tl_toolkit.training.loop import Trainer
from tl_toolkit.training.prepare import (
    assemble_model,
    build_trainer,
    load_images,
    scan_images,
    split_folds,
)

__all__ = ["Trainers", "as_text"]

_KEPT_TRAINERS = 2


class Trainers:
    """Builds the trainers of a search, and keeps the latest ones.

    Args:
        plan: Plan of the recipe that is searched.
        space: The fields that trials differ in.
        folder: The search's folder.
        progress: Receives the events of building a trainer.
        quiet: Receives the events of the trainers.
        images: Images by split, at the recipe's size.
    """

    def __init__(
        self,
        plan: Plan,
        space: Space,
        folder: RunFolder,
        *,
        progress: Handler,
        quiet: Handler,
        images: Mapping[str, Images],
    ) -> None:
        self._space = space
        self._folder = folder
        self._progress = progress
        self._quiet = quiet
        self._images = {_describe_data(plan.recipe): _without_test(images)}
        self._trainers: dict[str, Trainer | FoldTrainer] = {}

    def clear(self) -> None:
        """Forgets all of them, so that a fault of one cannot affect later trials."""
        self._trainers.clear()

    def find(self, plan: Plan) -> Trainer | FoldTrainer:
        """Returns a trainer that serves a plan, and all that share its graph and images.

        Args:
            plan: Plan of a trial.
        """
        recipe, template = plan.recipe, self._with_dropouts(plan.recipe)
        shared = {"deterministic", "precision", "augment", "features", "model", "pixels", "task"}
        if recipe.model.is_random or recipe.augment is not None:
            shared.add("seed")  # else the seed decides nothing that a trainer keeps
        key = as_text(
            {
                **template.model_dump(mode="json", include=shared),
                "data": _describe_data(template),
            }
        )
        if key not in self._trainers:
            while len(self._trainers) >= _KEPT_TRAINERS:
                del self._trainers[next(iter(self._trainers))]
            self._trainers[key] = self._build(replace(plan, recipe=template))
        return self._trainers[key]

    def _build(self, plan: Plan) -> Trainer | FoldTrainer:
        task = build_task(plan.recipe, plan.classes)
        images = self._load_images(plan, task)
        transfer = assemble_model(plan, task, self._progress)
        settings = FeatureSettings.from_values(feature_values(plan.recipe))
        trainer = build_trainer(
            CompiledPhases(transfer, plan.recipe.precision),
            settings,
            images,
            progress=self._quiet,
            # Units of every unfreezing that trials may have: one pass is to serve them all.
            ahead=find_unfrozen(self._space, plan.architecture),
        )
        if plan.recipe.data.folds is None:
            return trainer
        folds = split_folds(plan, task, images["train"])
        return FoldTrainer(trainer, settings, folds, progress=self._quiet)

    def _with_dropouts(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with every searched dropout above 0, so that its layer is built."""
        built = {
            field: 0.5
            for field in self._space
            if field.startswith("model.head.") and field.endswith("dropout")
        }
        return replace_fields(recipe, built) if built else recipe

    def _load_images(self, plan: Plan, task: Task) -> dict[str, Images]:
        key = _describe_data(plan.recipe)
        if key not in self._images:
            manifest = scan_images(plan, task, self._folder)
            self._images = {key: _without_test(load_images(plan, task, manifest))}
        return self._images[key]


def _describe_data(recipe: Recipe) -> str:
    """Returns everything that decides which images there are, and their pixels, as text."""
    return as_text(recipe.data.model_dump(mode="json", exclude={"batch_size"}))


def _without_test(images: Mapping[str, Images]) -> dict[str, Images]:
    """Returns the splits that trials use."""
    return {split: images[split] for split in ("train", "validation") if split in images}


def as_text(values: Any) -> str:
    """Returns a text that is equal for equal values.

    Args:
        values: Values that JSON can hold, and mappings of any kind; other objects by their text.
    """
    return json.dumps(values, sort_keys=True, default=_as_plain)


def _as_plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
