"""Sections of which there are several kinds: `{kind: adamw, weight_decay: 1e-4}`, or the word."""

from collections.abc import Iterable, Mapping
from typing import Any

from tl_toolkit.errors import nearest
from tl_toolkit.recipe.fields import Section, in_words
from tl_toolkit.recipe.tree import show

__all__ = ["KindSection", "choose_kind", "read_switch", "table_of"]


class KindSection(Section):
    """A section of one of several kinds, which its field `kind` names."""

    kind: str

    def model_post_init(self, context: Any) -> None:
        """Marks the kind as a set field: a section is read again from its set fields.

        Args:
            context: Context of pydantic; not used.
        """
        self.model_fields_set.add("kind")


def table_of(sections: Iterable[Any]) -> dict[str, type[Section]]:
    """Returns sections by the word that their field `kind` has.

    Args:
        sections: Each has a field `kind` whose default is its word.
    """
    return {str(section.model_fields["kind"].default): section for section in sections}


def choose_kind(
    value: object, table: Mapping[str, type[Section]], *, field: str, takes_word: bool = False
) -> object:
    """Returns the section that a value describes; a value that is no section, as it is.

    Args:
        value: A mapping with a `kind`, a section, or anything else.
        table: The sections by kind.
        field: The field of the value, for the hint.
        takes_word: Whether the kind alone, as text, stands for its section with all defaults.

    Raises:
        PydanticCustomError: There is no such kind.
        ValidationError: The section has other faults; they are reported at its fields.
    """
    if takes_word and isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        return value
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in table:
        words = [f"{word!r}" for word in table]
        near = nearest(kind, list(table)) if isinstance(kind, str) else ""
        rest = "".join(f", {name}: {show(item)}" for name, item in value.items() if name != "kind")
        typed = near if takes_word and not rest else f"{{kind: {near}{rest}}}"
        raise in_words(
            f"expected a kind: {', '.join(words[:-1])} or {words[-1]}, got {show(kind)}",
            hint=f"{field}: {typed}" if near else "",
        )
    # Validated here: a union would name its members in the place of every problem.
    return table[kind].model_validate(dict(value))


def read_switch(value: object, section: type[Section], *, field: str) -> object:
    """Returns the section that true or a mapping describes; false, and a section, as they are.

    Args:
        value: What a recipe has for the field.
        section: Its section, all of whose fields have defaults.
        field: One of these, for the message.
    """
    # Validated here: a union would name its members in the place of every problem.
    if value is True or isinstance(value, Mapping):
        return section.model_validate({} if value is True else value)
    if value is False or isinstance(value, section):
        return value
    raise in_words(f"expected true, false or a section with {field}")
