"""Optimizers, which build themselves. A new one is a class, and its name in OPTIMIZERS.

Keras is imported only where an optimizer is built.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, SerializeAsAny

from tl_toolkit.recipe.kinds import KindSection, choose_kind, table_of

if TYPE_CHECKING:
    import keras

__all__ = [
    "DEFAULT_OPTIMIZER",
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "OptimizerField",
    "find_misplaced",
    "move_into_optimizer",
]


class Optimizer(KindSection):
    """The base class of all optimizers."""

    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="Gradients of a step whose norm, over all weights together, is greater are "
        "scaled down to it, above 0; by default they are not (Pascanu et al., 2013).",
        examples=[1.0],
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        le=100_000,
        description="Batches whose gradients are averaged before the weights change, as for a "
        "batch so many times as large. A rest at the end of an epoch goes into the next one; what "
        "is left at the end of the phase changes nothing.",
        examples=[4],
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Momentum of an exponential moving average of the weights that train, above 0 "
        "and below 1: after each step, ema of the average so far and the rest of the weights. The "
        "averages are validated and kept, the steps go on from the weights. None by default.",
        examples=[0.99],
    )

    def build(
        self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
    ) -> keras.optimizers.Optimizer:
        """Returns a fresh optimizer.

        Args:
            learning_rate: A number, or a schedule of Keras.
        """
        raise NotImplementedError

    @property
    def shared_arguments(self) -> dict[str, Any]:
        """What every optimizer of Keras takes for the settings that all have."""
        steps = self.accumulate if self.accumulate > 1 else None
        return {"global_clipnorm": self.clip_norm, "gradient_accumulation_steps": steps}

    @property
    def key(self) -> Hashable:
        """The settings that compiled steps depend on: the kind and all others."""
        return tuple(self.model_dump().items())


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015)."""

    kind: Literal["adam"] = Field(default="adam", description="adam.")

    def build(
        self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
    ) -> keras.optimizers.Optimizer:
        """Returns a fresh optimizer.

        Args:
            learning_rate: A number, or a schedule of Keras.
        """
        import keras

        return keras.optimizers.Adam(learning_rate, **self.shared_arguments)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    kind: Literal["adamw"] = Field(default="adamw", description="adamw.")
    weight_decay: float = Field(
        default=0.004, ge=0, description="Part of each weight lost in a step, times the rate."
    )

    def build(
        self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
    ) -> keras.optimizers.Optimizer:
        """Returns a fresh optimizer.

        Args:
            learning_rate: A number, or a schedule of Keras.
        """
        import keras

        return keras.optimizers.AdamW(
            learning_rate, weight_decay=self.weight_decay, **self.shared_arguments
        )


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if it is above 0."""

    kind: Literal["sgd"] = Field(default="sgd", description="sgd.")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Momentum, 0 to below 1.")

    def build(
        self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule
    ) -> keras.optimizers.Optimizer:
        """Returns a fresh optimizer.

        Args:
            learning_rate: A number, or a schedule of Keras.
        """
        import keras

        return keras.optimizers.SGD(learning_rate, momentum=self.momentum, **self.shared_arguments)


OPTIMIZERS = table_of([Adam, AdamW, SGD])
DEFAULT_OPTIMIZER: Optimizer = Adam()

_INPUT: Any = Union[Literal[tuple(OPTIMIZERS)], *OPTIMIZERS.values()]  # noqa: UP007
OptimizerField = Annotated[
    SerializeAsAny[Optimizer],
    BeforeValidator(
        lambda value: choose_kind(value, OPTIMIZERS, field="optimizer", takes_word=True),
        json_schema_input_type=_INPUT,
    ),
]

_SHORT_FORMS = {"momentum": "sgd", "weight_decay": "adamw"}
"""Settings that a phase may have beside `optimizer: WORD`, and the optimizer of each."""


def move_into_optimizer(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Moves settings beside a phase's optimizer into the optimizer's section.

    They replace settings of the section, as in an override of a resolved recipe. A setting that
    does not fit stays where it is, for the checks of its own field.

    Args:
        values: The fields of a phase, before validation.
    """
    optimizer = values.get("optimizer", "adam")
    section = optimizer.model_dump() if isinstance(optimizer, Optimizer) else optimizer
    section = {"kind": section} if isinstance(section, str) else section
    if not isinstance(section, Mapping):
        return values
    moved: dict[str, Any] = {}
    rest = dict(values)
    for name, kind in _SHORT_FORMS.items():
        value = values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        is_valid = 0 <= value and (name != "momentum" or value < 1)
        if value == 0 or (is_valid and section.get("kind") == kind):
            rest[name] = None
            moved |= {name: value} if section.get("kind") == kind else {}
    return {**rest, "optimizer": {**section, **moved}} if moved else rest


def find_misplaced(values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns settings beside an optimizer that does not have them, as (field, owner, optimizer).

    Args:
        values: The result of `move_into_optimizer`.
    """
    optimizer = values.get("optimizer", "adam")
    kind = optimizer.get("kind") if isinstance(optimizer, Mapping) else optimizer
    kind = getattr(kind, "kind", kind)
    return [
        (name, owner, str(kind))
        for name, owner in _SHORT_FORMS.items()
        if values.get(name) not in (None, 0) and kind != owner
    ]
