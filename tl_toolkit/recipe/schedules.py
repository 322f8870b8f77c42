"""Learning rates that change from step to step. A new kind is a class, and its name in SCHEDULES.

Keras is imported only where a schedule is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union

from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter

from tl_toolkit.errors import nearest
from tl_toolkit.recipe.fields import Conflict, expects, in_words
from tl_toolkit.recipe.kinds import KindSection, choose_kind, table_of

if TYPE_CHECKING:
    import numpy as np
    from keras.optimizers.schedules import LearningRateSchedule

__all__ = [
    "SCHEDULES",
    "ConstantSchedule",
    "CosineSchedule",
    "DecaySchedule",
    "ExponentialSchedule",
    "LearningRate",
    "OneCycleSchedule",
    "PlateauSchedule",
    "Schedule",
    "StepSchedule",
]


AUTO = "auto"
"""Stands for a rate that is found before the first step of a phase."""

OwnRate = Annotated[
    Annotated[float, Field(gt=0)] | Literal["auto"], expects("expected a number above 0, or auto")
]


class Schedule(KindSection):
    """The base class of all schedules."""

    rate_field: ClassVar[str] = "initial"
    """The field that holds the schedule's own rate."""

    @property
    def own_rate(self) -> float:
        """The schedule's own rate: the one that it begins at after its warm-up, or its peak.

        Raises:
            ValueError: It is `auto`, and not found yet.
        """
        return float(getattr(self, self.rate_field))

    @property
    def finds_rate(self) -> bool:
        """Whether its own rate is found before the first step."""
        return bool(getattr(self, self.rate_field) == AUTO)

    def with_rate(self, rate: float) -> Self:
        """Returns the schedule with another rate of its own.

        Args:
            rate: Above 0.
        """
        return self.model_copy(update={self.rate_field: rate})

    def lengthen(self, factor: float) -> Self:
        """Returns the schedule for as many steps in more epochs of fewer images.

        Args:
            factor: How many times as many epochs, 1 or more.
        """
        return self

    def rates(self, *, epochs: int, steps_per_epoch: int) -> np.ndarray:
        """Returns the rate of each step of a phase, and of the step after it.

        Args:
            epochs: Epochs of the phase.
            steps_per_epoch: Number of steps in an epoch, at least 1.

        Returns:
            float32 (epochs * steps_per_epoch + 1,).
        """
        raise NotImplementedError

    def scale(self, results: Sequence[float]) -> float:
        """Returns what the rates of the next epoch are multiplied by.

        Args:
            results: The monitored result of each epoch so far; greater is better.
        """
        return 1.0

    def describe(self) -> str:
        """Returns the schedule in a few words, for a table."""
        return f"{self.kind} from {self._write_rate()}"

    def _write_rate(self) -> str:
        return AUTO if self.finds_rate else f"{self.own_rate:g}"


class DecaySchedule(Schedule):
    """The base class of schedules that begin at a rate, perhaps after a warm-up."""

    initial: OwnRate = Field(
        description="Learning rate that the schedule begins at, above 0; or auto.", examples=[1e-3]
    )
    warmup_epochs: float = Field(
        default=0.0,
        ge=0,
        le=100_000,
        description="Epochs, or a fraction of one, over which the rate rises to it in equal steps.",
    )

    def lengthen(self, factor: float) -> Self:
        """Returns the schedule with a longer warm-up, in epochs.

        Args:
            factor: As in every schedule.
        """
        return self.model_copy(update={"warmup_epochs": self.warmup_epochs * factor})

    def decay(self, steps: int, *, steps_per_epoch: int) -> LearningRateSchedule:
        """Returns Keras's schedule for the steps after the warm-up.

        Args:
            steps: Number of these steps, at least 1.
            steps_per_epoch: Number of steps in an epoch.

        Returns:
            By default one in which the rate stays as it is.
        """
        from keras.optimizers import schedules

        return schedules.ExponentialDecay(self.own_rate, steps, 1.0)

    def rates(self, *, epochs: int, steps_per_epoch: int) -> np.ndarray:
        """Returns the rate of each step of a phase, and of the step after it.

        Args:
            epochs: As in every schedule.
            steps_per_epoch: As in every schedule.
        """
        import numpy as np

        total = epochs * steps_per_epoch
        warmup = min(total, round(self.warmup_epochs * steps_per_epoch))
        schedule = self.decay(max(1, total - warmup), steps_per_epoch=steps_per_epoch)
        # The rise does not begin at 0: the first step would learn nothing.
        rising = self.own_rate * np.arange(1, warmup + 1) / (warmup + 1)
        steps = np.arange(total - warmup + 1, dtype=np.float32)
        return np.concatenate([rising, np.asarray(schedule(steps))]).astype(np.float32)

    def describe(self) -> str:
        """Returns the schedule in a few words, for a table."""
        warmup = f", {self.warmup_epochs:g} warm-up" if self.warmup_epochs else ""
        return f"{super().describe()}{warmup}"


