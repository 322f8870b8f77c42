"""Types of recipe fields that are read off the tasks: the task, and the columns of scores."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny, WrapSerializer
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from tl_toolkit.errors import nearest
from tl_toolkit.recipe.fields import in_words
from tl_toolkit.recipe.tasks import TASKS, TaskSection, find_task, list_choices, list_monitors

__all__ = ["AnyTask", "Loss", "Monitor", "Sampling"]


def _as_task(value: object) -> object:
    if isinstance(value, TaskSection):
        return value
    section = {"kind": value} if isinstance(value, str) else value
    if not isinstance(section, Mapping):
        raise in_words("expected the name of a task, or a section with its kind")
    kind = section.get("kind")
    if not isinstance(kind, str) or kind not in TASKS:
        *first, last = map(repr, TASKS)
        near = nearest(kind, TASKS) if isinstance(kind, str) else ""
        raise in_words(f"expected {', '.join(first)} or {last}", hint=near and f"task: {near}")
    return find_task(kind).model_validate(section)


def _as_word(section: TaskSection, dump: SerializerFunctionWrapHandler) -> Any:
    """Writes a task whose fields have their defaults as its name alone."""
    defaults = {name: field.default for name, field in type(section).model_fields.items()}
    if all(getattr(section, name) == default for name, default in defaults.items()):
        return section.kind
    return dump(section)


def _any_section() -> Any:
    sections: Any = Literal[TASKS]
    for kind in TASKS:
        sections |= find_task(kind)
    return sections


# Read off the tasks, which a checker of types cannot.
if TYPE_CHECKING:
    AnyTask: TypeAlias = TaskSection
    Loss: TypeAlias = str
    Monitor: TypeAlias = str
    Sampling: TypeAlias = str
else:
    AnyTask = Annotated[
        SerializeAsAny[TaskSection],
        BeforeValidator(_as_task, json_schema_input_type=_any_section()),
        WrapSerializer(_as_word),
    ]
    Loss = Literal[list_choices("loss")]
    Monitor = Literal[list_monitors()]
    Sampling = Literal[list_choices("sampling")]
