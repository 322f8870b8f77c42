"""Kinds of recipe fields (paths, names, fractions, settings), and errors in plain words."""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from tl_toolkit.recipe.field_docs import document_fields, opening_of
from tl_toolkit.recipe.python_values import TABLE_HINT, unwrap
from tl_toolkit.recipe.remote import (
    find_address_fault,
    find_object_fault,
    find_source_fault,
    is_address,
    mirror_of,
    mirror_of_file,
    mirror_of_source,
    name_object,
    name_source,
    suggest_address,
)

__all__ = [
    "KIND",
    "WORDS",
    "Arguments",
    "Changes",
    "Conflict",
    "FileName",
    "Fraction",
    "KerasFile",
    "Listed",
    "Folder",
    "MixingStrength",
    "RegularizationFactor",
    "RunPlace",
    "PhaseName",
    "Rate",
    "Section",
    "Seed",
    "Setting",
    "Settings",
    "Source",
    "Table",
    "find_path_fault",
    "in_words",
    "refuse_repeated",
    "Text",
    "Weights",
    "expand_home",
    "expects",
]

# The types of our own errors: both are plain sentences, and `messages` may replace only the second.
WORDS = "words"
KIND = "kind"
_REMOTE = re.compile(
    r"^(?:/(?:cns|cfs|gcs|hdfs|readahead|placer|tfhub)(?:/|$)|(?i:gs|s3|hdfs):|\w[\w+.-]+://)"
)

Rate = Annotated[float, Field(ge=0, lt=1)]
"""A fraction that must leave something over, as of dropout."""

RegularizationFactor = Annotated[float, Field(ge=0)]
"""A factor of L1 or L2 regularization, or a weight decay."""

MixingStrength = Annotated[float, Field(ge=0, le=10)]
"""The parameter of Beta(a, a), by which examples are mixed; 0 for none."""

_T = TypeVar("_T")


def in_words(expected: str, *, hint: str = "") -> PydanticCustomError:
    """Returns a validation error in plain words.

    Args:
        expected: The sentence of the error.
        hint: What to type; may be empty.
    """
    return PydanticCustomError(WORDS, "{expected}", {"expected": expected, "hint": hint})


def expects(expected: str, suggest: Callable[[object], str] | None = None) -> WrapValidator:
    """Returns a validator that replaces the errors of the members of a union by one sentence.

    Errors that are sentences already, such as that of a path on another machine, stay.

    Args:
        expected: The sentence.
        suggest: Returns what to type instead of a value; may be empty.
    """

    def replace_errors(value: object, validate: Callable[[object], _T]) -> _T:
        try:
            return validate(value)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if detail["type"] == WORDS:
                    raise in_words(**detail["ctx"]) from error
            raise in_words(expected, hint=suggest(value) if suggest else "") from error

    return WrapValidator(replace_errors)


class Conflict(NamedTuple):
    """A broken rule between fields of a section.

    Attributes:
        path: The field at fault, relative to the section; empty for the section itself.
        expected: What was expected, and what was found.
        hint: What to type; may be empty.
    """

    path: tuple[str | int, ...]
    expected: str
    hint: str = ""


