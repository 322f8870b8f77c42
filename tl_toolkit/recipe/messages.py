"""Explains the errors of the schema in plain words, with their places."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from pydantic import ValidationError

from tl_toolkit.errors import Problem, RecipeError, nearest
from tl_toolkit.recipe.fields import KIND, WORDS, Section
from tl_toolkit.recipe.remote import hide_credentials
from tl_toolkit.recipe.schema import Recipe
from tl_toolkit.recipe.tree import FieldPath, Node, build_tree, format_path, show
from tl_toolkit.recipe.yaml_reader import read_scalar, read_yaml

__all__ = ["explain", "explain_section", "in_order"]

_KINDS = {
    "bool_type": "true or false",
    "float_type": "a number",
    "int_from_float": "an integer",
    "int_type": "an integer",
    "string_type": "text",
    "string_unicode": "text in Unicode",
    "tuple_type": "a list",
    "dict_type": "a section of `key: value` lines",
    "mapping_type": "a section of `key: value` lines",
    "finite_number": "a finite number",
    "string_too_short": "text that is not empty",
}
_RANGES = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_LIKENESS = 0.75
"""Of a key that is named instead of an unknown one: `trials` is no slip of the pen for `task`."""
_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": (list, tuple),
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": Mapping,
    "string": str,
}
_FIELD = re.compile(r"(\w+): (.+)")
_PLACE = re.compile(r":(\d+):(\d+)$")


def explain(error: ValidationError, tree: Node) -> list[Problem]:
    """Returns a located problem for each error of the schema.

    Args:
        error: The error that pydantic raised.
        tree: The values that it checked, with their places.
    """
    return _Explainer(tree, _schema(Recipe)).explain_all(error.errors(include_url=False))


def explain_section(
    section: type[Section], values: Mapping[str, Any], error: ValidationError
) -> RecipeError:
    """Returns the error of a section that was built in Python.

    Args:
        section: Its class.
        values: Its fields, as they were given.
        error: The error that pydantic raised.
    """
    tree = build_tree(values, section.__name__)
    problems = _Explainer(tree, _schema(section)).explain_all(error.errors(include_url=False))
    return RecipeError(
        [replace(problem, hint=_as_argument(problem.hint)) for problem in dict.fromkeys(problems)]
    )


def _as_argument(hint: str) -> str:
    """Returns `epochs: 10` as an argument in Python, `epochs=10`; other hints as they are."""
    match = _FIELD.match(hint.removesuffix(" (without quotes)"))
    if not match:
        return hint
    try:
        value = read_yaml(match[2], lambda line, column: "").plain()
    except RecipeError:
        return hint
    return f"{match[1]}={value!r}"


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Returns each problem once, those of a file first, by line and column.

    Args:
        problems: In any order, perhaps with repetitions.
    """

    def place(problem: Problem) -> tuple[int, int, int]:
        match = _PLACE.search(problem.where)
        return (0, int(match[1]), int(match[2])) if match else (1, 0, 0)

    return sorted(dict.fromkeys(problems), key=place)


@cache
def _schema(section: type[Section]) -> dict[str, Any]:
    return section.model_json_schema()