class CosineSchedule(DecaySchedule):
    """Half a cosine from the initial rate to the final one (Loshchilov and Hutter, 2017)."""

    kind: Literal["cosine"] = Field(default="cosine", description="cosine.")
    final_fraction: float = Field(
        default=0.0, ge=0, le=1, description="Rate at the end of the phase, as part of the initial."
    )

    def decay(self, steps: int, *, steps_per_epoch: int) -> LearningRateSchedule:
        """Returns Keras's schedule for the steps after the warm-up.

        Args:
            steps: As in every schedule.
            steps_per_epoch: As in every schedule.
        """
        from keras.optimizers import schedules

        return schedules.CosineDecay(self.own_rate, steps, alpha=self.final_fraction)


class ExponentialSchedule(DecaySchedule):
    """The rate shrinks by the same factor in each epoch, a little with each step."""

    kind: Literal["exponential"] = Field(default="exponential", description="exponential.")
    factor: float = Field(default=0.9, gt=0, le=1, description="Rate of an epoch later, as a part.")

    def lengthen(self, factor: float) -> Self:
        """Returns the schedule whose rate shrinks less in each of the shorter epochs.

        Args:
            factor: As in every schedule.
        """
        part = self.factor ** (1 / factor)
        return super().lengthen(factor).model_copy(update={"factor": part})

    def decay(self, steps: int, *, steps_per_epoch: int) -> LearningRateSchedule:
        """Returns Keras's schedule for the steps after the warm-up.

        Args:
            steps: As in every schedule.
            steps_per_epoch: As in every schedule.
        """
        from keras.optimizers import schedules

        return schedules.ExponentialDecay(self.own_rate, steps_per_epoch, self.factor)


class StepSchedule(DecaySchedule):
    """The rate stays for some epochs, then falls by a factor at once, and again."""

    kind: Literal["step"] = Field(default="step", description="step.")
    every: int = Field(
        ge=1, le=100_000, description="Epochs between two falls, 1 or more.", examples=[10]
    )
    factor: float = Field(default=0.1, gt=0, le=1, description="Rate after a fall, as a part.")

    def lengthen(self, factor: float) -> Self:
        """Returns the schedule with more epochs between two falls.

        Args:
            factor: As in every schedule.
        """
        return super().lengthen(factor).model_copy(update={"every": round(self.every * factor)})

    def decay(self, steps: int, *, steps_per_epoch: int) -> LearningRateSchedule:
        """Returns Keras's schedule for the steps after the warm-up.

        Args:
            steps: As in every schedule.
            steps_per_epoch: As in every schedule.
        """
        from keras.optimizers import schedules

        return schedules.ExponentialDecay(
            self.own_rate, self.every * steps_per_epoch, self.factor, staircase=True
        )


class ConstantSchedule(DecaySchedule):
    """The rate stays as it is once it has risen."""

    kind: Literal["constant"] = Field(default="constant", description="constant.")