class Section(BaseModel):
    """A frozen part of a recipe: strict types, unknown keys refused, rules between its fields.

    Args:
        **values: Its fields.

    Raises:
        RecipeError: They do not fit; in the words for a file.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**unwrap(values))
        except ValidationError as error:
            from tl_toolkit.recipe.messages import explain_section  # it reads all sections

            raise explain_section(type(self), values, error) from None  # it says all of it

    # Else sections inside others would be built by this method too, and raise its errors.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        document_fields(cls)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # The schema describes each field in its own place.
        schema = handler(core_schema)
        handler.resolve_ref_schema(schema)["description"] = opening_of(cls)
        return schema

    @classmethod
    def find_conflicts(cls, values: Mapping[str, Any]) -> Iterable[Conflict]:
        """Yields the broken rules between fields.

        Args:
            values: Not yet validated: any key may be missing or of a wrong type.
        """
        return ()

    @classmethod
    def settle(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the values, with the defaults of fields that depend on other fields.

        Args:
            values: As in `find_conflicts`.
        """
        return values

    @model_validator(mode="wrap")
    @classmethod
    def _report_conflicts(cls, values: object, validate: Callable[[object], Self]) -> Self:
        # A rule is checked even where a field is wrong, so that one pass shows every problem.
        conflicts: list[Conflict] = []
        if isinstance(values, Mapping):
            values = cls.settle({name: _as_given(value) for name, value in values.items()})
            conflicts += cls.find_conflicts(values)
        details = [
            InitErrorDetails(type=in_words(expected, hint=hint), loc=path, input=values)
            for path, expected, hint in conflicts
        ]
        try:
            section = validate(values)
        except ValidationError as error:
            if not details:
                raise
            explained = {tuple(path) for path, _, _ in conflicts}
            details += [
                _repeat(detail)
                for detail in error.errors(include_url=False)
                # A rule may say why there is no such key.
                if detail["type"] != "extra_forbidden" or detail["loc"] not in explained
            ]
        if details:
            raise ValidationError.from_exception_data(cls.__name__, details)
        return section


def _as_given(value: object) -> object:
    """Returns the set fields of sections built in Python: defaults may depend on other fields."""
    if isinstance(value, Section):
        return {name: _as_given(getattr(value, name)) for name in value.model_fields_set}
    if isinstance(value, list | tuple):
        return type(value)(map(_as_given, value))
    return value


def refuse_repeated(values: object, field: str) -> Iterator[Conflict]:
    """Yields a conflict for each repeated entry of a list.

    Args:
        values: The list; anything else has no conflict.
        field: Its name in the section.
    """
    if isinstance(values, list | tuple):
        for index, value in enumerate(values):
            if value in values[:index]:
                yield Conflict((field, index), f"expected each name once, got {value!r} again")


def _repeat(detail: Any) -> InitErrorDetails:
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind in (KIND, WORDS):
        kind = PydanticCustomError(kind, "{expected}", context)
    return InitErrorDetails(type=kind, loc=detail["loc"], input=detail["input"], ctx=context)


def find_path_fault(path: str) -> str:
    """Returns why a path is unusable as a local file name, or "".

    Args:
        path: The path as it was written.
    """
    if not path:
        return "expected a path, got an empty text"
    if "\0" in path or any("\ud800" <= letter <= "\udfff" for letter in path):
        return f"expected a path in UTF-8 without NUL characters, got {path!r}"
    if _REMOTE.match(path):
        return (
            f"expected a local path, got {path!r}: data, features, weights, models and runs may "
            "also have addresses on object stores (s3://, gs://, abfs://)"
        )
    return ""


def expand_home(path: str) -> str:
    """Returns a path whose first folder `~` is the user's home; nothing else is expanded.

    Args:
        path: The path as it was written.
    """
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path


def _as_local_path(value: object, *, suggest: Callable[[str], str] | None = None) -> Path:
    """Returns a path of this machine; `suggest` names what another one may mean, or ""."""
    if not isinstance(value, str | os.PathLike):
        raise PydanticCustomError(KIND, "{expected}", {"expected": "expected a path", "hint": ""})
    text = os.fspath(value)
    if not isinstance(text, str):
        raise PydanticCustomError(KIND, "{expected}", {"expected": "expected a path", "hint": ""})
    path = os.path.abspath(expand_home(text)) if text else ""
    if fault := find_path_fault(text) or find_path_fault(path):
        meant = suggest(text) if suggest else ""
        raise in_words(fault, hint=meant or "copy the files here and name the local folder")
    return Path(path)


def _as_source(value: object, *, suggest: Callable[[str], str] | None = None) -> Path:
    """Returns the path of a folder or a table; a list of files is written as a table."""
    if isinstance(value, list | tuple):
        expected = {"expected": "expected a path", "hint": TABLE_HINT}
        raise PydanticCustomError(KIND, "{expected}", expected)
    return _as_local_path(value, suggest=suggest)


