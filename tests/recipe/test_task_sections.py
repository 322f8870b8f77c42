"""The section of a task: what each defines, what messages and overrides make of it."""

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import build_recipe, json_schema
from tl_toolkit.recipe.tasks import TASKS, find_task, list_monitors


def refuse(values, task, overrides=()):
    with pytest.raises(RecipeError) as caught:
        build_recipe({**values, "task": task}, overrides)
    return str(caught.value)


@pytest.mark.parametrize("kind", TASKS)
def test_a_task_describes_itself_and_its_fields(kind):
    section = find_task(kind)

    assert section().kind == kind
    assert section.__doc__ and all(field.description for field in section.model_fields.values())
    assert section.model_config["frozen"] and section.model_config["extra"] == "forbid"
    assert f"val_{section.score}" in list_monitors()
    assert set(section.tunable) <= set(section.model_fields) - {"kind"}


def test_editors_complete_the_fields_of_each_task():
    definitions = json_schema()["$defs"]

    for kind in TASKS:
        properties = definitions[find_task(kind).__name__]["properties"]
        assert properties["kind"]["const"] == kind


@pytest.mark.parametrize("kind", TASKS)
def test_an_unknown_key_is_told_with_the_keys_of_its_kind(values, kind):
    message = refuse(values, {"kind": kind, "nonsense": 1})

    assert f"expected one of {', '.join(find_task(kind).model_fields)}, got 'nonsense'" in message


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("regresion", "Try: task: regression"),
        ({"kind": "regresion"}, "task.kind = 'regresion'"),
        ({"kind": "regresion"}, "Try: kind: regression"),
        ({"kind": None}, "task.kind = null"),
        ({"loss": "mae"}, "expected a kind, 'classification', 'multilabel', 'regression'"),
        ({"loss": "mae"}, "Try: task: {kind: regression, loss: mae}"),
        ({}, "expected a kind, "),
        (3, "expected the name of a task, or a section with its kind, got 3"),
    ],
)
def test_what_is_no_task_is_refused_with_what_to_type(values, task, expected):
    assert expected in refuse(values, task)


@pytest.mark.parametrize(
    ("task", "overrides", "expected"),
    [
        ("regression", {"task.loss": "huber"}, {"kind": "regression", "loss": "huber"}),
        ("segmentation", {"task.kind": "regression"}, {"kind": "regression", "loss": "mse"}),
        (None, {"task.kind": "regression", "task.loss": "mae"}, {"loss": "mae"}),
        ({"kind": "regression", "loss": "mae"}, {"~task.loss": None}, {"loss": "mse"}),
        ({"kind": "multilabel", "threshold": 0.2}, {"task": "regression"}, {"kind": "regression"}),
    ],
)
def test_overrides_reach_a_task_given_as_a_word_too(values, task, overrides, expected):
    changed = {**values, "data": {"csv": "t.csv", "image_size": 28}}

    values = changed if task is None else {**changed, "task": task}
    section = build_recipe(values, overrides).recipe.task

    assert {name: getattr(section, name) for name in expected} == expected


def test_a_field_of_another_kind_is_refused_where_the_kind_changes(values):
    message = refuse(values, {"kind": "regression", "loss": "mae"}, {"task.kind": "multilabel"})

    words = "expected one of kind, labels, separator, threshold, balance, calibrate, got 'loss'"
    assert words in message


def test_a_field_of_a_task_that_was_not_named_asks_for_its_kind(values):
    with pytest.raises(RecipeError, match=r"override task\.loss='mae'  task\n  expected a kind, "):
        build_recipe(values, {"task.loss": "mae"})


@pytest.mark.parametrize("value", [3, "many", None, True])
def test_a_value_in_place_of_a_dimension_is_told_its_forms(values, value):
    message = refuse(values, "classification", {"search.space": {"seed": value}})

    assert "expected {choices: [...]}, a list, or {min: ..., max: ...}, got " in message
    assert "Try: {choices: [" in message
