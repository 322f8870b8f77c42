"""Markdown with a front matter, as model cards are written."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from tl_toolkit.printing.words import escape_controls

__all__ = ["escape_markdown", "read_front_matter", "write_front_matter", "write_table"]

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKS = "\\`*_[]|"


def escape_markdown(text: str) -> str:
    """Returns a text that Markdown shows as it is: a name of a class or folder may hold anything.

    Args:
        text: The text, which becomes one line.
    """
    line = escape_controls(text.encode("utf-8", "replace").decode(), also="\n\t")
    line = "".join(f"\\{letter}" if letter in _MARKS else letter for letter in line)
    return "".join(_HTML.get(letter, letter) for letter in line)


def write_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a table; numbers are on the right, and None is an empty cell.

    Args:
        columns: Names of the columns.
        rows: Rows, with a value for each column.
    """
    numeric = [
        bool(rows) and all(isinstance(row[place], int | float | None) for row in rows)
        for place in range(len(columns))
    ]
    lines = [
        [escape_markdown(name) for name in columns],
        ["---:" if is_numeric else "---" for is_numeric in numeric],
        *([_write_cell(cell) for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write_cell(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return f"{cell:,}" if isinstance(cell, int) else escape_markdown(str(cell))


def write_front_matter(values: Mapping[str, Any]) -> str:
    """Returns YAML between lines of three dashes.

    Args:
        values: What YAML can hold, in the order in which it is written.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        """One of its own: recipes are written with changes of the shared one."""

    Representer.add_representer(list, SafeRepresenter.represent_list)
    Representer.add_representer(str, SafeRepresenter.represent_str)
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(dict(values), stream)
    return f"---\n{stream.getvalue()}---\n"


def read_front_matter(text: str) -> dict[str, Any]:
    """Returns the values of a front matter.

    Args:
        text: Markdown that begins with one.
    """
    from ruamel.yaml import YAML

    values: dict[str, Any] = YAML(typ="safe", pure=True).load(text.split("---\n")[1])
    return values
