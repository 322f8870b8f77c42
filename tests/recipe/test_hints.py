"""What a newcomer types, and what every refusal of it says to type instead."""

import pytest

from tests.tables import draw_tables, make_recipe
from tl_toolkit.catalog.lookup import find_architecture
from tl_toolkit.errors import ToolkitError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.recipe.load import build_recipe, load_recipe

RECIPE = {
    "version": 1,
    "name": "photos",
    "data": {"train": "photos", "validation": 0.25, "image_size": 32},
    "model": {"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": "random"},
    "phases": [{"name": "head", "epochs": 1}, {"name": "tune", "epochs": 1, "unfreeze": 1}],
}


def refuse(overrides, values=RECIPE):
    with pytest.raises(ToolkitError) as caught:
        build_recipe(values, overrides)
    return caught.value.problems


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("phases.tune.unfreeze=conv_dw_12", "phases.tune.unfreeze='{from: conv_dw_12}'"),
        ("phases.tune.unfreeze=none", "phases.tune.unfreeze=0"),
        ("task.los=mae", "task='{kind: regression, loss: mae}'"),
        ("task.loss=mae", "task='{kind: regression, loss: mae}'"),
        ("model.arguments={alpha:0.25}", "alpha: 0.25"),
        ("phases.tune.unfreeze={from:conv_dw_12}", "from: conv_dw_12"),
        (
            "phases.head.learning_rate={kind: cosne, initial: 0.1}",
            "phases.head.learning_rate='{kind: cosine, initial: 0.1}'",
        ),
        ("phases.head.optimizer=adm", "phases.head.optimizer=adam"),
    ],
)
def test_an_override_that_is_refused_is_answered_by_one(typed, hint):
    (problem,) = refuse([typed])

    assert problem.where == f"override {typed}"
    assert problem.hint == hint


@pytest.mark.parametrize(("typed", "hint"), [("mae", "task.loss=mae"), ("", "task.loss=mse")])
def test_a_misspelt_field_of_a_task_is_named_with_a_value_that_it_takes(typed, hint):
    problems = refuse([f"task.los={typed}"], RECIPE | {"task": "regression"})
    (problem,) = (problem for problem in problems if "task.los" in problem.what)

    assert problem.hint == hint


def test_a_hint_of_a_file_is_written_as_in_a_file(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "version: 1\nname: x\ndata: {train: photos, validation: 0.2, image_size: 32}\n"
        "model:\n  base: mobilenet\n  weights: random\n  arguments: {alpha:0.25}\n"
        "phases:\n  - {name: head, epochs: 1, unfreeze: conv_dw_12}\n"
    )

    with pytest.raises(ToolkitError) as caught:
        load_recipe(tmp_path / "r.yaml")

    alpha, unfreeze = caught.value.problems
    assert (alpha.where, alpha.hint) == (f"{tmp_path}/r.yaml:7:15", "alpha: 0.25")
    assert unfreeze.hint == "unfreeze: {from: conv_dw_12}"


@pytest.mark.parametrize("name", ["base.kras", "models/base.h5", "base.keras"])
def test_a_file_in_the_place_of_a_base_is_answered_by_the_section_for_files(name):
    with pytest.raises(ToolkitError) as caught:
        find_architecture(name)

    stem = name.rpartition(".")[0]
    assert caught.value.problems[0].hint == f"model.base={{model: {stem}.keras}}"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("[siz]", "task.columns=[size]"), ("[size, age]", "task.columns=[size]"), ("[path]", None)],
)
def test_a_wrong_column_is_told_where_the_recipe_names_it(tmp_path, typed, hint):
    table = draw_tables(tmp_path / "data", count=4) / "numbers.csv"
    override = f"task.columns={typed}"

    with pytest.raises(ToolkitError) as caught:
        check_recipe(build_recipe(make_recipe("regression", table), [override]))

    (problem,) = caught.value.problems
    assert problem.where == f"override {override}"
    assert problem.what.startswith("task.columns")
    if hint:
        assert problem.hint == hint


def test_a_wrong_column_of_labels_is_told_where_the_recipe_names_it(tmp_path):
    table = draw_tables(tmp_path / "data", count=4) / "labels.csv"

    with pytest.raises(ToolkitError) as caught:
        check_recipe(build_recipe(make_recipe("multilabel", table), ["task.labels=label"]))

    (problem,) = caught.value.problems
    assert problem.where == "override task.labels=label"
    assert problem.hint == "task.labels=labels"
