"""The optimizer of a phase, always a fresh one, and the rates of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tl_toolkit.plan.training import PhaseSettings
from tl_toolkit.recipe.optimizers import Optimizer
from tl_toolkit.recipe.schedules import Schedule

__all__ = [
    "LearningRate",
    "RateTable",
    "build_optimizer",
    "describe_rate",
    "first_rate",
    "has_schedule",
    "lower_rate",
    "name_rate",
    "scale_rate",
    "tabulate_rate",
]


_USUAL_RATE = 1e-3
"""The default of a phase."""

LearningRate: TypeAlias = float | Literal["auto"] | Schedule


class _Settings(Protocol):
    """The settings that an optimizer is built from, as a phase has them."""

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer's settings."""

    @property
    def learning_rate(self) -> LearningRate:
        """Its rate."""


def build_optimizer(
    phase: _Settings, schedule: RateTable | None = None
) -> keras.optimizers.Optimizer:
    """Builds a phase's optimizer, with a fresh state and its own learning rate.

    Args:
        phase: Has the optimizer and its rate.
        schedule: Holds the rates of the steps, if the rate is a schedule.
    """
    rate = phase.learning_rate
    if isinstance(rate, Schedule):
        return phase.optimizer.build(schedule or RateTable())
    return phase.optimizer.build(first_rate(rate))


def has_schedule(rate: LearningRate) -> bool:
    """Returns whether a rate changes from step to step.

    Args:
        rate: The rate.
    """
    return isinstance(rate, Schedule)


def describe_rate(rate: LearningRate) -> float | str:
    """Returns a rate as a table shows it: the number, or a schedule in a few words.

    Args:
        rate: The rate.
    """
    return rate.describe() if isinstance(rate, Schedule) else rate


def tabulate_rate(phase: PhaseSettings, steps_per_epoch: int) -> float | np.ndarray:
    """Returns the number, or the rate of each step of a phase, and of the step after it.

    Args:
        phase: The phase, or a part of one: a schedule begins with the first part.
        steps_per_epoch: At least 1.
    """
    rate = phase.learning_rate
    if not isinstance(rate, Schedule):
        return first_rate(rate)
    if rate.finds_rate:
        rate = rate.with_rate(_USUAL_RATE)
    whole = phase.epochs if phase.schedule_epochs is None else phase.schedule_epochs
    rates = rate.rates(epochs=whole, steps_per_epoch=steps_per_epoch)
    first = phase.first_epoch
    return rates[first * steps_per_epoch : (first + phase.epochs) * steps_per_epoch + 1]


def first_rate(rate: LearningRate) -> float:
    """Returns the number, or a schedule's own rate; the default of a phase where none is found.

    Args:
        rate: The rate.
    """
    if isinstance(rate, Schedule):
        return _USUAL_RATE if rate.finds_rate else rate.own_rate
    return rate if isinstance(rate, float) else _USUAL_RATE


def name_rate(rate: LearningRate) -> str:
    """Returns the name of the phase's field that holds the first rate.

    Args:
        rate: The rate.
    """
    return f"learning_rate.{rate.rate_field}" if isinstance(rate, Schedule) else "learning_rate"


def scale_rate(rate: LearningRate, results: Sequence[float]) -> float:
    """Returns what the rates of the next epoch are multiplied by.

    Args:
        rate: The rate of the phase.
        results: The monitored result of each epoch so far; greater is better.
    """
    return rate.scale(results) if isinstance(rate, Schedule) else 1.0


def lower_rate(rate: LearningRate) -> float:
    """Returns a rate to try after one at which the loss was not finite.

    Args:
        rate: That rate.
    """
    first = first_rate(rate)
    return first / 10 if first <= 1 else _USUAL_RATE


class RateTable(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of each step, in a variable, so that compiled steps serve every schedule.

    The steps are compiled before the images, and so the number of steps, are counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._unscaled = np.zeros(1, np.float32)
        self._rates = tf.Variable([0.0], shape=tf.TensorShape([None]), trainable=False)

    def set(self, rates: np.ndarray) -> None:
        """Sets the rates of the coming steps.

        Args:
            rates: float32 (n,), at least one; steps after them have the last one's.
        """
        self._unscaled = rates
        self._rates.assign(rates)

    def scale(self, factor: float) -> None:
        """Multiplies the rates as they were set.

        Args:
            factor: Of all of them.
        """
        self._rates.assign(self._unscaled * np.float32(factor))

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the rate of a step, counted from 0."""
        index = tf.cast(keras.ops.convert_to_tensor(step), tf.int32)
        return tf.gather(self._rates, tf.minimum(index, tf.size(self._rates) - 1))

    def get_config(self) -> dict[str, Any]:
        """Returns an empty configuration: the recipe holds the schedule."""
        return {}
