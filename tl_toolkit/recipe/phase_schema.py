"""The sections `phases` and `early_stopping`: what trains, for how long, at what rate."""

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
)

from tl_toolkit.errors import nearest
from tl_toolkit.recipe.anchors import L2SP, find_l2_sp_conflicts
from tl_toolkit.recipe.fields import (
    Conflict,
    Listed,
    MixingStrength,
    PhaseName,
    Rate,
    RegularizationFactor,
    Section,
    Settings,
    Text,
    expects,
    in_words,
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
from tl_toolkit.recipe.schedules import AUTO, SCHEDULES, LearningRate, Schedule
from tl_toolkit.recipe.task_types import Monitor
from tl_toolkit.recipe.tasks import name_scores
from tl_toolkit.recipe.tree import show
from tl_toolkit.recipe.unfreeze_schema import (
    Stage,
    UnfreezeFrom,
    UnfreezeGradual,
    UnfreezeOnly,
    suggest_unfreeze,
)

__all__ = [
    "PROBE",
    "EarlyStopping",
    "Phase",
    "PhaseSettings",
    "Teaching",
]


PROBE = "probe"
"""Name of the phase that solves the head."""


AUTO_RGN = "auto_rgn"
"""Stands for rates in proportion to relative gradient norms."""

_RATES = TypeAdapter(Mapping[Text, Annotated[float, Field(gt=0, strict=True)]])


def _as_rates(value: object) -> object:
    # Checked here: a union would name its members in the place of every problem.
    if isinstance(value, Mapping):
        return Settings(_RATES.validate_python(dict(value)))
    if value is None or value == AUTO_RGN:
        return value
    near = nearest(value, [AUTO_RGN]) if isinstance(value, str) else ""
    raise in_words(
        f"expected rates by name, or {AUTO_RGN}, got {show(value)}",
        hint=f"learning_rates: {near}" if near else "learning_rates: {head: 1e-3}",
    )


OwnRates = Annotated[
    Mapping[str, float] | Literal["auto_rgn"] | None,
    BeforeValidator(
        _as_rates,
        json_schema_input_type=Mapping[Text, Annotated[float, Field(gt=0)]]
        | Literal["auto_rgn"]
        | None,
    ),
    AfterValidator(lambda value: Settings(value) if isinstance(value, Mapping) else value),
    PlainSerializer(lambda value: dict(value) if isinstance(value, Mapping) else value),
]


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
        description="Learning rate, above 0; auto, for one that a test over rising rates finds "
        f"before the first step; or a schedule: a section with a kind ({', '.join(SCHEDULES)}).",
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
        | UnfreezeOnly
        | UnfreezeGradual
        | Annotated[tuple[Text, ...], Field(min_length=1), Listed],
        expects(
            "expected a number of blocks (0 or more), {from: UNIT}, {only: BLOCK}, {gradual: N}, "
            "or a list of block names",
            suggest_unfreeze,
        ),
    ] = Field(
        default=0,
        description="What of the base trains besides the head: a number of blocks counted from the "
        "output, {from: UNIT}, {only: BLOCK}, {gradual: N} for one block more after each epoch, or "
        "a list of block names.",
        examples=[2, {"from": "conv_dw_12"}, ["block4", "block5"], {"gradual": 3}],
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
    learning_rates: OwnRates = Field(
        default=None,
        description="Rates of blocks or units that train, and of head, by name; all others have "
        "learning_rate. Where that is a schedule, they follow it at the same ratio to its own "
        "rate. A unit's rate counts before that of its block, and both before layer_decay. "
        "auto_rgn sets the rate of each unit in each epoch, in proportion to the norm of its "
        "gradient relative to that of its weights; the greatest has learning_rate (Auto-RGN: Lee "
        "et al., 2023).",
        examples=[{"block4": 1e-5, "head": 1e-3}],
    )
    l2_sp: L2SP | None = Field(
        default=None,
        description="Pulls the base towards the weights that the run began with, and the head "
        "towards 0, by two terms of the regularization loss; none by default.",
        examples=[{"base": 0.1, "head": 0.01}],
    )
    feature_noise: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        examples=[0.5],
        description="Add a random number to each channel of what leaves the frozen part, at most "
        "this fraction of the channel's range, in training only (FroFA: Bär et al., 2024). Stored "
        "features get new noise in each epoch.",
    )
    feature_mixup: MixingStrength | None = Field(
        default=None,
        examples=[0.2],
        description="Blend what leaves the frozen part for an image with that for another of its "
        "batch, and the losses of both targets likewise (manifold MixUp: Verma et al., 2019), by "
        "shares of Beta(feature_mixup, feature_mixup); for tasks with one output per image.",
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

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Its parts: one, or with `unfreeze: {gradual: N}` N of them."""
        unfreeze = self.unfreeze
        if not isinstance(unfreeze, UnfreezeGradual):
            return (Stage(self.name, unfreeze, 0, self.epochs),)
        count, every = unfreeze.gradual, unfreeze.every
        firsts = [min(index * every, self.epochs) for index in range(count)]
        return tuple(
            Stage(f"{self.name}-{index + 1}", index + 1, first, end - first)
            for index, (first, end) in enumerate(pairwise([*firsts, self.epochs]))
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
        pad_color: Grey level or RGB of the padding with "pad"; None for its default.
    """

    model: Path
    places: tuple[int, ...]
    image_size: tuple[int, int]
    resize: Literal["stretch", "crop", "pad"]
    temperature: float
    weight: float
    pad_color: int | tuple[int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class PhaseSettings:
    """The settings of a phase, or of a part of one that unfreezes block by block, in plain values.

    Fields of equal names hold those of `Phase`.

    Attributes:
        name: Unique among the phases.
        epochs: Passes over the training images, 0 or more.
        optimizer: Builds itself, fresh at the start of the phase.
        learning_rate: A number, auto, or a schedule.
        units: Names of the base's units that train besides the head, input to output.
        batch_norm: frozen or train: whether BatchNormalization in them trains.
        batch_norm_momentum: Momentum of its moving statistics; None for each layer's own.
        layer_decay: Factor of the rate from one unit to the one before it.
        learning_rates: Rates of blocks, of units, and of head, by name; auto_rgn; None for no own
            ones.
        section: Name of the recipe's phase; "" for its own name.
        first_epoch: Epochs of the recipe's phase before this part of it.
        schedule_epochs: Epochs that a schedule runs over; None for its own.
        l2_sp: Factors of two terms of the regularization loss; None for neither.
        feature_noise: Largest noise of features, as a fraction of a channel's range; None for none.
        feature_mixup: Parameter of the shares by which features are blended; None for no blend.
        teaching: What the steps learn of a teacher; None for nothing. A recipe has it as `teacher`.
        solver: Solves the head in place of an epoch of steps: ridge, logistic or auto; None for
            steps. A recipe has it as `model.head.solver`.
    """

    name: str
    epochs: int
    optimizer: Optimizer
    learning_rate: float | Literal["auto"] | Schedule = 1e-3
    units: tuple[str, ...] = ()
    batch_norm: str = "frozen"
    batch_norm_momentum: float | None = None
    layer_decay: float = 1.0
    learning_rates: Mapping[str, float] | Literal["auto_rgn"] | None = None
    section: str = ""
    first_epoch: int = 0
    schedule_epochs: int | None = None
    l2_sp: L2SP | None = None
    feature_noise: float | None = None
    feature_mixup: float | None = None
    teaching: Teaching | None = None
    solver: str | None = None

    @classmethod
    def of(
        cls,
        phase: Phase,
        stage: Stage,
        units: tuple[str, ...],
        teaching: Teaching | None = None,
    ) -> Self:
        """Returns the settings of a part of a recipe's phase.

        Args:
            phase: The section.
            stage: One of its stages.
            units: The units that the stage's `unfreeze` resolves to.
            teaching: What its steps learn of the recipe's teacher.
        """
        names = {field.name for field in dataclasses.fields(cls)} & set(Phase.model_fields)
        settings = {name: getattr(phase, name) for name in sorted(names)}
        part = {name: getattr(stage, name) for name in ("name", "first_epoch", "epochs")}
        whole = None if stage.epochs == phase.epochs else phase.epochs
        return cls(
            **settings | part,
            units=units,
            section=phase.name,
            schedule_epochs=whole,
            teaching=teaching,
        )

    @classmethod
    def of_probe(cls, solver: str) -> Self:
        """Returns the phase that solves the head before the recipe's own phases.

        Args:
            solver: ridge, logistic or auto.
        """
        return cls(PROBE, 1, SGD(), solver=solver)

    @property
    def field(self) -> str:
        """The recipe's field that holds it."""
        return f"phases.{self.section or self.name}"

    @property
    def finds_rate(self) -> bool:
        """Whether its rate is found before the first step."""
        rate = self.learning_rate
        return rate.finds_rate if isinstance(rate, Schedule) else rate == AUTO

    def with_rate(self, rate: float) -> Self:
        """Returns the settings with a rate in place of auto.

        Args:
            rate: Above 0.
        """
        own = self.learning_rate
        found = own.with_rate(rate) if isinstance(own, Schedule) else rate
        return dataclasses.replace(self, learning_rate=found)

    @property
    def has_own_rates(self) -> bool:
        """Whether parts train at rates that differ from the phase's."""
        return self.layer_decay != 1 or bool(self.learning_rates)

    @property
    def weighs_gradients(self) -> bool:
        """Whether the rates of parts follow from their gradients, anew in each epoch."""
        return self.learning_rates == AUTO_RGN

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
