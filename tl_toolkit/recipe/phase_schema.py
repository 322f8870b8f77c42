"""The sections `phases` and `early_stopping`: what trains, for how long, at what rate."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field

from tl_toolkit.recipe.anchors import L2SP, find_l2_sp_conflicts
from tl_toolkit.recipe.fields import (
    Conflict,
    Listed,
    PhaseName,
    Rate,
    RegularizationFactor,
    Section,
    Text,
    expects,
    refuse_repeated,
)
from tl_toolkit.recipe.optimizers import (
    DEFAULT_OPTIMIZER,
    OPTIMIZERS,
    SGD,
    Optimizer,
    OptimizerField,
    find_misplaced,
    move_into_optimizer,
)
from tl_toolkit.recipe.schedules import SCHEDULES, LearningRate, Schedule
from tl_toolkit.recipe.task_types import Monitor
from tl_toolkit.recipe.tasks import name_scores

__all__ = ["PROBE", "EarlyStopping", "Phase", "PhaseSettings", "Teaching", "UnfreezeFrom"]


PROBE = "probe"
"""Name of the phase that solves the head."""


def _suggest_unfreeze(value: object) -> str:
    """Returns what a word for `unfreeze` probably means: a unit's name."""
    if not isinstance(value, str) or not value:
        return ""
    if value.lower() in ("none", "head"):
        return "unfreeze: 0"
    if value.lower() in ("all", "everything", "base"):
        return "unfreeze: N, the number of blocks; tltool models show BASE"
    return f"unfreeze: {{from: {value}}}"


