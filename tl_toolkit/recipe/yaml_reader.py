"""Reads YAML 1.2 into a tree of values with places, within limits, and without tags.

The syntax is ruamel.yaml's. Its nodes and its constructor are not used, because they lack:

- the core schema of YAML 1.2, which `read_scalar` has: to ruamel.yaml 1_000, 0b1 and -0x1F are
  numbers, 2024-01-01 is a date, .5e3 a text, and `._` an error of Python's own;
- all keys that are written twice: it stops at the first;
- the places of aliases, and a limit on what they expand to.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.recipe.tree import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_NODES,
    FieldPath,
    Node,
    format_path,
    show,
)

__all__ = ["MAX_BYTES", "read_scalar", "read_yaml"]

MAX_BYTES = 256 * 1024
MAX_ALIASES = 50

# YAML 1.2.2, section 10.3.2: `yes`, `on` and 1_000 are text, 1e-4 is a number.
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{
        sign + word: float(sign + "inf")
        for sign in ("", "+", "-")
        for word in (".inf", ".Inf", ".INF")
    },
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Messages of ruamel.yaml, and what to do about them.
_ADVICE = {
    r"'\\t'": (
        "expected spaces: YAML does not indent with tabs.",
        "replace each tab by two spaces",
    ),
    "mapping values are not allowed": (
        "expected one `key: value` per line, at the indentation of its neighbours.",
        "quote a text that holds a colon, and line the keys up",
    ),
    "could not find expected ':'": (
        "expected `key: value`.",
        "put a colon and a space after the key",
    ),
    "end of stream": ("expected the closing quote.", "close the text that was opened here"),
    r"expected ',' or": ("expected a comma or the closing bracket.", "close the bracket"),
    "block end": ("expected a line at the indentation of its neighbours.", "line the keys up"),
    "alphabetic": ("expected a name after & or *.", "quote a text that begins with & or *"),
    "cannot start any token": (
        "expected a plain value.",
        "quote a text that begins with this character",
    ),
}

Place = Callable[[int, int], str]


def read_yaml(text: str, place: Place) -> Node:
    """Returns the tree of a YAML 1.2 document; an empty one gives None.

    Args:
        text: The document, at most 256 KiB.
        place: Formats a line and a column, both counted from 1, as a place.

    Raises:
        RecipeError: The text is no YAML, has keys twice (all are reported), a tag, more than one
            document, more than 50 aliases, 10,000 values or 20 levels.
    """
    if match := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        what = f"holds the character {match.group()!r}"
        raise RecipeError(Problem(place(line, column), what, "expected printable text."))
    reader = _Reader(text, place)
    tree = reader.read_document()
    if reader.repeated:
        raise RecipeError(reader.repeated)
    return tree


def read_scalar(text: str) -> Any:
    """Returns what an unquoted scalar means in YAML 1.2: None, bool, int, float or the text.

    Args:
        text: The scalar, without spaces around it.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Reader:
    """Builds the tree from parse events, so that the limits hold before anything is expanded."""

    def __init__(self, text: str, place: Place) -> None:
        self.repeated: list[Problem] = []
        self._place = place
        self._events = self._iterate(text)
        self._anchors: dict[
            str, tuple[Node, int, int]
        ] = {}  # name -> tree, number of nodes, levels
        self._aliases = 0
        self._nodes = 0
        self._deepest = 0

    def read_document(self) -> Node:
        tree: Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if tree is not None:
                    raise self._refuse(event, "a second document", "one document in a file")
                if event.version not in (None, (1, 2)):
                    raise self._refuse(event, "a %YAML directive", "YAML 1.2")
                tree = self._read_node(next(self._events), (), 1)
        return tree or Node(None, self._place(1, 1))

    def _iterate(self, text: str) -> Iterator[Any]:
        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except Exception as error:  # on damaged text ruamel.yaml raises errors of other kinds too
            raise RecipeError(_explain(error, self._place)) from error

    def _read_node(self, event: Any, path: FieldPath, depth: int) -> Node:
        self._count(event, 1, depth)
        if isinstance(event, AliasEvent):
            return self._read_alias(event, depth)
        if event.tag is not None:
            tag = str(event.ctag).replace("tag:yaml.org,2002:", "!!")
            raise self._refuse(event, f"tag {show(tag)}", "a value without a tag")
        before, outer, self._deepest = self._nodes, self._deepest, depth
        if isinstance(event, ScalarEvent):
            text = event.value if event.style is None else None
            node = Node(self._read_value(event), self._at(event), text=text)
        elif isinstance(event, MappingStartEvent):
            node = self._read_mapping(event, path, depth)
        else:
            node = self._read_list(event, path, depth)
        if event.anchor:
            self._anchors[event.anchor] = (node, self._nodes - before, self._deepest - depth)
        self._deepest = max(self._deepest, outer)
        return node

    def _read_alias(self, event: Any, depth: int) -> Node:
        if event.anchor not in self._anchors:
            expected = f"an anchor &{event.anchor} before it, or quotes around text"
            raise self._refuse(event, f"*{event.anchor}", expected)
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._refuse(event, f"*{event.anchor}", f"at most {MAX_ALIASES} aliases")
        node, nodes, levels = self._anchors[event.anchor]
        self._count(event, nodes, depth + levels)
        return node.copy()

    def _read_text(self, event: Any) -> str:
        """Returns a text; JSON writes an emoji as two escapes, which ruamel.yaml does not join."""
        text: str = event.value
        if _SURROGATE.search(text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            if _SURROGATE.search(text):
                raise self._refuse(event, show(text), "text of whole characters")
        return text

    def _read_value(self, event: Any) -> Any:
        text = self._read_text(event)
        if event.style is not None:
            return text
        if len(text) > MAX_DIGITS and (_INTEGER.fullmatch(text) or _FLOAT.fullmatch(text)):
            raise self._refuse(event, show(text), f"a number of at most {MAX_DIGITS} characters")
        return read_scalar(text)

    def _read_list(self, start: Any, path: FieldPath, depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._read_node(event, (*path, len(items)), depth + 1))
        return Node(items, self._at(start))

    def _read_mapping(self, start: Any, path: FieldPath, depth: int) -> Node:
        values: dict[str, Node] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or event.tag is not None:
                raise self._refuse(event, "a key that is not a word", "keys like `name:`")
            name, where = self._read_text(event), self._at(event)
            node = self._read_node(next(self._events), (*path, name), depth + 1)
            node.where = where
            if name in values:
                what = f"{format_path((*path, name))} is written twice"
                expected = f"expected it once, got it at {values[name].where} before."
                self.repeated.append(Problem(where, what, expected, "remove one of the two"))
            else:
                values[name] = node
        return Node(values, self._at(start))

    def _count(self, event: Any, nodes: int, depth: int) -> None:
        self._nodes += nodes
        self._deepest = max(self._deepest, depth)
        if self._nodes > MAX_NODES:
            raise self._refuse(event, "a document too large", f"at most {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise self._refuse(event, "a value nested too deeply", f"at most {MAX_DEPTH} levels")

    def _at(self, event: Any) -> str:
        return self._place(event.start_mark.line + 1, event.start_mark.column + 1)

    def _refuse(self, event: Any, what: str, expected: str) -> RecipeError:
        return RecipeError(Problem(self._at(event), what, f"expected {expected}."))


def _explain(error: Exception, place: Place) -> Problem:
    message = str(getattr(error, "problem", None) or error).partition("\n")[0]
    advice = next(
        (words for pattern, words in _ADVICE.items() if re.search(pattern, message)), None
    )
    expected, hint = advice or ("expected YAML 1.2.", "")
    # If a bracket or quote is left open, its own place helps; the other place is the file's end.
    marks = [getattr(error, "problem_mark", None), getattr(error, "context_mark", None)]
    mark = next(filter(None, reversed(marks) if "close" in hint else marks), None)
    where = place(mark.line + 1, mark.column + 1) if mark else place(1, 1)
    return Problem(where, f"not YAML: {message}", expected, hint)
