"""Fields and values of a recipe as people read them in tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["describe_value", "shorten_fields"]


def describe_value(value: Any) -> str:
    """Returns a value in words: `from conv_dw_12` for {from: conv_dw_12}, and no long fractions.

    Args:
        value: Any value of a recipe.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {describe_value(part)}" for key, part in value.items()) or "{}"
    if isinstance(value, list | tuple):
        return ", ".join(map(describe_value, value)) or "[]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shorten_fields(fields: Sequence[str]) -> list[str]:
    """Returns the ends of dotted fields, as short as they still differ from each other.

    Args:
        fields: As `phases.tune.learning_rate`.
    """
    return [_shorten(field, [other for other in fields if other != field]) for field in fields]


def _shorten(field: str, others: Sequence[str]) -> str:
    parts = field.split(".")
    for count in range(1, len(parts)):
        if not any(other.split(".")[-count:] == parts[-count:] for other in others):
            return ".".join(parts[-count:])
    return field
