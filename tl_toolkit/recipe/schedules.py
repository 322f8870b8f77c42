"""Learning rates that change from step to step. A new kind is a class, and its name in SCHEDULES.

Keras is imported only where a schedule is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, SerializeAsAny, TypeAdapter

from tl_toolkit.recipe.kinds import KindSection, choose_kind, table_of

if TYPE_CHECKING:
    import numpy as np
    from keras.optimizers.schedules import LearningRateSchedule

__all__ = [
    "SCHEDULES",
    "ConstantSchedule",
    "CosineSchedule",
    "ExponentialSchedule",
    "LearningRate",
    "Schedule",
    "StepSchedule",
]


class Schedule(KindSection):
    """The base class of all schedules: the rate that they begin at, and a warm-up before it."""

    initial: float = Field(
        gt=0, description="Learning rate that the schedule begins at, above 0.", examples=[1e-3]
    )
    warmup_epochs: float = Field(
        default=0.0,
        ge=0,
        le=100_000,
        description="Epochs, or a fraction of one, over which the rate rises to it in equal steps.",
    )

    def decay(self, steps: int, *, steps_per_epoch: int) -> LearningRateSchedule:
        """Returns Keras's schedule for the steps after the warm-up.

        Args:
            steps: Number of these steps, at least 1.
            steps_per_epoch: Number of steps in an epoch.
        """
        raise NotImplementedError

    def rates(self, *, epochs: int, steps_per_epoch: int) -> np.ndarray:
        """Returns the rate of each step of a phase, and of the step after it.

        Args:
            epochs: Epochs of the phase.
            steps_per_epoch: Number of steps in an epoch, at least 1.

        Returns:
            float32 (epochs * steps_per_epoch + 1,).
        """
        import numpy as np

        total = epochs * steps_per_epoch
        warmup = min(total, round(self.warmup_epochs * steps_per_epoch))
        schedule = self.decay(max(1, total - warmup), steps_per_epoch=steps_per_epoch)
        # The rise does not begin at 0: the first step would learn nothing.
        rising = self.initial * np.arange(1, warmup + 1) / (warmup + 1)
        steps = np.arange(total - warmup + 1, dtype=np.float32)
        return np.concatenate([rising, np.asarray(schedule(steps))]).astype(np.float32)

    def describe(self) -> str:
        """Returns the schedule in a few words, for a table."""
        warmup = f", {self.warmup_epochs:g} warm-up" if self.warmup_epochs else ""
        return f"{self.kind} from {self.initial:g}{warmup}"


class CosineSchedule(Schedule):
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

        return schedules.CosineDecay(self.initial, steps, alpha=self.final_fraction)


class ExponentialSchedule(Schedule):
    """The rate shrinks by the same factor in each epoch, a little with each step."""

    kind: Literal["exponential"] = Field(default="exponential", description="exponential.")
    factor: float = Field(default=0.9, gt=0, le=1, description="Rate of an epoch later, as a part.")

    def decay(self, steps: int, *, steps_per_epoch: int) -> LearningRateSchedule:
        """Returns Keras's schedule for the steps after the warm-up.

        Args:
            steps: As in every schedule.
            steps_per_epoch: As in every schedule.
        """
        from keras.optimizers import schedules

        return schedules.ExponentialDecay(self.initial, steps_per_epoch, self.factor)


class StepSchedule(Schedule):
    """The rate stays for some epochs, then falls by a factor at once, and again."""

    kind: Literal["step"] = Field(default="step", description="step.")
    every: int = Field(
        ge=1, le=100_000, description="Epochs between two falls, 1 or more.", examples=[10]
    )
    factor: float = Field(default=0.1, gt=0, le=1, description="Rate after a fall, as a part.")

    def decay(self, steps: int, *, steps_per_epoch: int) -> LearningRateSchedule:
        """Returns Keras's schedule for the steps after the warm-up.

        Args:
            steps: As in every schedule.
            steps_per_epoch: As in every schedule.
        """
        from keras.optimizers import schedules

        return schedules.ExponentialDecay(
            self.initial, self.every * steps_per_epoch, self.factor, staircase=True
        )


class ConstantSchedule(Schedule):
    """The rate stays as it is once it has risen."""

    kind: Literal["constant"] = Field(default="constant", description="constant.")

    def decay(self, steps: int, *, steps_per_epoch: int) -> LearningRateSchedule:
        """Returns Keras's schedule for the steps after the warm-up.

        Args:
            steps: As in every schedule.
            steps_per_epoch: As in every schedule.
        """
        from keras.optimizers import schedules

        return schedules.ExponentialDecay(self.initial, steps, 1.0)


SCHEDULES = table_of([CosineSchedule, ExponentialSchedule, StepSchedule, ConstantSchedule])


_NUMBER = TypeAdapter(Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)])


def _as_rate(value: object) -> object:
    # Checked here: a union would name its members in the place of every problem.
    chosen = choose_kind(value, SCHEDULES, field="learning_rate")
    return chosen if isinstance(chosen, Schedule) else _NUMBER.validate_python(chosen)


_INPUT: Any = Union[Annotated[float, Field(gt=0)], *SCHEDULES.values()]  # noqa: UP007
LearningRate = Annotated[
    float | SerializeAsAny[Schedule], BeforeValidator(_as_rate, json_schema_input_type=_INPUT)
]
