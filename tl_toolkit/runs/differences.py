"""Which values of two nested structures differ."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["find_differences", "flatten"]


def flatten(values: Any, name: str = "") -> dict[str, str]:
    """Returns the leaves of nested values by dotted name, as text.

    Args:
        values: Values as JSON has them. Lists without sections are leaves.
        name: What stands before the names.
    """
    if isinstance(values, dict) and values:
        leaves: dict[str, str] = {}
        for key, value in values.items():
            leaves |= flatten(value, f"{name}.{key}" if name else str(key))
        return leaves
    if isinstance(values, list) and any(isinstance(item, dict) for item in values):
        return flatten({str(index): item for index, item in enumerate(values)}, name)
    return {name: json.dumps(values, sort_keys=True)}


def find_differences(before: Any, now: Any) -> dict[str, tuple[str | None, str | None]]:
    """Returns the leaves that differ by dotted name, as text before and now; None for none.

    Args:
        before: Nested values.
        now: Others.
    """
    old, new = flatten(before), flatten(now)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return {name: (old.get(name), new.get(name)) for name in names}
