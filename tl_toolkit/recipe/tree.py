"""A recipe as it was written: a tree of values with their places."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

from pydantic import BaseModel

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.recipe.python_values import suggest_value, unwrap

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_NODES",
    "Node",
    "FieldPath",
    "build_tree",
    "format_path",
    "show",
]

MAX_DEPTH = 20
MAX_DIGITS = 40
MAX_NODES = 10_000

FieldPath = tuple[str | int, ...]


@dataclass
class Node:
    """A value of a recipe and where it was written.

    Attributes:
        value: A scalar, a dict of name to Node, or a list of Nodes.
        where: The place, as `recipes/x.yaml:14:9` or `override phases.1.unfreeze=7`.
        removed: For each name that an override removed, the place of that override.
        text: What was typed, of a plain scalar in YAML: `007` is the number 7.
    """

    value: Any
    where: str
    removed: dict[str | int, str] = field(default_factory=dict)
    text: str | None = None

    @property
    def typed(self) -> str:
        """The value as it was typed if it is a number in YAML, else as `show` has it."""
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return self.text if self.text and is_number else show(self.plain())

    def child(self, name: str | int) -> "Node | None":
        """Returns a node of a mapping or a list, or None.

        Args:
            name: Its key in the mapping, or its index in the list.
        """
        if isinstance(self.value, dict):
            return self.value.get(name)
        if isinstance(self.value, list) and isinstance(name, int) and name < len(self.value):
            child: Node = self.value[name]
            return child
        return None

    def plain(self) -> Any:
        """Returns the value without places: scalars, dicts and lists."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def copy(self) -> "Node":
        """Returns a deep copy, so that an override of one alias leaves the rest unchanged."""
        if isinstance(self.value, dict):
            return Node({name: node.copy() for name, node in self.value.items()}, self.where)
        if isinstance(self.value, list):
            return Node([node.copy() for node in self.value], self.where)
        return Node(self.value, self.where, text=self.text)

    def find(self, path: FieldPath) -> "Node | None":
        """Returns the node at a path, or None.

        Args:
            path: Keys and indices from here.
        """
        node: Node | None = self
        for name in path:
            node = node.child(name) if node else None
        return node

    def locate(self, path: FieldPath) -> str:
        """Returns where a field was written or removed, or its nearest parent.

        Args:
            path: Keys and indices from here.
        """
        node = self
        for name in path:
            if name in node.removed:
                return node.removed[name]
            child = node.child(name)
            if child is None:
                break
            node = child
        return node.where


def build_tree(value: object, where: str, path: FieldPath = ()) -> Node:
    """Returns the tree of a Python value.

    Args:
        value: Scalars, paths, lists, mappings and sections; scalars and arrays of numpy.
        where: The place of every part of it.
        path: Where the value lies in the recipe.

    Raises:
        RecipeError: A key is no text, a value is neither number, text, path, list nor mapping, or
            there are more than 20 levels (it may contain itself).
    """
    name = format_path(path) or "the recipe"
    if len(path) > MAX_DEPTH:
        expected = f"expected {MAX_DEPTH} levels at most."
        raise RecipeError(Problem(where, f"{name[:40]}... is nested too deeply", expected))
    value = unwrap(value, levels=0)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                what = f"key {show(key)} in {name}"
                raise RecipeError(Problem(where, what, "expected keys that are text."))
        return Node(
            {key: build_tree(item, where, (*path, key)) for key, item in value.items()}, where
        )
    if isinstance(value, list | tuple):
        items = [build_tree(item, where, (*path, index)) for index, item in enumerate(value)]
        return Node(items, where)
    return Node(_as_plain(value, where, name), where)


def _as_plain(value: object, where: str, name: str) -> object:
    """Returns a scalar in a type of Python, not in one derived from it, such as numpy's."""
    if value is None or isinstance(value, bool):
        return value
    expected = "expected a number, text, a path, a list or a mapping."
    if isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        expected = f"expected a number of at most {MAX_DIGITS} digits."
    elif isinstance(value, PathLike):
        return fspath(value)
    else:
        for kind in (int, float, str):
            if isinstance(value, kind):
                return kind(value)
    raise RecipeError(Problem(where, f"{name} = {show(value)}", expected, suggest_value(value)))


def format_path(path: FieldPath) -> str:
    """Returns a path as people write it: `phases[1].unfreeze`.

    Args:
        path: Keys and indices, as ("phases", 1, "unfreeze").
    """
    text = ""
    for name in path:
        text += f"[{name}]" if isinstance(name, int) else f".{name}" if text else name
    return text


def show(value: object) -> str:
    """Returns a value as repr does, but with YAML's null, true and false; long values are cut.

    An object whose repr has lines, or its address in memory, is named by its type.

    Args:
        value: Of any type.
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = _SHORT.repr(value)
    has_address = text.startswith("<") and " at 0x" in text
    return f"<{type(value).__name__}>" if "\n" in text or has_address else text


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
