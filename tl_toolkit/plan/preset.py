"""What a recipe without phases gets: a head that is solved, then tuned with the last units.

Every value that is chosen has a reason, which the run prints and its recipe.yaml keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.recipe.schedules import CosineSchedule
from tl_toolkit.recipe.schema import Head, Phase, Recipe, UnfreezeFrom

__all__ = ["resolve_preset"]

_MOST_SOLVED = 20_000
"""Training images above which a head is trained: solving holds all their features in memory."""

_LEAST_JUDGES = 150
"""Validation images below which the better of probe and tuned model would be chosen by luck: at an
accuracy of 0.8 and 150 images, the standard error is three points."""

_TUNED_UNITS = 2

_PROBE: Mapping[str, tuple[Any, str]] = {
    "taps": ("all", "maps of all depths tell more than the last one, and cost no further pass"),
    "pooling": ("statistics", "average and deviation of each channel"),
    "normalize": (True, "maps of several depths differ in scale"),
    "solver": ("ridge", "solved in closed form, in seconds; its penalty by cross-validation"),
    "dropout": (0.5, "a head that fits every training image leaves tuning little to learn from"),
}


def resolve_preset(
    recipe: Recipe, architecture: Architecture, images: int, validation: int
) -> tuple[Recipe, tuple[str, ...]]:
    """Returns a recipe with the values of its preset, and a line of reason for each.

    Fields of the head that the recipe has keep their values.

    Args:
        recipe: The recipe, with its head resolved.
        architecture: The record of the base.
        images: Number of training images, roughly where fractions decide.
        validation: Number of validation images, likewise.

    Returns:
        The recipe as it is, without reasons, if it has no preset.
    """
    if recipe.preset is None:
        return recipe, ()
    head, reasons = _choose_head(recipe, images)
    phases: list[Phase] = []
    if recipe.model.is_random:
        phases.append(_train_all(architecture))
        reasons.append("phases.train: random weights have nothing to keep, so all of them train")
    else:
        if head.solver is None:
            phases.append(Phase(name="head", epochs=10, learning_rate=3e-3))
            reasons.append("phases.head: trained, as its problem is not solved")
        if recipe.preset == "auto" and head.solver and validation < _LEAST_JUDGES:
            reasons.append(
                f"phases: none to tune the base, as {validation} validation images could not tell "
                f"whether that helped; {_LEAST_JUDGES} could"
            )
        elif recipe.preset == "auto":
            phases.append(_tune(architecture))
            reasons.append(
                f"phases.tune: the last {_TUNED_UNITS} units, at a low rate; the probe is kept "
                "where it is better"
            )
        else:
            reasons.append("phases: none to tune the base, as preset is fast")
    model = recipe.model.model_copy(update={"head": head})
    changed: dict[str, Any] = {"preset": None, "model": model, "phases": tuple(phases)}
    if recipe.interpolate and not (phases and (head.solver or len(phases) > 1)):
        changed["interpolate"] = False
        reasons.append("interpolate=false: no head is trained before the base is, to mix with")
    if recipe.teacher is not None and not phases:
        changed["teacher"] = None
        reasons.append("teacher=null: a head that is solved learns labels alone")
    return recipe.model_copy(update=changed), tuple(f"{recipe.preset}: {text}" for text in reasons)


def _choose_head(recipe: Recipe, images: int) -> tuple[Head, list[str]]:
    head = recipe.model.classifier
    reason = ""
    if recipe.model.is_random:
        reason = "features of random weights are not worth solving for"
    elif head.hidden or head.l1 or head.l2 or head.pooling == "generalized_mean":
        reason = "the recipe's own head is not one that can be solved"
    elif images > _MOST_SOLVED:
        reason = f"{images:,} images are too many to solve for in memory"
    if reason:
        return head, [f"model.head: trained; {reason}"]
    chosen = {name: entry for name, entry in _PROBE.items() if name not in head.model_fields_set}
    if recipe.preset == "fast":
        chosen.pop("dropout", None)
    update = {name: value for name, (value, _) in chosen.items()}
    reasons = [f"model.head.{name}={_word(value)}: {why}" for name, (value, why) in chosen.items()]
    return head.model_copy(update=update), reasons


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _train_all(architecture: Architecture) -> Phase:
    return Phase(
        name="train",
        epochs=40,
        learning_rate=CosineSchedule(initial=1e-3),
        unfreeze=len(architecture.blocks),
        batch_norm="train",
        batch_norm_momentum=0.9,
    )


def _tune(architecture: Architecture) -> Phase:
    units = [unit.name for block in architecture.blocks for unit in block.units]
    first = units[-min(_TUNED_UNITS, len(units))]
    return Phase(
        name="tune",
        epochs=8,
        learning_rate=CosineSchedule(initial=3e-4),
        unfreeze=UnfreezeFrom(**{"from": first}),
    )
