"""Axes: from values to pixels, and where the ticks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "fit_scale", "write_number"]

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MANY_POWERS = 5


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: The value at its start.
        high: The value at its end, above `low`.
        start: Pixel of its start.
        end: Pixel of its end.
        is_log: Whether it is logarithmic; both values are above 0 then.
        ticks: Values that are named.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool
    ticks: Sequence[float]

    def place(self, value: float) -> float:
        """Returns the pixel of a value, to a tenth.

        Args:
            value: In the range of the axis, above 0 on a logarithmic one.
        """
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)


def fit_scale(
    values: Sequence[float],
    pixels: tuple[float, float],
    *,
    limits: tuple[float, float] | None = None,
    is_log: bool = False,
    most_ticks: int = 5,
) -> Scale:
    """Returns an axis that holds all values.

    Args:
        values: Finite values.
        pixels: Where the axis starts and ends.
        limits: Its first and last value; by default those of the values, rounded outwards.
        is_log: Make it logarithmic; left out where a value is not above 0.
        most_ticks: About how many ticks it has.
    """
    low, high = limits or (min(values, default=0.0), max(values, default=1.0))
    if is_log and low > 0 and high / low > 1.001:
        return Scale(low, high, *pixels, True, _list_powers(low, high))
    if high - low < 1e-12 * max(abs(low), abs(high), 1.0):
        margin = abs(low) / 10 or 0.5
        low, high = low - margin, high + margin
    step = _choose_step((high - low) / most_ticks)
    if limits is None:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    count = math.floor((high - first * step) / step + 1e-9) + 1
    return Scale(low, high, *pixels, False, [(first + index) * step for index in range(count)])


def _choose_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in _STEPS if factor * power >= least * (1 - 1e-9))


def _list_powers(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1.0, 2.0, 5.0) if len(powers) <= 3 else (1.0,)
    every = -(-len(powers) // _MANY_POWERS)
    ticks = [factor * 10.0**power for power in powers[::every] for factor in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def write_number(value: float) -> str:
    """Returns a value as an axis names it.

    Args:
        value: A tick.
    """
    if value == 0 or 0.001 <= abs(value) < 100_000:
        text = f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
        return text.replace("-", "−")
    mantissa, _, power = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(power)}".replace("-", "−")
