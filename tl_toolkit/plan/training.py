"""The settings of training, in plain values, made from a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tl_toolkit.plan.plan import Plan
from tl_toolkit.plan.teacher import find_teaching
from tl_toolkit.recipe.anchors import INTERPOLATE
from tl_toolkit.recipe.phase_schema import PhaseSettings, Teaching
from tl_toolkit.recipe.schema import Head, Recipe

__all__ = [
    "INTERPOLATE",
    "PhaseSettings",
    "StoppingRule",
    "Teaching",
    "TrainingSettings",
    "describe_first",
    "describe_phases",
    "describe_training",
    "dropout_rates",
    "feature_values",
    "training_settings",
]

_FREE = ("checkpoint", "export", "baseline", "search", "yardsticks", "report",
         "features.store", "features.max_gb", "features.location", "features.part")  # fmt: skip
"""Fields that change nothing of what is trained."""


@dataclass(frozen=True)
class StoppingRule:
    """When a phase ends early, and by what epochs are compared.

    Attributes:
        monitor: val_loss; anything else stands for the score on validation images.
        patience: Epochs without a better result before the phase ends.
        min_delta: A change up to this size does not count as better.
    """

    monitor: str = "val_accuracy"
    patience: int = 5
    min_delta: float = 0.0


@dataclass(frozen=True)
class TrainingSettings:
    """All phases of a training, and what they have in common.

    Attributes:
        phases: The phases, at least one.
        batch_size: Images in a step.
        seed: Decides the head's initial weights, the order, dropout, sampling and augmentation.
        stopping: When a phase ends early; None for never.
        dropout: Rate of each dropout of the head, by the layer's name.
        descriptions: For each phase a text that is equal for two trainings of one model only if
            their phases are, up to this one, bit for bit.
        carried: Places of the outputs of new classes in a head that a run has trained; None for a
            new head.
        mixtures: Number of mixtures of the weights from before and after tuning; 0 for none.
        mixes_images: Whether phases that take steps train on mixed images.
    """

    phases: tuple[PhaseSettings, ...]
    batch_size: int
    seed: int = 0
    stopping: StoppingRule | None = None
    dropout: Mapping[str, float] = field(default_factory=dict)
    descriptions: tuple[str, ...] = ()
    carried: tuple[int, ...] | None = None
    mixtures: int = 0
    mixes_images: bool = False


def training_settings(plan: Plan) -> TrainingSettings:
    """Returns the settings of training that a plan describes.

    Args:
        plan: The plan, whose units each phase trains.
    """
    recipe = plan.recipe
    stopping, augment = recipe.early_stopping, recipe.augment
    teaching = find_teaching(recipe, plan.classes)
    phases, descriptions = [], []
    for index, phase in enumerate(recipe.phases):
        for stage in phase.stages:
            phases.append(PhaseSettings.of(phase, stage, plan.units[stage.name], teaching))
            descriptions.append(f"{describe_phases(recipe, index)} {stage.name}")
    if solver := recipe.model.classifier.solver:
        phases.insert(0, PhaseSettings.of_probe(solver))
        descriptions.insert(0, _describe_probe(recipe))
    return TrainingSettings(
        phases=tuple(phases),
        batch_size=recipe.data.batch_size,
        seed=recipe.seed,
        stopping=None if stopping is None else StoppingRule(**stopping.model_dump()),
        dropout=dropout_rates(recipe.model.classifier),
        descriptions=tuple(descriptions),
        carried=None if plan.start is None else plan.start.find_new(plan.classes),
        mixtures=recipe.interpolate.steps if recipe.interpolate else 0,
        mixes_images=augment is not None and bool(augment.mixup or augment.cutmix),
    )


def feature_values(recipe: Recipe) -> dict[str, Any]:
    """Returns all that a recipe says of its features, as `FeatureSettings` take it.

    Their fields have the names of those of `features` and `augment`, so that a new one needs no
    line here.

    Args:
        recipe: The recipe.
    """
    return {
        **recipe.features.model_dump(),
        "augment": None if recipe.augment is None else recipe.augment.model_dump(),
        "image_size": recipe.data.image_size,
        "resize": recipe.data.resize,
        "pad_color": recipe.data.pad_color,
        "channels": recipe.data.channels,
        "seed": recipe.seed,
    }


def dropout_rates(head: Head) -> dict[str, float]:
    """Returns the rate of each dropout layer that a head may have, by the layer's name.

    Args:
        head: The recipe's section.
    """
    hidden = {f"head_hidden{n}_dropout": layer.dropout for n, layer in enumerate(head.hidden, 1)}
    return {**hidden, "head_dropout": head.dropout}


def describe_training(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields that decide a training; a base that was copied may lie elsewhere.

    Args:
        recipe: The recipe.
    """
    values = recipe.model_dump(mode="json")
    if recipe.model.own_file is not None:
        values["model"]["base"].pop("model")
    for free in _FREE:
        section, _, name = free.partition(".")
        if name:
            values[section].pop(name)
        else:
            values.pop(section)
    return values


def describe_first(recipe: Recipe) -> str:
    """Returns a text that is equal for two recipes only if their first phases are, bit for bit.

    Args:
        recipe: The recipe, with its head resolved.
    """
    if recipe.model.classifier.solver:
        return _describe_probe(recipe)
    phase = recipe.phases[0]
    return f"{describe_phases(recipe, 0)} {phase.stages[0].name}"


def _describe_probe(recipe: Recipe) -> str:
    """Returns all that decides a solved head, as `describe_phases` does of trained phases."""
    head = recipe.model.classifier.model_copy(update={"dropout": 0.0})
    model = recipe.model.model_copy(update={"head": head})
    return describe_phases(recipe.model_copy(update={"early_stopping": None, "model": model}), -1)


def describe_phases(recipe: Recipe, index: int) -> str:
    """Returns all that decides a phase besides images and weight files: settings up to it.

    Two recipes with the same description have equal phases up to this one, bit for bit.

    Args:
        recipe: The recipe.
        index: Place of the phase, from 0; -1 for what comes before all of them.
    """
    chosen = recipe.model_dump(
        mode="json",
        include={"seed", "task", "augment", "model", "early_stopping", "phases", "teacher"},
    )
    del chosen["model"]["weights"]  # a path, which may differ where the file does not
    if recipe.pixels is not None:
        chosen["pixels"] = recipe.pixels.model_dump(mode="json")
    settings = {**chosen, "phases": chosen["phases"][: index + 1]}
    return json.dumps({**settings, "batch_size": recipe.data.batch_size}, sort_keys=True)
