"""Types of recipe fields that depend on the tasks: the task, and the columns of scores."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny, ValidationError, WrapSerializer
from pydantic_core import InitErrorDetails
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from tl_toolkit.errors import nearest
from tl_toolkit.recipe.fields import in_words
from tl_toolkit.recipe.tasks import TASKS, TaskSection, find_task, list_choices, list_monitors
from tl_toolkit.recipe.tree import show

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
        raise in_words(f"expected a kind, {_NAMES}", hint=_suggest_kind(value))
    kind = value["kind"]
    return find_task(kind).model_validate(value) if kind in TASKS else _refuse_kind(kind, "kind")


def _suggest_kind(values: Mapping[Any, Any]) -> str:
    """Returns a section of the first task that has such fields, "" if none has."""
    for kind in TASKS:
        known = set(find_task(kind).model_fields) - {"kind"}
        meant = {nearest(str(name), known): value for name, value in values.items()}
        if values and "" not in meant:
            fields = "".join(f", {name}: {show(value)}" if not isinstance(value, str) else
                             f", {name}: {value}" for name, value in meant.items())  # fmt: skip
            return f"task: {{kind: {kind}{fields}}}"
    return ""


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
