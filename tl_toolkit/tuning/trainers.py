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
from tl_toolkit.plan.space import Space, find_unfrozen, resolve_space
from tl_toolkit.plan.training import feature_values
from tl_toolkit.recipe.load import replace_fields
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.training.aside import Aside
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
from tl_toolkit.transfer.assemble import TransferModel

__all__ = ["FirstModel", "Trainers", "as_text"]

_KEPT_TRAINERS = 2

_SHARED = ("deterministic", "precision", "augment", "features", "model", "pixels", "task")
_DATA_LEFT_OUT = {"batch_size"}


class FirstModel:
    """The model of a search's first trial, built in a thread of its own while images are read.

    Args:
        plan: Plan of the recipe that is searched.
        progress: Receives the events of building it, in that thread.
    """

    def __init__(self, plan: Plan, progress: Handler) -> None:
        template = _find_template(plan.recipe, resolve_space(plan.recipe))
        plan = replace(plan, recipe=template)
        task = build_task(template, plan.classes)
        self._key = _describe_shared(template)
        self._aside: Aside[TransferModel] | None = Aside(
            lambda report: assemble_model(plan, task, report), progress
        )

    @classmethod
    def of(cls, plan: Plan, progress: Handler) -> FirstModel | None:
        """Begins to build the model, unless it depends on the images or on what is searched.

        One of random weights is not built aside either: Keras takes these from the stream of
        Python's `random`, from which KerasTuner takes the names of trials meanwhile.

        Args:
            plan: As above.
            progress: As above.
        """
        recipe = plan.recipe
        differs = any(map(_decides_on_trainer, resolve_space(recipe)))
        if recipe.search is not None and recipe.search.vary_seed:
            differs = differs or _depends_on_seed(recipe)
        is_ready = not (recipe.model.is_random or plan.needs_bands or differs)
        return cls(plan, progress) if is_ready else None

    def take(self, key: str) -> TransferModel | None:
        """Waits for the model, and returns it once; None for a trial that needs another.

        Its building is then over: two at a time would take random weights from one stream.

        Args:
            key: What decides on the trainer of the trial.
        """
        aside = self._aside
        if aside is None or key != self._key:
            self.abandon()
            return None
        try:
            transfer = aside.wait()
        except Exception:
            self._aside = None  # a later trial builds one of its own
            raise
        self._aside = None  # else it would keep the model for as long as the search takes
        return transfer

    def abandon(self) -> None:
        """Ends the building."""
        if self._aside is not None:
            self._aside.abandon()
            self._aside = None


class Trainers:
    """Builds the trainers of a search, and keeps the latest ones.

    Args:
        plan: Plan of the recipe that is searched.
        space: The fields that trials differ in.
        folder: The search's folder.
        progress: Receives the events of building a trainer.
        quiet: Receives the events of the trainers.
        images: Images by split, at the recipe's size.
        first: The model of the first trial, if it is being built.
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
        first: FirstModel | None = None,
    ) -> None:
        self._space = space
        self._first = first
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
        template = _find_template(plan.recipe, self._space)
        key = _describe_shared(template)
        if key not in self._trainers:
            while len(self._trainers) >= _KEPT_TRAINERS:
                del self._trainers[next(iter(self._trainers))]
            self._trainers[key] = self._build(replace(plan, recipe=template), key)
        return self._trainers[key]

    def _build(self, plan: Plan, key: str) -> Trainer | FoldTrainer:
        transfer = self._first.take(key) if self._first is not None else None
        if transfer is None:
            transfer = assemble_model(plan, build_task(plan.recipe, plan.classes), self._progress)
        task = transfer.task
        images = self._load_images(plan, task)
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

    def _load_images(self, plan: Plan, task: Task) -> dict[str, Images]:
        key = _describe_data(plan.recipe)
        if key not in self._images:
            manifest = scan_images(plan, task, self._folder)
            self._images = {key: _without_test(load_images(plan, task, manifest))}
        return self._images[key]


def _find_template(recipe: Recipe, space: Space) -> Recipe:
    """Returns the recipe with every searched dropout above 0, so that its layer is built."""
    built = {field: 0.5 for field in space if _is_dropout(field)}
    return replace_fields(recipe, built) if built else recipe


def _is_dropout(field: str) -> bool:
    return field.startswith("model.head.") and field.endswith("dropout")


def _describe_shared(template: Recipe) -> str:
    """Returns everything that decides on the trainer of a trial, as text."""
    shared = set(_SHARED)
    if _depends_on_seed(template):
        shared.add("seed")
    values = template.model_dump(mode="json", include=shared)
    return as_text({**values, "data": _describe_data(template)})


def _depends_on_seed(recipe: Recipe) -> bool:
    """Whether the seed decides on anything that a trainer keeps."""
    return recipe.model.is_random or recipe.augment is not None


def _decides_on_trainer(field: str) -> bool:
    """Whether trials with different values of a field may need different trainers."""
    section, _, rest = field.partition(".")
    if section == "data":
        return rest not in _DATA_LEFT_OUT
    return section in {*_SHARED, "seed"} and not _is_dropout(field)


def _describe_data(recipe: Recipe) -> str:
    """Returns everything that decides which images there are, and their pixels, as text."""
    return as_text(recipe.data.model_dump(mode="json", exclude=_DATA_LEFT_OUT))


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
