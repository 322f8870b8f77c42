"""Changes to a recipe from the command line or from Python: `a.b=value` and `~a.b`."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tl_toolkit.errors import Problem, RecipeError, closest
from tl_toolkit.recipe.python_values import unwrap
from tl_toolkit.recipe.tree import MAX_DEPTH, FieldPath, Node, build_tree, format_path, show
from tl_toolkit.recipe.yaml_reader import read_yaml

__all__ = ["Overrides", "apply_overrides"]

Overrides = Sequence[str] | Mapping[str, Any]

_FORM = "expected KEY=VALUE, as in phases.head.epochs=3, or ~KEY to remove a field."
_HINT = "data.batch_size=16"
_OF_DIMENSION = ("choices", "min", "max", "step")
_DIMENSION = "{min: 0, max: 0.5}"
_WORD_FIELDS = {"task": "kind", "teacher": "run"}
"""Sections that may be written as a word, and the field that has the word as its value."""


@dataclass(frozen=True)
class _Override:
    """A field, dotted as it was typed, and its new value; None removes the field."""

    field: str
    value: Node | None
    where: str


def apply_overrides(tree: Node, overrides: Overrides) -> list[Problem]:
    """Applies overrides to the tree, one after the other, and returns their problems.

    A field that no section has is added too: the schema refuses it, and names the nearest field.

    Args:
        tree: The recipe, a mapping.
        overrides: Texts `a.b=value` (a YAML 1.2 value) and `~a.b`, or a mapping of dotted fields to
            values (`{"~a.b": None}` removes). A phase is named by its number or its name.
    """
    items = _as_items(overrides)
    problems, items = _refuse_spaces(items)
    for source in items:
        try:
            override = _read_override(source)
            path = _split(override)
            if override.value is None:
                _remove(tree, path, override)
            else:
                _assign(tree, path, override, override.value)
        except RecipeError as error:
            problems.extend(error.problems)
    return problems


def _as_items(overrides: Overrides) -> list[Any]:
    if isinstance(overrides, Mapping):
        return list(overrides.items())
    return [overrides] if isinstance(overrides, str) else list(overrides)


def _refuse_spaces(items: list[Any]) -> tuple[list[Problem], list[Any]]:
    """Returns a problem for each KEY = VALUE that a shell has split, and the other overrides."""
    problems: list[Problem] = []
    others: list[Any] = []
    rest = list(items)
    while rest:
        size = _count_split(rest)
        if size == 1:
            others.append(rest.pop(0))
            continue
        words, rest = rest[:size], rest[size:]
        what = "has spaces around =" if any("=" in word for word in words) else "holds no ="
        hint = "".join(words).replace(":", "=", 1) if what == "holds no =" else "".join(words)
        problems.append(Problem(f"override {' '.join(words)}", what, _FORM, hint))
    return problems, others


def _count_split(words: Sequence[Any]) -> int:
    """Returns how many of the first words are one override that has spaces around its =."""
    first, second, third = (*words[:3], None, None, None)[:3]
    if not isinstance(first, str) or not isinstance(second, str) or first.startswith("~"):
        return 1
    if "=" not in first and second.startswith("="):
        return 3 if second == "=" and isinstance(third, str) and "=" not in third else 2
    is_open = first.endswith("=") and first.count("=") == 1
    is_open |= first.endswith(":") and "=" not in first
    return 2 if is_open and "=" not in second and not second.startswith("~") else 1


def _read_override(source: str | tuple[str, Any]) -> _Override:
    if not isinstance(source, str):
        return _read_item(*source)
    where = f"override {source}"
    if source.startswith("~"):
        return _Override(source[1:].strip(), None, where)
    field, equals, text = source.partition("=")
    if not equals:
        key, colon, value = source.partition(":")
        is_pair = colon and re.fullmatch(r"[\w.\[\]-]+", key) and value.strip()
        hint = shlex.quote(f"{key}={value.strip()}") if is_pair else _HINT
        raise RecipeError(Problem(where, "holds no =", _FORM, hint))
    return _Override(field.strip(), read_yaml(text, lambda line, column: where), where)


def _read_item(field: object, value: Any) -> _Override:
    value = unwrap(value)
    where = f"override {field}={show(value)}"
    if not isinstance(field, str):
        raise RecipeError(
            Problem(where, f"key {show(field)}", "expected keys that are text.", _HINT)
        )
    if not field.startswith("~"):
        return _Override(field.strip(), build_tree(value, where, (field.strip(),)), where)
    if value is not None:
        raise RecipeError(Problem(where, f"{field} = {show(value)}", "expected None after ~KEY."))
    return _Override(field[1:].strip(), None, f"override {field}")


def _split(override: _Override) -> list[str]:
    # Problems print phases[1].unfreeze, so this form is accepted too.
    field = re.sub(r"\[(\d+)\]", r".\1", override.field)
    # The keys of the baseline and of a search space are dotted fields themselves.
    depths = {"baseline.": 1, "search.space.": 2}
    depth = next((depth for start, depth in depths.items() if field.startswith(start)), -1)
    parts = field.split(".", maxsplit=depth)
    if depth == 2 and (end := parts[-1].rpartition("."))[0] and end[2] in _OF_DIMENSION:
        what = f"names {end[2]!r} of a dimension"
        expected = "expected the whole dimension: fields in search.space hold dots themselves."
        hint = f"search.space.{end[0]}={_DIMENSION}"
        raise RecipeError(Problem(override.where, what, expected, shlex.quote(hint)))
    if not all(parts) or len(parts) > MAX_DEPTH:
        raise RecipeError(Problem(override.where, f"field {show(override.field)}", _FORM, _HINT))
    return parts


def _assign(tree: Node, parts: list[str], override: _Override, value: Node) -> None:
    node: Node = tree
    path: FieldPath = ()
    for part, after in pairwise(parts):
        missing = Node([] if after.isdecimal() else {}, override.where)
        is_new = isinstance(node.value, list) and part == str(len(node.value))
        if is_new and _list_names(node) and after != "name":  # a phase of one field is none
            raise _describe_no_entry(node, part, path, override, may_grow=True)
        node, path = _enter(node, part, path, override, missing)
    _enter(node, parts[-1], path, override, value, replace=True)


def _enter(
    node: Node,
    part: str,
    path: FieldPath,
    override: _Override,
    value: Node,
    *,
    replace: bool = False,
) -> tuple[Node, FieldPath]:
    """Returns the child and its path; `value` takes its place if it is missing or replaced."""
    if not isinstance(node.value, dict | list):
        _open_section(node, part, path, override)
    if isinstance(node.value, dict):
        if replace or part not in node.value:
            node.value[part] = value
            node.removed.pop(part, None)
        return node.value[part], (*path, part)
    index = _find_index(node, part, path, override, end=len(node.value) + 1)
    if index == len(node.value):
        node.value.append(value)
    elif replace:
        node.value[index] = value
    return node.value[index], (*path, index)


def _open_section(node: Node, part: str, path: FieldPath, override: _Override) -> None:
    """Replaces a missing value, or a short form such as `export: true`, by a section."""
    field = _WORD_FIELDS.get(format_path(path))
    word = Node(node.value, node.where)
    node.value, node.where = ([] if part.isdecimal() else {}), override.where
    if field and isinstance(word.value, str) and isinstance(node.value, dict):
        node.value[field] = word


def _remove(tree: Node, parts: list[str], override: _Override) -> None:
    node = tree
    path: FieldPath = ()
    for part in parts[:-1]:
        path = (*path, _find_name(node, part, path, override))
        node = tree.find(path) or node
    name = _find_name(node, parts[-1], path, override)
    del node.value[name]
    if isinstance(name, str):
        node.removed[name] = override.where


def _find_name(node: Node, part: str, path: FieldPath, override: _Override) -> str | int:
    """Returns the name or index of an existing child."""
    if isinstance(node.value, list):
        return _find_index(node, part, path, override, end=len(node.value))
    names = list(node.value) if isinstance(node.value, dict) else []
    if part in names:
        return part
    expected = f"expected a field that is there ({', '.join(names) or 'there is none'})."
    expected = f"{expected} {closest(part, names)}".rstrip()
    what = f"{format_path((*path, part))} is not in the recipe"
    raise RecipeError(Problem(override.where, what, expected))


def _find_index(node: Node, part: str, path: FieldPath, override: _Override, *, end: int) -> int:
    """Returns the index meant by a number below `end` or by the name of a phase."""
    if part.isdecimal() and len(part) < 6 and int(part) < end:
        return int(part)
    names = _list_names(node)
    if part in names:
        return names.index(part)
    raise _describe_no_entry(node, part, path, override, may_grow=end > len(node.value))


def _list_names(node: Node) -> list[str]:
    return [str(child.value) for item in node.value if (child := item.child("name"))]


def _describe_no_entry(
    node: Node, part: str, path: FieldPath, override: _Override, *, may_grow: bool
) -> RecipeError:
    """Returns the error for an entry of a list that is not there."""
    names, count, field = _list_names(node), len(node.value), format_path(path)
    what = f"{field} has no entry {part!r}; {closest(part, names)}".rstrip("; ")
    known = [*names, *([f"a number from 0 to {count - 1}"] if count else [])]
    expected = f"expected {' or '.join(filter(None, (', '.join(known[:-1]), *known[-1:])))}"
    if may_grow:
        form = "{name: ..., epochs: ...}" if names else "..."
        expected = f"{expected}; {field}.{count}={form} adds one" if known else (
            f"expected {field}.0={form}, which adds one"
        )  # fmt: skip
    return RecipeError(Problem(override.where, what, f"{expected}."))