class UnfreezeFrom(Section):
    """The unit that training begins at; it and everything after it trains."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    unit: Text = Field(
        alias="from",
        description="Name of the first unit that trains; `tltool models show BASE` lists them.",
        examples=["conv_dw_12"],
    )


class Phase(Section):
    """One phase of training: what trains, for how long, at what rate."""

    name: PhaseName = Field(
        description="Name of the phase: a letter, then letters, digits, - and _; unique.",
        examples=["head"],
    )
    epochs: int = Field(
        ge=0, le=100_000, description="Passes over the training images, 0 or more.", examples=[10]
    )
    optimizer: OptimizerField = Field(
        default=DEFAULT_OPTIMIZER,
        json_schema_extra={"default": "adam"},
        description="Optimizer, fresh at the start of the phase: a word "
        f"({', '.join(OPTIMIZERS)}), or a section with its settings.",
        examples=["adam", {"kind": "adamw", "weight_decay": 1e-4}],
    )
    learning_rate: LearningRate = Field(
        default=1e-3,
        description="Learning rate, above 0, or a schedule: a section with a kind "
        f"({', '.join(SCHEDULES)}).",
        examples=[1e-3, {"kind": "cosine", "initial": 1e-3, "warmup_epochs": 1}],
    )
    momentum: Rate | None = Field(
        default=None,
        examples=[0.9],
        description="Momentum of sgd, 0 to below 1: short for optimizer: {kind: sgd, momentum: M}.",
    )
    weight_decay: RegularizationFactor | None = Field(
        default=None,
        examples=[0.0001],
        description="Weight decay of adamw, 0 or more: short for optimizer: {kind: adamw, "
        "weight_decay: D}.",
    )
    unfreeze: Annotated[
        Annotated[int, Field(ge=0)]
        | UnfreezeFrom
        | Annotated[tuple[Text, ...], Field(min_length=1), Listed],
        expects(
            "expected a number of blocks (0 or more), {from: UNIT}, or a list of block names",
            _suggest_unfreeze,
        ),
    ] = Field(
        default=0,
        description="What of the base trains besides the head: a number of blocks counted from the "
        "output, {from: UNIT}, or a list of block names.",
        examples=[2, {"from": "conv_dw_12"}, ["block4", "block5"]],
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="What the rate of each unit is multiplied by, once more for each unit further "
        "from the output: the head has the phase's rate, the last unit that times layer_decay. "
        "1 gives all the same rate.",
        examples=[0.75],
    )
    l2_sp: L2SP | None = Field(
        default=None,
        description="Pulls the base towards the weights that the run began with, and the head "
        "towards 0, by two terms of the regularization loss; none by default.",
        examples=[{"base": 0.1, "head": 0.01}],
    )
    batch_norm: Literal["frozen", "train"] = Field(
        default="frozen",
        description="Whether BatchNormalization in unfrozen blocks stays frozen or trains.",
    )
    batch_norm_momentum: Rate | None = Field(
        default=None,
        examples=[0.9],
        description="Momentum of the moving statistics of BatchNormalization that trains in the "
        "base; by default each layer's own. With Keras's 0.99 a tenth of the first values is left "
        "after 230 steps, and a base of random weights cannot be validated before; with 0.9, 22.",
    )

    @classmethod
    def settle(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Moves momentum and weight decay into the optimizer's section.

        Args:
            values: The fields, before validation.
        """
        return move_into_optimizer(values)

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for each setting without effect, and each repeated block.

        Args:
            values: As in `Section.find_conflicts`.
        """
        if values.get("batch_norm_momentum") is not None and values.get("batch_norm") != "train":
            expected = "expected none without batch_norm: train"
            yield Conflict(("batch_norm_momentum",), expected, "batch_norm: train")
        for name, owner, kind in find_misplaced(values):
            expected = f"expected 0.0 or optimizer: {owner}, got {values[name]!r} with {kind!r}"
            yield Conflict((name,), expected, f"optimizer: {owner}")
        yield from refuse_repeated(values.get("unfreeze"), "unfreeze")
        yield from find_l2_sp_conflicts(values)


@dataclasses.dataclass(frozen=True)
class Teaching:
    """What steps learn of a teacher, in plain values.

    Attributes:
        model: The file of the teacher's whole model.
        places: For each class the place of its output among the teacher's.
        image_size: (height, width) of the teacher's images.
        resize: How images are resized to that size.
        temperature: What logits are divided by.
        weight: Weight of the teacher, above 0 up to 1.
    """

    model: Path
    places: tuple[int, ...]
    image_size: tuple[int, int]
    resize: Literal["stretch", "crop"]
    temperature: float
    weight: float


@dataclasses.dataclass(frozen=True)
class PhaseSettings:
    """The settings of a phase, in plain values; fields of equal names hold those of `Phase`.

    Attributes:
        name: Unique among the phases.
        epochs: Passes over the training images, 0 or more.
        optimizer: Builds itself, fresh at the start of the phase.
        learning_rate: A number, or a schedule.
        units: Names of the base's units that train besides the head, input to output.
        batch_norm: frozen or train: whether BatchNormalization in them trains.
        batch_norm_momentum: Momentum of its moving statistics; None for each layer's own.
        layer_decay: Factor of the rate from one unit to the one before it.
        l2_sp: Factors of two terms of the regularization loss; None for neither.
        teaching: What the steps learn of a teacher; None for nothing. A recipe has it as `teacher`.
        solver: Solves the head in place of an epoch of steps: ridge, logistic or auto; None for
            steps. A recipe has it as `model.head.solver`.
    """

    name: str
    epochs: int
    optimizer: Optimizer
    learning_rate: float | Schedule = 1e-3
    units: tuple[str, ...] = ()
    batch_norm: str = "frozen"
    batch_norm_momentum: float | None = None
    layer_decay: float = 1.0
    l2_sp: L2SP | None = None
    teaching: Teaching | None = None
    solver: str | None = None

    @classmethod
    def of(cls, phase: Phase, units: tuple[str, ...]) -> Self:
        """Returns the settings of a recipe's phase.

        Args:
            phase: The section.
            units: The units that its `unfreeze` resolves to.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"units", "solver", "teaching"}
        return cls(units=units, **{name: getattr(phase, name) for name in sorted(names)})

    @classmethod
    def of_probe(cls, solver: str) -> Self:
        """Returns the phase that solves the head before the recipe's own phases.

        Args:
            solver: ridge, logistic or auto.
        """
        return cls(PROBE, 1, SGD(), solver=solver)

    @property
    def train_batch_norm(self) -> bool:
        """Whether BatchNormalization in the units trains."""
        return self.batch_norm == "train"


class EarlyStopping(Section):
    """Ends a phase when the validation result no longer gets better."""

    monitor: Monitor = Field(
        default="val_accuracy",
        description="The result that is watched: val_loss, or the score of the task, which is the "
        f"default ({name_scores()}).",
    )
    patience: int = Field(
        default=5, ge=1, description="Epochs without a better result before the phase ends."
    )
    min_delta: float = Field(
        default=0.0, ge=0, description="A change up to this size does not count as better."
    )
