"""Recipes of regression: fields, defaults, what does not go with it."""

import pytest

from tests.tables import make_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import build_recipe, dump_recipe, load_recipe
from tl_toolkit.tasks.regression.spec import RegressionSection


def build(overrides=(), **sections):
    return build_recipe(make_recipe("regression", "t.csv", **sections), overrides).recipe


def refuse(overrides=(), **sections):
    with pytest.raises(RecipeError) as caught:
        build(overrides, **sections)
    return str(caught.value)


def test_a_word_stands_for_the_defaults():
    task = build().task

    assert task == RegressionSection()
    assert (task.columns, task.loss, task.huber_delta) == (None, "mse", 1.0)
    assert not task.is_dense and not task.has_classes


def test_scores_are_compared_by_r2():
    recipe = build(early_stopping={}, search={})

    assert recipe.early_stopping.monitor == recipe.search.objective.name == "val_r2"
    assert recipe.search.objective.is_max
    assert {"loss", "mae", "rmse"} == recipe.task.lower_is_better


def test_a_resolved_recipe_is_read_back_equal(tmp_path):
    recipe = build({"task.columns": ["a b", "1"], "task.loss": "huber", "task.huber_delta": 2.0})
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe))

    assert load_recipe(tmp_path / "r.yaml").recipe == recipe


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            {"task.los": "mae"},
            "columns, loss, huber_delta, coverage, got 'los'; did you mean 'loss'?",
        ),
        ({"task.loss": "hubert"}, "Try: task.loss=huber"),
        ({"task.huber_delta": -1.0, "task.loss": "huber"}, "expected a number above 0, got -1.0"),
        ({"task.huber_delta": 2.0}, "expected 1.0 or loss: huber, got 2.0"),
        ({"task.columns": []}, "expected at least 1 in the list"),
        ({"task.columns": "age"}, "Try: task.columns=[age]"),
        ({"task.columns": ["age", "age"]}, "expected each name once, got 'age' again"),
        ({"task.columns": ["split"]}, "expected another name than path, split, sha256, verdict"),
        ({"data.classes": ["a", "b"]}, "expected none for regression: its outputs are numbers"),
        ({"early_stopping.monitor": "val_accuracy"}, "expected val_r2 or val_loss for regression"),
        ({"model.head.activation": "sigmoid"}, "expected none for regression, which has its own"),
        ({"pixels": {}}, "expected no such section for regression"),
        ({"~data.csv": None, "data.train": "photos"}, "expected data.csv, a table of images and"),
        ({"search.space": {"task.columns": {"choices": [["a"]]}}}, "(task.loss or task.huber_"),
        ({"search.space": {"task.kind": {"choices": ["edges"]}}}, "scores of other tasks cannot"),
        ({"baseline": {"task.columns": ["a"]}}, "leaves the targets as they are"),
        ({"baseline": {"task": "multilabel"}}, "it uses the same images"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(override, expected):
    assert expected in refuse(override)


def test_a_loss_can_be_tried_and_compared_with():
    recipe = build(
        {
            "search.space": {"task.loss": {"choices": ["mse", "mae"]}},
            "baseline": {"task.loss": "huber"},
        }
    )

    assert recipe.search.space["task.loss"].choices == ("mse", "mae")
    assert dict(recipe.baseline) == {"task.loss": "huber"}
