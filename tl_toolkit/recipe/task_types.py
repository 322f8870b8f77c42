"""Types of recipe fields that depend on the tasks: the task, and the columns of scores."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny, ValidationError, WrapSerializer
from pydantic_core import InitErrorDetails
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from tl_toolkit.errors import nearest
from tl_toolkit.recipe.fields import in_words
from tl_toolkit.recipe.tasks import TASKS, TaskSection, find_task, list_choices, list_monitors

__all__ = ["AnyTask", "Loss", "Monitor", "Sampling"]

_NAMES = f"{', '.join(map(repr, TASKS[:-1]))} or {TASKS[-1]!r}"


def _as_task(value: object) -> object:
    if isinstance(value, TaskSection):
        return value
    if isinstance(value, str):
        return find_task(value)() if value in TASKS else _refuse_kind(value)
    if not isinstance(value, Mapping):
        raise in_words("expected the name of a task, or a section with its kind")
    if "kind" not in value:
        fitting = [kind for kind in TASKS if value.keys() <= find_task(kind).model_fields.keys()]
        hint = f"kind: {fitting[0]}" if value and fitting else ""
        raise in_words(f"expected a kind, {_NAMES}", hint=hint)
    kind = value["kind"]
    return find_task(kind).model_validate(value) if kind in TASKS else _refuse_kind(kind, "kind")


def _refuse_kind(value: object, *field: str) -> NoReturn:
    near = nearest(value, TASKS) if isinstance(value, str) else ""
    error = in_words(f"expected {_NAMES}", hint=near and f"{'kind' if field else 'task'}: {near}")
    details = InitErrorDetails(type=error, loc=field, input=value)
    raise ValidationError.from_exception_data("task", [details])


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
