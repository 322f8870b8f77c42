"""Docstrings of sections: what a class is, and its fields, as `help` and editors show them."""

import inspect
import textwrap
from collections.abc import Iterator, Mapping

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["document_fields", "opening_of"]

_FIELDS = "\n\nAttributes:\n"
_WIDTH = 96


def document_fields(section: type[BaseModel]) -> None:
    """Adds the fields of a section to its docstring, unless that has attributes already.

    Args:
        section: A class whose docstring is its opening.
    """
    opening = inspect.cleandoc(section.__doc__ or "")
    if opening and section.model_fields and _FIELDS.strip() not in opening:
        fields = "\n".join(_describe_fields(section.model_fields))
        section.__doc__ = f"{opening}{_FIELDS}{fields}"


def opening_of(section: type[BaseModel]) -> str:
    """Returns the docstring of a section without its fields.

    Args:
        section: A class that `document_fields` has seen.
    """
    return (section.__doc__ or "").partition(_FIELDS)[0]


def _describe_fields(fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    for name, field in fields.items():
        in_files = f" In files: `{field.alias}`." if field.alias else ""
        text = f"{name}: {field.description}{in_files}{_describe_default(field)}"
        yield textwrap.fill(
            text,
            _WIDTH,
            initial_indent="    ",
            subsequent_indent="        ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _describe_default(field: FieldInfo) -> str:
    """Returns " Required.", or the default where it is a plain value that says something."""
    if field.is_required():
        return " Required."
    is_plain = isinstance(field.default, str | int | float) and field.default != ""
    return f" Default: {field.default!r}." if is_plain else ""