class Settings(Mapping[str, Any]):
    """A read-only mapping that compares like a dict and can be hashed; its lists are tuples.

    types.MappingProxyType can be neither pickled nor, before Python 3.12, hashed; recipes are both.

    Args:
        values: Settings by name; their own values become read-only too.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        self._values = {key: _freeze(value) for key, value in dict(values).items()}

    def __getitem__(self, key: str) -> Any:
        """Returns the setting called `key`."""
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names in their order."""
        return iter(self._values)

    def __len__(self) -> int:
        """Returns how many settings there are."""
        return len(self._values)

    def __hash__(self) -> int:
        """Returns a hash that does not depend on the order."""
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        """Returns what a dict with these settings shows."""
        return repr(self._values)


def _freeze(value: object) -> object:
    if isinstance(value, Mapping):
        return Settings(value)
    return tuple(map(_freeze, value)) if isinstance(value, list | tuple) else value


def _thaw(value: object) -> Any:
    if isinstance(value, Mapping):
        return {key: _thaw(item) for key, item in value.items()}
    return [_thaw(item) for item in value] if isinstance(value, list | tuple) else value


def _check_setting(value: object) -> object:
    if not isinstance(value, bool | int | float | str):
        raise in_words(f"expected a number, a word, true or false, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise in_words(f"expected a finite number, got {value!r}")
    return value


def _as_keras_file(value: object) -> Path:
    """Returns the path of a model, or of what stands for one that has an address."""
    path = _read_path(value, find_object_fault, mirror_of_file)
    if path.suffix != ".keras":
        raise in_words(
            f"expected a file that ends in .keras, got {path.name!r}",
            hint="model.save('base.keras')",
        )
    return path


def _read_weights(value: object) -> str:
    """Returns the path of a weight file, or its address."""
    if not (isinstance(value, str) and is_address(value)):
        return str(_as_local_path(value, suggest=suggest_address))
    if fault := find_object_fault(value):
        raise in_words(fault)
    return value


def _read_run(value: object) -> Path | str:
    """Returns the path of a run, or its address."""
    if not (isinstance(value, str) and is_address(value)):
        return _as_source(value, suggest=suggest_address)
    if fault := find_address_fault(value):
        raise in_words(fault)
    return value.rstrip("/")


def _read_path(
    value: object, find_fault: Callable[[str], str], stand_in: Callable[[str], Path]
) -> Path:
    """Returns a path of this machine; of an address the path of what stands for it."""
    if not (isinstance(value, str) and is_address(value)):
        return _as_source(value, suggest=suggest_address)
    if fault := find_fault(value):
        raise in_words(fault)
    return stand_in(value)


def _read_address(
    find_fault: Callable[[str], str], stand_in: Callable[[str], Path]
) -> BeforeValidator:
    return BeforeValidator(
        lambda value: _read_path(value, find_fault, stand_in), json_schema_input_type=str
    )


# os.fspath refuses a fraction in the place of a path.
_NAMED = PlainSerializer(lambda path: name_object(os.fspath(path)), when_used="json")
_NAMED_SOURCE = PlainSerializer(lambda path: name_source(os.fspath(path)), when_used="json")
Folder = Annotated[Path, _read_address(find_address_fault, mirror_of), _NAMED]
Table = Annotated[Path, _read_address(find_object_fault, mirror_of_file), _NAMED]
Source = Annotated[Path, _read_address(find_source_fault, mirror_of_source), _NAMED_SOURCE]
RunPlace = Annotated[Path | str, BeforeValidator(_read_run, json_schema_input_type=str)]
KerasFile = Annotated[Path, BeforeValidator(_as_keras_file, json_schema_input_type=str), _NAMED]
Weights = Annotated[
    str,
    BeforeValidator(
        lambda value: value if value in ("imagenet", "random") else _read_weights(value),
        json_schema_input_type=Literal["imagenet", "random"] | str,
    ),
]
Text = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
PhaseName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]
Listed = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Setting = Annotated[bool | int | float | str, WrapValidator(lambda value, _: _check_setting(value))]
Arguments = Annotated[
    Mapping[str, Setting],
    AfterValidator(Settings),
    PlainSerializer(_thaw, return_type=dict[str, Any]),
]
Changes = Annotated[
    Mapping[str, Any], AfterValidator(Settings), PlainSerializer(_thaw, return_type=dict[str, Any])
]
