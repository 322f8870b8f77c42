"""Values that recipes made in Python hold: numpy's as plain ones, hints for objects of others."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["TABLE_HINT", "suggest_value", "unwrap"]

TABLE_HINT = "write a table: df.to_csv('t.csv', index=False), data.csv=t.csv"
_SCHEDULES = {
    "ExponentialDecay": "ExponentialSchedule(initial={:g})",
    "PiecewiseConstantDecay": "StepSchedule(initial={:g}, every=10)",
}
"""Schedules of the recipe by those of Keras; for all others `_COSINE`."""

_COSINE = "CosineSchedule(initial={:g})"

_OPTIMIZERS = ("Adam", "AdamW", "SGD")


def unwrap(value: Any, *, levels: int = 20) -> Any:
    """Returns a value in which scalars and arrays of numpy are numbers and lists.

    Args:
        value: Of any type; lists, tuples and dicts are searched.
        levels: How deep they are searched: one may contain itself.
    """
    numpy = sys.modules.get("numpy")  # without it there is no such value
    if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
        return value.tolist()
    if type(value) in (list, tuple) and levels:
        return type(value)(unwrap(item, levels=levels - 1) for item in value)
    if isinstance(value, dict) and levels:
        return {key: unwrap(item, levels=levels - 1) for key, item in value.items()}
    return value


def suggest_value(value: object) -> str:
    """Returns what to write in place of an object of Keras or pandas, or "".

    Args:
        value: The object, or its class.
    """
    kind = value if isinstance(value, type) else type(value)
    if callable(getattr(value, "to_csv", None)):
        return TABLE_HINT
    bases = {base.__name__ for base in kind.__mro__ if base.__module__.startswith("keras.")}
    if "LearningRateSchedule" in bases:
        rate = getattr(value, "initial_learning_rate", None)
        rate = rate if isinstance(rate, float) else 1e-3
        return f"tl.recipe.{_SCHEDULES.get(kind.__name__, _COSINE).format(rate)}"
    if "Optimizer" in bases:
        return f"tl.recipe.{kind.__name__ if kind.__name__ in _OPTIMIZERS else 'Adam'}()"
    if "Layer" in bases:
        return "tl.finetune(recipe, base=model), for a model as the base"
    return ""