class _Explainer:
    """Explains errors of pydantic in words, with the help of the JSON Schema of the recipe."""

    def __init__(self, tree: Node, schema: dict[str, Any]) -> None:
        self._tree = tree
        self._schema = schema

    def explain_all(self, details: Sequence[Any]) -> list[Problem]:
        """Returns the problems; a field that an unknown key meant is not missing besides."""
        unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
        meant = {
            (*path[:-1], near)
            for path in unknown
            if (near := nearest(str(path[-1]), self._keys(path[:-1]), likeness=_LIKENESS))
        }
        problems = []
        for detail in details:
            problem = self.explain(detail)
            if problem is None or detail["loc"] in meant:
                continue
            named = (*detail["loc"], problem.hint.partition(":")[0])  # of a rule of a section
            if detail["type"] == "extra_forbidden" or named not in meant:
                problems.append(problem)
        return problems

    def explain(self, detail: Any) -> Problem | None:
        path: FieldPath = tuple(part for part in detail["loc"] if part != "[key]")
        kind, context = detail["type"], detail.get("ctx", {})
        node = self._tree.find(path)
        if kind == "missing":
            return self._explain_missing(path)
        if kind == "extra_forbidden":
            return self._explain_unknown(path, detail["input"])
        if kind == "too_short" and node and len(node.value) >= context["min_length"]:
            # pydantic counts the valid entries, and the others are reported already.
            return None
        value = node.plain() if node else detail["input"]
        expected = self._expect(kind, context, path) or detail["msg"]
        typed = hide_credentials(node.typed if node else show(value))
        expected = hide_credentials(expected)
        if ", got " not in expected:
            expected += f", got {typed}"
        is_section = isinstance(value, Mapping) and kind in (KIND, WORDS)
        name = format_path(path) or "the recipe"
        hint = self._place_hint(context.get("hint", ""), path)
        hint = hint or self._suggest(kind, context, path, value, typed)
        return Problem(
            where=hide_credentials(self._tree.locate(path)),
            what=name if is_section else f"{name} = {typed}",
            expected=expected if expected.endswith((".", "?")) else f"{expected}.",
            hint=hint,
        )

    def _place_hint(self, hint: str, path: FieldPath) -> str:
        """Returns a hint for the field itself as an override, if it was written as one."""
        is_own = bool(path) and hint.startswith(f"{path[-1]}: ")
        if not is_own or not self._tree.locate(path).startswith("override "):
            return hint
        value = hint.partition(": ")[2]
        return f"{self._dot(path)}=" + (f"'{value}'" if value[0] in '{["' else value)

    def _explain_missing(self, path: FieldPath) -> Problem:
        schema = self._find(path)
        hint = f"{path[-1]}: {_as_yaml(schema['examples'][0])}" if "examples" in schema else ""
        expected = f"expected a value: {schema.get('description', '')}"
        return Problem(self._tree.locate(path), f"{format_path(path)} is missing", expected, hint)

    def _explain_unknown(self, path: FieldPath, value: object) -> Problem:
        name, section = str(path[-1]), path[:-1]
        keys = self._keys(section)
        expected = f"expected one of {', '.join(keys)}, got {name!r}"
        near = nearest(name, keys, likeness=_LIKENESS)
        meant = [(*section, near)] if near else self._find_below(section, name)
        places = " or ".join(repr(near or format_path(field)) for field in meant)
        return Problem(
            where=self._tree.locate(path),
            what=f"{format_path(path)}: unknown key",
            expected=f"{expected}; did you mean {places}?" if meant else f"{expected}.",
            hint=self._name_field(meant[0], path, value) if len(meant) == 1 else "",
        )

    def _find_below(self, section: FieldPath, name: str) -> list[FieldPath]:
        """Returns the fields of that name one level below a section, as search.trials."""
        keys = self._keys(section)
        below: list[FieldPath] = [(*section, key, name) for key in keys]
        of_lists = [(*section, key, 0, name) for key in keys if self._tree.find((*section, key, 0))]
        return [field for field in below + of_lists if name in self._keys(field[:-1])][:3]

    def _name_field(self, field: FieldPath, path: FieldPath, value: object) -> str:
        """Returns what to type for the field that an unknown key meant, with a value that fits."""
        node = self._tree.find(path)
        text = ""
        if not isinstance(value, dict | list) and self._fits(field, value):
            text = node.text if node and node.text else _as_yaml(value)
        if not text and value is None:
            text = self._exemplify(field)
        if self._tree.locate(path).startswith("override "):
            return f"{self._dot(field)}={text}" if text else ""
        if len(field) == len(path):
            return f"{field[-1]}: {text}".strip()
        return f"{field[-2]}: {{{field[-1]}: {text}}}" if isinstance(field[-2], str) else ""

    def _exemplify(self, field: FieldPath) -> str:
        """Returns a value that a field may have, "" where the schema names none."""
        schema = self._find(field)
        values = [*schema.get("examples", ()), *schema.get("enum", ()), schema.get("default")]
        return next((_as_yaml(value) for value in values if value is not None), "")

    def _dot(self, path: FieldPath) -> str:
        """Returns a field as an override names it; a phase by its name."""
        parts = []
        for place, part in enumerate(path):
            named = self._tree.find((*path[:place], part, "name")) if part != path[-1] else None
            by_name = isinstance(part, int) and named and isinstance(named.value, str)
            parts.append(str(named.value if by_name and named else part))
        return ".".join(parts)

    def _fits(self, path: FieldPath, value: object) -> bool:
        """Returns whether a field may have a value of this type."""
        verdicts = [_accepts(schema, value) for schema in self._list(path)]
        known = [verdict for verdict in verdicts if verdict is not None]
        return any(known) or not known

    def _expect(self, kind: str, context: Mapping[str, Any], path: FieldPath) -> str:
        schema = self._find(path)
        if kind in (KIND, WORDS):
            return str(context["expected"])
        if kind in _KINDS:
            return f"expected {_KINDS[kind]}"
        if kind in _RANGES:
            return f"expected {_describe_range(schema)}"
        if kind in ("model_type", "model_attributes_type"):
            return f"expected a section with the keys {', '.join(self._keys(path))}"
        if kind == "literal_error":
            return f"expected {context['expected']}"
        if kind == "string_pattern_mismatch":
            return f"expected text ({schema.get('description', '').rstrip('.')})"
        if kind == "string_too_long":
            return f"expected at most {context['max_length']} characters"
        if kind in ("too_short", "too_long"):
            few = kind == "too_short"
            limit = context["min_length" if few else "max_length"]
            return f"expected at {'least' if few else 'most'} {limit} in the list"
        return ""

    def _suggest(
        self, kind: str, context: Mapping[str, Any], path: FieldPath, value: object, typed: str
    ) -> str:
        schema = self._find(path)
        better = ""
        if kind in ("int_type", "float_type", "int_from_float", "bool_type"):
            better = _unquote(kind, value)
        elif kind == "string_type" and isinstance(value, bool | int | float):
            better = f'"{typed}"'
        elif kind == "tuple_type" and isinstance(value, str | int | float):
            better = f"[{typed if isinstance(value, int | float) else _as_yaml(value)}]"
        elif kind == "literal_error" and isinstance(value, str):
            better = nearest(value, re.findall(r"'([^']*)'", context["expected"]))
        elif kind in ("greater_than_equal", "less_than_equal"):
            better = show(context["ge" if kind == "greater_than_equal" else "le"])
        elif kind in ("mapping_type", "model_type") and "examples" in schema:
            better = _as_yaml(schema["examples"][0])
        is_entry = not path or isinstance(path[-1], int)
        if is_entry or not better:
            return better
        if self._tree.locate(path).startswith("override "):
            # A shell takes the quotes that are not quoted.
            return f"{self._dot(path)}=" + (f"'{better}'" if better.startswith('"') else better)
        return f"{path[-1]}: {better}"

    def _keys(self, path: FieldPath) -> list[str]:
        return list(self._find(path, "properties").get("properties", ()))

    def _find(self, path: FieldPath, holding: str = "") -> dict[str, Any]:
        """Returns the JSON Schema of a field, merged over references and alternatives."""
        merged: dict[str, Any] = {}
        for schema in self._list(path):
            if not holding or holding in schema:
                merged = {**schema, **merged}
        return merged

    def _list(self, path: FieldPath) -> list[dict[str, Any]]:
        """Returns the JSON Schemas of a field: its own, its references' and its alternatives'."""
        schemas = [self._schema]
        node: Node | None = self._tree
        for name in path:
            expanded = self._expand(schemas, _kind_of(node))
            schemas = [below for schema in expanded for below in _step(schema, name)]
            node = node.child(name) if node else None
        return list(self._expand(schemas, _kind_of(node)))

    def _expand(self, schemas: Iterable[dict[str, Any]], kind: object) -> Iterator[dict[str, Any]]:
        """Yields schemas and their alternatives, but for sections of another kind."""
        for schema in schemas:
            const = schema.get("properties", {}).get("kind", {}).get("const")
            if kind is not None and const not in (None, kind):
                continue
            yield schema
            yield from self._expand(schema.get("anyOf", ()), kind)
            if "$ref" in schema:
                name = schema["$ref"].rpartition("/")[2]
                yield from self._expand([self._schema["$defs"][name]], kind)


