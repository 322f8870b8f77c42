"""The settings of training, in plain values, made from a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tl_toolkit.catalog.lookup import resolve_unfreeze
from tl_toolkit.plan.bases import find_base
from tl_toolkit.recipe.phase_schema import PhaseSettings
from tl_toolkit.recipe.schema import Head, Phase, Recipe

__all__ = [
    "PhaseSettings",
    "StoppingRule",
    "TrainingSettings",
    "describe_phases",
    "dropout_rates",
    "training_settings",
]


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
        phases: At least one.
        batch_size: Images in a step.
        seed: Head, order, dropout, sampling and augmentation follow from it.
        stopping: When a phase ends early; None for never.
        dropout: Rate of each dropout of the head, by the layer's name.
        descriptions: For each phase a text that is equal for two trainings of one model only if
            their phases are, up to this one, bit for bit.
    """

    phases: tuple[PhaseSettings, ...]
    batch_size: int
    seed: int = 0
    stopping: StoppingRule | None = None
    dropout: Mapping[str, float] = field(default_factory=dict)
    descriptions: tuple[str, ...] = ()


def training_settings(
    recipe: Recipe, units: Mapping[str, tuple[str, ...]] | None = None
) -> TrainingSettings:
    """Returns the settings of training that a recipe describes.

    Args:
        recipe: A checked recipe.
        units: Units that each phase trains, by its name, where they are known already.

    Raises:
        RecipeError: The base has no such block or unit.
    """
    stopping = recipe.early_stopping
    return TrainingSettings(
        phases=tuple(
            _phase_settings(phase, recipe, (units or {}).get(phase.name)) for phase in recipe.phases
        ),
        batch_size=recipe.data.batch_size,
        seed=recipe.seed,
        stopping=None if stopping is None else StoppingRule(**stopping.model_dump()),
        dropout=dropout_rates(recipe.model.classifier),
        descriptions=tuple(describe_phases(recipe, index) for index in range(len(recipe.phases))),
    )


def _phase_settings(phase: Phase, recipe: Recipe, units: tuple[str, ...] | None) -> PhaseSettings:
    if units is None:
        units = tuple(resolve_unfreeze(find_base(recipe), phase.unfreeze))
    return PhaseSettings.of(phase, units)


def dropout_rates(head: Head) -> dict[str, float]:
    """Returns the rate of each dropout layer that a head may have, by the layer's name.

    Args:
        head: The recipe's section.
    """
    hidden = {f"head_hidden{n}_dropout": layer.dropout for n, layer in enumerate(head.hidden, 1)}
    return {**hidden, "head_dropout": head.dropout}


def describe_phases(recipe: Recipe, index: int) -> str:
    """Returns all that decides a phase besides images and weight files: settings up to it.

    Two recipes with the same description have equal phases up to this one, bit for bit.

    Args:
        recipe: The recipe.
        index: Place of the phase, from 0.
    """
    chosen = recipe.model_dump(
        mode="json", include={"seed", "task", "augment", "model", "early_stopping", "phases"}
    )
    del chosen["model"]["weights"]  # a path, which may differ where the file does not
    if recipe.pixels is not None:
        chosen["pixels"] = recipe.pixels.model_dump(mode="json")
    settings = {**chosen, "phases": chosen["phases"][: index + 1]}
    return json.dumps({**settings, "batch_size": recipe.data.batch_size}, sort_keys=True)
