"""Sections that tie training to other weights: those that it began with, or a teacher's."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tl_toolkit.recipe.fields import (
    Conflict,
    RegularizationFactor,
    RunPlace,
    Section,
)
from tl_toolkit.recipe.kinds import read_switch
from tl_toolkit.recipe.tasks import field_of

__all__ = [
    "INTERPOLATE",
    "L2SP",
    "Teacher",
    "TeacherField",
    "Interpolate",
    "Interpolation",
    "find_interpolation_conflicts",
    "find_l2_sp_conflicts",
]

INTERPOLATE = "interpolate"
"""Name of the phase that mixes weights."""


class Interpolation(Section):
    """Mixtures of the weights from before and after tuning (Wortsman et al., 2022, WiSE-FT)."""

    steps: int = Field(
        default=10,
        ge=2,
        le=100,
        description="Mixtures, at equal distances: with 10 a tenth, two tenths, and so on up to "
        "the tuned weights themselves. Each costs one pass over the validation images.",
        examples=[20],
    )


def _as_interpolation(value: object) -> object:
    return read_switch(value, Interpolation, field="steps")


Interpolate = Annotated[
    Interpolation | Literal[False],
    BeforeValidator(_as_interpolation, json_schema_input_type=Interpolation | bool),
]


class Teacher(Section):
    """A run whose outputs training learns too (Hinton et al., 2015, distillation)."""

    run: RunPlace = Field(
        description="Folder of a finished run with the same classes, whose base may be any; or its "
        "address on an object store, of which there is a copy in the cache.",
        examples=["runs/large/001", "s3://photos/runs/large/001"],
    )
    temperature: float = Field(
        default=2.0,
        gt=0,
        description="What logits are divided by, above 0, in the model and in the teacher: the "
        "higher, the more the teacher's small probabilities count.",
        examples=[4.0],
    )
    weight: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Weight of the teacher, above 0 up to 1: training minimizes 1 - weight times "
        "the loss, and weight times temperature squared times the divergence from the teacher.",
        examples=[0.9],
    )


def _as_teacher(value: object) -> object:
    if isinstance(value, str | Path):
        value = {"run": value}
    return Teacher.model_validate(value) if isinstance(value, Mapping) else value


TeacherField = Annotated[
    Teacher | None, BeforeValidator(_as_teacher, json_schema_input_type=Teacher | str | None)
]


class L2SP(Section):
    """What holds the base near its start, and the head small (Li et al., 2018, L2-SP)."""

    base: RegularizationFactor = Field(
        default=0.0,
        description="Factor alpha, 0 or more, of alpha / 2 times the squared distance of the "
        "base's weights that train from those that the run began with.",
        examples=[0.1],
    )
    head: RegularizationFactor = Field(
        default=0.0,
        description="Factor beta, 0 or more, of beta / 2 times the squared norm of the head's "
        "weights.",
        examples=[0.01],
    )


def find_l2_sp_conflicts(values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields a conflict where the section has no effect.

    Args:
        values: The fields of a phase, as in `Section.find_conflicts`.
    """
    section = values.get("l2_sp")
    if section is None:
        return
    base, head = field_of(section, "base"), field_of(section, "head")
    if not base and not head:
        expected = "expected a factor above 0, of base or of head"
        yield Conflict(("l2_sp",), expected, "l2_sp: {base: 0.1, head: 0.01}")
    elif base and values.get("unfreeze") in (None, 0):
        expected = "expected 0 without unfreeze: a base that does not train stays where it is"
        yield Conflict(("l2_sp", "base"), expected, "unfreeze: 1")


def find_interpolation_conflicts(values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Yields a conflict where no phase tunes the base, or none trains the head before.

    Args:
        values: The fields of a recipe, as in `Section.find_conflicts`.
    """
    if not values.get("interpolate"):
        return
    if field_of(values.get("data"), "folds") is not None:
        expected = "expected false with data.folds: no validation images are left to compare on"
        yield Conflict(("interpolate",), expected, "~data.folds, or ~interpolate")
    phases = values.get("phases", ())
    phases = phases if isinstance(phases, list | tuple) else ()
    if not phases and values.get("preset") == "fast":
        expected = "expected false: preset fast tunes nothing, so that there is nothing to mix"
        yield Conflict(("interpolate",), expected, "preset: auto")
    model = values.get("model")
    solver = field_of(field_of(model, "head"), "solver")
    tuning = [n for n, phase in enumerate(phases) if field_of(phase, "unfreeze") not in (None, 0)]
    if (phases or solver) and not tuning:
        expected = "expected false: no phase tunes the base, so that there is nothing to mix"
        yield Conflict(("interpolate",), expected, "phases.NAME.unfreeze: 1, in the last phase")
    elif tuning and tuning[0] == 0 and solver is None and not field_of(model, "start"):
        expected = "expected a head that is trained before the base is: mixed with a new one, no "
        expected += "weights are good"
        hint = "model.head.solver: ridge, or a first phase without unfreeze"
        yield Conflict(("interpolate",), expected, hint)
    for index, phase in enumerate(phases):
        if field_of(phase, "name") == INTERPOLATE:
            expected = f"expected another name: {INTERPOLATE} is the phase of interpolate"
            yield Conflict(("phases", index, "name"), expected)