def _kind_of(node: Node | None) -> object:
    """Returns the kind of a section; of one given as a word, the word."""
    child = node.child("kind") if node else None
    value = child.value if child else node and node.value
    return value if isinstance(value, str) else None


def _step(schema: dict[str, Any], name: str | int) -> Iterator[dict[str, Any]]:
    if isinstance(name, int):
        if "items" in schema:
            yield schema["items"]
    elif name in schema.get("properties", {}):
        yield schema["properties"][name]
    elif isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"]


def _accepts(schema: Mapping[str, Any], value: object) -> bool | None:
    """Returns whether a schema admits a value by its type; None where it names none."""
    if "const" in schema:
        return bool(value == schema["const"])
    if "enum" in schema:
        return value in schema["enum"]
    name = schema.get("type")
    if name not in _TYPES:
        return None
    return isinstance(value, _TYPES[name]) and (name == "boolean") == isinstance(value, bool)


def _describe_range(schema: Mapping[str, Any]) -> str:
    kind = "an integer" if schema.get("type") == "integer" else "a number"
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    if below is not None:
        return f"{kind} {f'from {low}' if above is None else f'above {above}'} to below {below}"
    return f"{kind} above {above}" if low is None else f"{kind}, {low} or more"


def _unquote(kind: str, value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    if not isinstance(value, str):
        return ""
    if kind == "bool_type":
        meant = _SWITCHES.get(value.lower(), value.lower())
        return meant if meant in ("true", "false") else ""
    number = read_scalar(value) if len(value) < 40 else None
    is_meant = isinstance(number, int if kind.startswith("int") else int | float)
    return f"{value} (without quotes)" if is_meant and not isinstance(number, bool) else ""


def _as_yaml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_as_yaml(item)}" for key, item in value.items()) + "}"
    return value if isinstance(value, str) and len(value) < 60 else show(value)
