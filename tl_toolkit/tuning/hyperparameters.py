"""The fields of a search space as KerasTuner's hyperparameters, and its values as a recipe's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras_tuner

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.plan.space import Space
from tl_toolkit.plan.values import describe_value
from tl_toolkit.recipe.search_schema import Dimension

__all__ = ["as_choices", "as_key", "read_values", "register_space", "write_values"]


def register_space(
    space: Space, parameters: keras_tuner.HyperParameters | None = None
) -> keras_tuner.HyperParameters:
    """Declares a space to KerasTuner, under the names of its fields.

    Args:
        space: Fields and values.
        parameters: The object to declare them in; a new one by default.
    """
    if parameters is None:
        parameters = keras_tuner.HyperParameters()
    for field, dimension in space.items():
        _register(parameters, field, dimension)
    return parameters


def _register(parameters: keras_tuner.HyperParameters, field: str, dimension: Dimension) -> None:
    if dimension.choices is not None:
        choices = as_choices(dimension.choices)
        if set(choices) == {False, True} and isinstance(choices[0], bool):
            parameters.Boolean(field, default=choices[0])  # a Choice would make numbers of them
        elif _are_numbers(dimension.choices):
            parameters.Choice(field, sorted(choices), ordered=True)
        else:
            parameters.Choice(field, choices, ordered=False)
        return
    settings = {
        "min_value": dimension.min,
        "max_value": dimension.max,
        "sampling": dimension.sampling,
    }
    if dimension.is_whole:
        step = dimension.step or (None if dimension.sampling == "log" else 1)
        parameters.Int(field, step=step, **settings)
    else:
        if dimension.step is not None and dimension.sampling == "linear":
            # KerasTuner counts (0.3 - 0.1) // 0.1 = 1 steps, and would leave the end out.
            settings["max_value"] = float(dimension.max or 0) + dimension.step * 1e-6
        parameters.Float(field, step=dimension.step, **settings)


def read_values(parameters: keras_tuner.HyperParameters, space: Space) -> dict[str, Any]:
    """Returns KerasTuner's values as a recipe has them.

    Args:
        parameters: With the values of a trial.
        space: The fields that are read.

    Raises:
        RecipeError: A value is none of the space, as where a tuner resumed another search.
    """
    values = {}
    for field, dimension in space.items():
        value = parameters.get(field)
        if dimension.choices is not None:
            value = _find_choice(field, value, dimension.choices)
        # Steps add up to 0.30000000000000004.
        values[field] = float(f"{value:.12g}") if isinstance(value, float) else value
    return values


def _find_choice(field: str, value: Any, choices: tuple[Any, ...]) -> Any:
    known = as_choices(choices)
    if value not in known:
        what = f"{field} = {value!r}: no choice of the space, which has {known}"
        expected = "Values of a tuner are those of the recipe that it searches."
        raise RecipeError(Problem("", what, expected, "another project_name, or overwrite=True"))
    return choices[known.index(value)]


def write_values(values: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Returns a recipe's values as KerasTuner has them: of values that it cannot hold, texts.

    Args:
        values: A value for each field.
        space: The fields.
    """
    written = {}
    for field, dimension in space.items():
        value = values[field]
        if dimension.choices is not None and not _are_numbers(dimension.choices):
            place = [as_key(choice) for choice in dimension.choices].index(as_key(value))
            value = as_choices(dimension.choices)[place]
        written[field] = value
    return written


def as_choices(choices: tuple[Any, ...]) -> list[Any]:
    """Returns choices as tuners can hold them: of one kind, and no sections or lists.

    They are the values themselves where they can, else texts that people read: `from block3`.

    Args:
        choices: Values of a recipe.
    """
    kinds = {type(choice) for choice in choices}
    if kinds in ({int}, {float}, {str}) or (kinds == {bool} and len(choices) == 2):
        return list(choices)
    if kinds == {int, float}:
        return [float(choice) for choice in choices]
    for describe in (_describe_choice, as_key):
        texts = [describe(choice) for choice in choices]
        if len(set(texts)) == len(texts):
            return texts
    return [f"{text} ({number})" for number, text in enumerate(texts, start=1)]


def _describe_choice(value: Any) -> str:
    if isinstance(value, bool | float | list | tuple) or value is None:
        return json.dumps(value, default=str)  # all digits, and lists as a recipe has them
    return describe_value(value)


def as_key(value: Any) -> str:
    """Returns a text that equal values share, and no others.

    Args:
        value: A value of a recipe, or values by field.
    """
    return json.dumps(value, sort_keys=True, default=str)


def _are_numbers(choices: tuple[Any, ...]) -> bool:
    kinds = {type(choice) for choice in choices}
    return kinds == {int} or kinds == {float}
