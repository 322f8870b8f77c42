"""Arguments of builders: what a recipe may set, checked against an architecture's record."""

from collections.abc import Mapping

from tl_toolkit.catalog.records import Architecture, Argument, Value
from tl_toolkit.errors import Problem, RecipeError, closest, nearest

__all__ = ["check_arguments", "complete_arguments", "suggest_published"]

_KIND_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}


def complete_arguments(
    architecture: Architecture, arguments: Mapping[str, Value]
) -> dict[str, Value]:
    """Returns every argument of the builder: the values, in their own types, else defaults.

    Args:
        architecture: The base's record.
        arguments: Values that differ from the defaults.

    Raises:
        RecipeError: An argument is unknown or out of range; all problems at once.
    """
    problems = check_arguments(architecture, arguments)
    if problems:
        raise RecipeError(tuple(problems.values()))
    defaults = {name: argument.default for name, argument in architecture.arguments.items()}
    values = {name: architecture.arguments[name].kind(value) for name, value in arguments.items()}
    return {**defaults, **values}


def check_arguments(
    architecture: Architecture, arguments: Mapping[str, Value]
) -> dict[str, Problem]:
    """Returns the problems of a base's arguments, by argument name; empty when all are valid.

    Args:
        architecture: The base's record.
        arguments: Values by name, of any type.
    """
    problems = {}
    for name, value in arguments.items():
        expected = _expect_argument(architecture, name, value)
        if expected:
            hint = _suggest(architecture, name, value)
            problems[name] = Problem("", f"model.arguments.{name} = {value!r}", expected, hint)
    return problems


def suggest_published(architecture: Architecture, name: str, value: Value) -> Value:
    """Returns the nearest value of an argument that weights were published for, else its default.

    Args:
        architecture: The base's record.
        name: An argument of it.
        value: What was set, of any type.
    """
    default = architecture.arguments[name].default
    published = [file.when.get(name, default) for file in architecture.weight_files]
    numbers = [number for number in published if _is_number(number)]
    if not numbers or not _is_number(value) or value != value:
        return default if default in published or not published else published[-1]
    return min(numbers, key=lambda number: abs(float(number) - float(value)))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _suggest(architecture: Architecture, name: str, value: Value) -> str:
    """Returns what to type instead of a wrong argument."""
    if name in architecture.arguments:
        choices = architecture.arguments[name].choices
        word = nearest(value, choices) if choices and isinstance(value, str) else ""
        better = word or suggest_published(architecture, name, value)
    else:
        name, better = nearest(name, architecture.arguments), value
    if not name:
        return f"tltool models show {architecture.reference}"
    written = str(better).lower() if isinstance(better, bool) else better
    return f"model.arguments.{name}={written}"


def _expect_argument(architecture: Architecture, name: str, value: Value) -> str:
    """Describes what was expected instead of `value`; "" when it is valid."""
    argument = architecture.arguments.get(name)
    if argument is None:
        known = ", ".join(sorted(architecture.arguments)) or "none"
        near = closest(name, architecture.arguments)
        return f"{architecture.name} has no argument {name!r}; " + (near or f"it has: {known}.")
    if argument.choices:
        choices = ", ".join(argument.choices)
        return "" if value in argument.choices else f"Expected one of: {choices}."
    kinds = (int, float) if argument.kind is float else (argument.kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and argument.kind is not bool):
        return f"Expected {_KIND_WORDS[argument.kind]}, got {type(value).__name__}."
    return _expect_range(argument, value)


def _expect_range(argument: Argument, value: Value) -> str:
    if isinstance(value, str) or argument.low is None or argument.high is None:
        return ""
    # `not (low <= x <= high)` and not its mirror image: a NaN is out of every range.
    if not argument.low <= value <= argument.high:
        return f"Expected {argument.low:g} to {argument.high:g}."
    return ""
