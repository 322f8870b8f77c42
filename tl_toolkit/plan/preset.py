"""What a recipe without phases gets: a head that is solved, and for many images tuned.

Every value that is chosen has a reason, which the run prints and its recipe.yaml keeps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tl_toolkit.catalog.lookup import Architecture
from tl_toolkit.catalog.records import RGB
from tl_toolkit.recipe.schedules import CosineSchedule
from tl_toolkit.recipe.schema import Head, Phase, Recipe, UnfreezeFrom

__all__ = ["Choice", "estimate_splits", "replace_reasons", "resolve_preset"]

_MOST_SOLVED = 20_000
"""Training images above which a head is trained: solving holds all their features in memory."""

_LEAST_JUDGES = 150
"""Validation images below which the better of probe and tuned model would be chosen by luck: at an
accuracy of 0.8 and 150 images, the standard error is three points."""

_MOST_LOGISTIC = 40_000
"""Training images times outputs above which logistic regression takes longer than it is worth."""

_MOST_CELLED = 2_000
"""Training images above which cells are not read: that was not tried."""

_MOST_NUMBERS = 150_000_000
"""Features of all training images, as float32 0.6 GB; with 98 million of them, at 2,000 images, a
run took 2.7 GB and solving a quarter of a minute."""

_FEATURES_OF_CELLS = 11
"""Features of a channel that cells are read of: average, deviation and 3 x 3 averages."""

_MOST_UNTUNED = 5_000_000
"""Weights of a base up to which tuning after a head on cells lost where it was tried; a larger one
is tuned after a head on whole maps, where enough images judge it."""

_INNER_IMAGES = range(400, 1_001)
"""Numbers of training images for which inner maps are read: with 200 they gained nothing, with 400
and 800 most of a point; more were not tried."""

_INNER = (
    "inner",
    "ends of units, and the maps that their last convolutions read, which are wider in some bases",
)

_PYRAMID = (
    "pyramid",
    "average and deviation of each channel, and averages of 3 x 3 cells; solving leaves out what "
    "does not help",
)

_PROBE: Mapping[str, tuple[Any, str]] = {
    "taps": ("all", "maps of all depths tell more than the last one, and cost no further pass"),
    "pooling": ("statistics", "average and deviation of each channel"),
    "normalize": (True, "maps of several depths differ in scale"),
    "solver": ("auto", "the mean of a ridge and a logistic regression, which err differently"),
    "dropout": (0.5, "a head that fits every training image leaves tuning little to learn from"),
}


class Choice(NamedTuple):
    """A value that a preset chose.

    Attributes:
        field: The field, as "model.head.taps".
        value: The value as YAML; "" for a section, or where nothing is chosen.
        why: The reason.
    """

    field: str
    value: str
    why: str

    def describe(self) -> str:
        """Returns the choice as a line."""
        return f"{self.field}{self.value and f'={self.value}'}: {self.why}"


def replace_reasons(
    reasons: Sequence[str], values: Mapping[str, Any], *, word: str, why: str
) -> tuple[str, ...]:
    """Returns the reasons of a preset, with another one for each field that was given a value.

    Args:
        reasons: As in a plan: "auto: FIELD=VALUE: why"; none stay none. That of a section stays
            where one of its fields was given a value.
        values: The values by field.
        word: What chose them, in place of the preset.
        why: The other reason.
    """
    if not reasons:
        return ()

    def is_replaced(reason: str) -> bool:
        field = re.split("[=:]", reason.partition(": ")[2], maxsplit=1)[0]
        return any(f"{field}.".startswith(f"{name}.") for name in values)

    kept = [reason for reason in reasons if not is_replaced(reason)]
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, default=dict)
        for name, value in values.items()
    }
    choices = [Choice(name, text, why) for name, text in texts.items()]
    return (*kept, *(f"{word}: {choice.describe()}" for choice in choices))


def estimate_splits(counts: Mapping[str | None, int], fraction: object) -> tuple[int, int]:
    """Returns the number of training images, and of validation images, roughly for fractions.

    Args:
        counts: Images by split; None for those that fractions divide.
        fraction: The recipe's `data.validation`.
    """
    left, validation = counts.get(None, 0), counts.get("validation", 0)
    if isinstance(fraction, float) and not validation:
        validation = round(fraction * (left or counts.get("train", 0)))
    return counts.get("train", 0) or left, validation


def resolve_preset(
    recipe: Recipe,
    architecture: Architecture,
    images: int,
    validation: int,
    *,
    outputs: int,
    start_head: Head | None = None,
    counts: Mapping[str, int] | None = None,
) -> tuple[Recipe, tuple[Choice, ...]]:
    """Returns a recipe with the values of its preset, and what was chosen and why.

    Fields of the head that the recipe has keep their values.

    Args:
        recipe: The recipe, with its head resolved.
        architecture: The record of the base.
        images: Number of training images, roughly where fractions decide.
        validation: Number of validation images, likewise.
        outputs: Number of classes or numbers.
        start_head: That of the run to start from, whose maps are read and pooled alike; None
            without one.
        counts: Training images of each class, roughly where fractions decide; None for no classes.

    Returns:
        The recipe as it is, without choices, if it has no preset.
    """
    if recipe.preset is None:
        return recipe, ()
    tunes_all = recipe.preset == "auto" and _sees_sums(recipe)
    tunes_half = recipe.preset == "auto" and validation >= _LEAST_JUDGES
    numbers = images * _FEATURES_OF_CELLS * sum(unit.channels for unit in architecture.units)
    has_cells = (
        images <= _MOST_CELLED
        and numbers <= _MOST_NUMBERS
        and not tunes_all
        and not (tunes_half and _is_large(architecture))
    )
    is_open = "pooling" not in recipe.model.classifier.model_fields_set
    # Inner maps are about as many features again.
    has_inner = has_cells and is_open and images in _INNER_IMAGES and 2 * numbers <= _MOST_NUMBERS
    if start_head is not None and start_head.pooling in ("pyramid", "statistics"):
        has_cells, has_inner = start_head.pooling == "pyramid", start_head.taps == "inner"
        is_open = False
    head, choices = _choose_head(recipe, images, outputs, has_cells=has_cells, has_inner=has_inner)
    few = _describe_few(recipe, images, validation)
    unfreeze, why = _choose_unfreezing(
        recipe, architecture, head, few, tunes_all=tunes_all, is_open=is_open
    )
    phases, of_phases = _choose_phases(recipe, architecture, head, unfreeze, why)
    choices += of_phases
    model = recipe.model.model_copy(update={"head": head})
    changed: dict[str, Any] = {"preset": None, "model": model, "phases": phases}
    if recipe.interpolate and not (phases and (head.solver or len(phases) > 1)):
        changed["interpolate"] = False
        why = "no head is trained before the base is, to mix with"
        choices.append(Choice("interpolate", "false", why))
    balance, why = recipe.task.choose_balance(counts or {})
    if balance:
        changed["task"] = recipe.task.model_copy(update={"balance": balance})
        choices.append(Choice("task.balance", balance, why))
    if recipe.teacher is not None and not phases:
        changed["teacher"] = None
        choices.append(Choice("teacher", "null", "a head that is solved learns labels alone"))
    return recipe.model_copy(update=changed), tuple(choices)


def _choose_head(
    recipe: Recipe, images: int, outputs: int, *, has_cells: bool, has_inner: bool
) -> tuple[Head, list[Choice]]:
    head = recipe.model.classifier
    reason = ""
    if recipe.model.is_random:
        reason = "features of random weights are not worth solving for"
    elif head.hidden or head.l1 or head.l2 or head.pooling == "generalized_mean":
        reason = "the recipe's own head is not one that can be solved"
    elif images > _MOST_SOLVED:
        reason = f"{images:,} images are too many to solve for in memory"
    if reason:
        return head, [Choice("model.head", "", f"trained; {reason}")]
    chosen = {name: entry for name, entry in _PROBE.items() if name not in head.model_fields_set}
    if "pooling" in chosen and has_cells:
        chosen["pooling"] = _PYRAMID
    if "taps" in chosen and has_inner:
        chosen["taps"] = _INNER
    pooling = chosen["pooling"][0] if "pooling" in chosen else head.pooling
    if recipe.preset == "fast" or pooling == "pyramid":
        chosen.pop("dropout", None)
    if "solver" in chosen and not recipe.task.has_classes:
        chosen["solver"] = ("ridge", "solved in closed form, its penalty by cross-validation")
    elif "solver" in chosen and images * outputs > _MOST_LOGISTIC:
        chosen["solver"] = ("ridge", "in closed form; logistic regression would take minutes")
    update = {name: value for name, (value, _) in chosen.items()}
    choices = [
        Choice(f"model.head.{name}", _word(value), why) for name, (value, why) in chosen.items()
    ]
    return head.model_copy(update=update), choices


def _describe_few(recipe: Recipe, images: int, validation: int) -> str:
    """Returns that so few images validate that they cannot judge, and what could; "" for enough."""
    if validation >= _LEAST_JUDGES:
        return ""
    text = f"as {validation} validation images could not tell whether that helped; "
    text += f"{_LEAST_JUDGES} could"
    if recipe.data.folds is None and images >= _LEAST_JUDGES:
        text += ", or folds (data.folds: 5), which all images judge"
    return text


def _choose_phases(
    recipe: Recipe,
    architecture: Architecture,
    head: Head,
    unfreeze: UnfreezeFrom | None,
    reason: str,
) -> tuple[tuple[Phase, ...], list[Choice]]:
    """Returns the phases, of which the last one tunes, if any, and what was chosen and why."""
    if recipe.model.is_random:
        why = "random weights have nothing to keep, so all of them train"
        return (_train_all(architecture),), [Choice("phases.train", "", why)]
    phases, choices = [], []
    if head.solver is None:
        phases.append(Phase(name="head", epochs=10, learning_rate=3e-3))
        choices.append(Choice("phases.head", "", "trained, as its problem is not solved"))
    if unfreeze is not None:
        phases.append(_tune(unfreeze))
    choices.append(Choice("phases.tune" if unfreeze else "phases", "", reason))
    return tuple(phases), choices


def _choose_unfreezing(
    recipe: Recipe,
    architecture: Architecture,
    head: Head,
    few: str,
    *,
    tunes_all: bool,
    is_open: bool,
) -> tuple[UnfreezeFrom | None, str]:
    """Returns what is tuned after the head, None for nothing, and why.

    Args:
        recipe: The recipe.
        architecture: The record of its base.
        head: The head that was chosen.
        few: That too few images validate to judge it; "" for enough.
        tunes_all: Whether all units are tuned, however few validate.
        is_open: Whether the pooling was chosen here.
    """
    if recipe.preset != "auto":
        return None, "none to tune the base, as preset is fast"
    if tunes_all:
        return UnfreezeFrom(**{"from": architecture.units[0].name}), (
            "all units, at a low rate: weights of RGB see the sum of the bands alone until their "
            "first convolution trains"
        )
    reads_cells = head.pooling == "pyramid"
    if few and _is_large(architecture) and is_open:
        reads_cells = False  # with enough images to judge it, another head would be tuned
    if head.solver and reads_cells:
        return None, (
            "none to tune the base: from a head that reads cells it lost where it was tried"
        )
    if head.solver and few:
        return None, f"none to tune the base, {few}"
    return _halve(architecture), (
        "the second half of the units, at a low rate; the probe is kept where it is better"
    )


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_large(architecture: Architecture) -> bool:
    return architecture.parameters > _MOST_UNTUNED


def _train_all(architecture: Architecture) -> Phase:
    return Phase(
        name="train",
        epochs=40,
        learning_rate=CosineSchedule(initial=1e-3),
        unfreeze=len(architecture.blocks),
        batch_norm="train",
        batch_norm_momentum=0.9,
    )


def _sees_sums(recipe: Recipe) -> bool:
    """Returns whether weights of RGB are widened to bands, which their base then adds up."""
    return recipe.data.channels not in (1, RGB) and recipe.model.weights == "imagenet"


def _halve(architecture: Architecture) -> UnfreezeFrom:
    """Returns the second half of the units: it gained a point on the probe, two units nothing.

    benchmarks/ablations.py measures it.
    """
    return UnfreezeFrom(**{"from": architecture.units[len(architecture.units) // 2].name})


def _tune(unfreeze: UnfreezeFrom) -> Phase:
    return Phase(
        name="tune", epochs=8, learning_rate=CosineSchedule(initial=3e-4), unfreeze=unfreeze
    )
