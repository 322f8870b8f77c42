"""Fields and values of a recipe as people read them in tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["describe_value", "find_differences", "shorten_fields"]


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


def find_differences(trees: Sequence[Any], field: str = "") -> dict[str, tuple[Any, ...]]:
    """Returns the dotted fields in which trees of values differ, with the value of each tree.

    Phases are told apart by their names, as overrides name them. A section of another kind differs
    as a whole, and so does a value that is a section in some trees only; a field that a tree lacks
    is None there.

    Args:
        trees: Mappings, as `list_values` returns them, or parts of these.
        field: The dotted field that the trees are the values of.
    """
    if all(map(_is_named_list, trees)):
        names = tuple([part["name"] for part in tree] for tree in trees)
        order = {field: names} if any(each != names[0] for each in names) else {}
        by_name = [{part["name"]: part for part in tree} for tree in trees]
        return order | _descend(by_name, field)
    if all(isinstance(tree, Mapping) for tree in trees) and _are_of_a_kind(trees):
        return _descend(trees, field)
    return {} if all(tree == trees[0] for tree in trees) else {field: tuple(trees)}


def _descend(trees: Sequence[Mapping[str, Any]], field: str) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for name in dict.fromkeys(name for tree in trees for name in tree):
        values = [tree.get(name) for tree in trees]
        found |= find_differences(values, f"{field}.{name}" if field else str(name))
    return found


def _is_named_list(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and bool(value)
    return is_list and all(isinstance(part, Mapping) and "name" in part for part in value)


def _are_of_a_kind(trees: Sequence[Mapping[str, Any]]) -> bool:
    return len({str(tree.get("kind")) for tree in trees}) == 1