class PlateauSchedule(DecaySchedule):
    """The rate stays, and falls by a factor each time when epochs no longer bring a better result.

    What is better, early_stopping.monitor decides, or without it the score of the task; epochs
    count as in Keras's ReduceLROnPlateau without a cooldown.
    """

    kind: Literal["plateau"] = Field(default="plateau", description="plateau.")
    factor: float = Field(default=0.1, gt=0, lt=1, description="Rate after a fall, as a part.")
    patience: int = Field(
        default=3,
        ge=1,
        description="Epochs in a row without a better result before the rate falls.",
    )
    min_delta: float = Field(
        default=0.0, ge=0, description="A change up to this size does not count as better."
    )
    minimum: float = Field(default=0.0, ge=0, description="Rate below which it does not fall.")

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields a conflict for a minimum above the rate.

        Args:
            values: As in `Section.find_conflicts`.
        """
        initial, minimum = values.get("initial"), values.get("minimum")
        if isinstance(initial, int | float) and isinstance(minimum, int | float):
            if minimum > initial:
                expected = f"expected at most initial, which is {initial!r}, got {minimum!r}"
                yield Conflict(("minimum",), expected)

    def lengthen(self, factor: float) -> Self:
        """Returns the schedule with more epochs before a fall.

        Args:
            factor: As in every schedule.
        """
        patience = round(self.patience * factor)
        return super().lengthen(factor).model_copy(update={"patience": patience})

    def scale(self, results: Sequence[float]) -> float:
        """Returns what the rates of the next epoch are multiplied by.

        It follows from the results alone, which a paused phase holds: nothing else must be kept.

        Args:
            results: As in every schedule.
        """
        best, waited, falls = float("-inf"), 0, 0
        for result in results:
            if result > best + self.min_delta:
                best, waited = result, 0
                continue
            waited += 1
            if waited >= self.patience:
                falls, waited = falls + 1, 0
        # A rate that was found may lie below the minimum, and stays.
        return max(self.factor**falls, min(1.0, self.minimum / self.own_rate))


class OneCycleSchedule(Schedule):
    """The rate rises to a peak in equal steps, then falls along half a cosine (Smith, 2018).

    Momentum stays as it is; in the paper it falls while the rate rises.
    """

    rate_field: ClassVar[str] = "peak"

    kind: Literal["one_cycle"] = Field(default="one_cycle", description="one_cycle.")
    peak: OwnRate = Field(description="Highest learning rate, above 0; or auto.", examples=[1e-2])
    rise: float = Field(
        default=0.3, gt=0, lt=1, description="Part of the phase over which the rate rises."
    )
    initial_fraction: float = Field(
        default=0.04, gt=0, le=1, description="Rate of the first step, as part of the peak."
    )
    final_fraction: float = Field(
        default=0.0, ge=0, le=1, description="Rate at the end of the phase, as part of the peak."
    )

    def rates(self, *, epochs: int, steps_per_epoch: int) -> np.ndarray:
        """Returns the rate of each step of a phase, and of the step after it.

        Args:
            epochs: As in every schedule.
            steps_per_epoch: As in every schedule.
        """
        import numpy as np
        from keras.optimizers import schedules

        total = epochs * steps_per_epoch
        rise = min(max(1, round(self.rise * total)), max(1, total - 1))
        # Keras's own warm-up takes one step at a time, no vector.
        rising = np.linspace(self.initial_fraction, 1, rise, endpoint=False) * self.own_rate
        falling = schedules.CosineDecay(
            self.own_rate, max(1, total - rise), alpha=self.final_fraction
        )
        steps = np.arange(max(1, total - rise + 1), dtype=np.float32)
        rates = np.concatenate([rising, np.asarray(falling(steps))])
        return rates[: total + 1].astype(np.float32)

    def describe(self) -> str:
        """Returns the schedule in a few words, for a table."""
        return f"one_cycle to {self._write_rate()}"


SCHEDULES = table_of(
    [
        CosineSchedule,
        ExponentialSchedule,
        StepSchedule,
        ConstantSchedule,
        OneCycleSchedule,
        PlateauSchedule,
    ]
)


_NUMBER = TypeAdapter(Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)])


def _as_rate(value: object) -> object:
    # Checked here: a union would name its members in the place of every problem.
    chosen = choose_kind(value, SCHEDULES, field="learning_rate")
    if isinstance(chosen, Schedule) or chosen == AUTO:
        return chosen
    if isinstance(chosen, str) and (near := nearest(chosen, [AUTO])):
        expected = f"expected a number above 0, {AUTO}, or a schedule, got {chosen!r}"
        raise in_words(expected, hint=f"learning_rate: {near}")
    return _NUMBER.validate_python(chosen)


_INPUT: Any = Union[  # noqa: UP007
    Annotated[float, Field(gt=0)], Literal["auto"], *SCHEDULES.values()
]
LearningRate = Annotated[
    float | Literal["auto"] | SerializeAsAny[Schedule],
    BeforeValidator(_as_rate, json_schema_input_type=_INPUT),
]
