"""Recipes of multi-label classification: fields, defaults, what does not go with it."""

import pytest

from tests.tables import make_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import build_recipe, dump_recipe, load_recipe
from tl_toolkit.tasks.multilabel.spec import MultilabelSection


def build(overrides=(), **sections):
    return build_recipe(make_recipe("multilabel", "t.csv", **sections), overrides).recipe


def refuse(overrides=(), **sections):
    with pytest.raises(RecipeError) as caught:
        build(overrides, **sections)
    return str(caught.value)


def test_a_word_stands_for_the_defaults():
    task = build().task

    assert task == MultilabelSection()
    assert (task.labels, task.separator, task.threshold) == ("labels", "|", "validation")
    assert not task.is_dense and task.has_classes


def test_scores_are_compared_by_mean_average_precision():
    recipe = build(early_stopping={}, search={})

    assert recipe.early_stopping.monitor == "val_mean_average_precision"
    assert recipe.search.objective.name == "val_mean_average_precision"
    assert recipe.search.objective.is_max


def test_a_resolved_recipe_is_read_back_equal(tmp_path):
    recipe = build({"task.separator": ";", "task.threshold": 0.3})
    (tmp_path / "r.yaml").write_text(dump_recipe(recipe))

    assert load_recipe(tmp_path / "r.yaml").recipe == recipe


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({"task.label": "x"}, "one of kind, labels, separator, threshold, balance, calibrate, got"),
        ({"task.threshold": 1.0}, "expected validation, or a probability above 0 and below 1"),
        ({"task.threshold": "best"}, "expected validation, or a probability above 0 and below 1"),
        ({"task.separator": ""}, "expected text that is not empty"),
        ({"early_stopping.monitor": "val_accuracy"}, "expected val_mean_average_precision or val_"),
        ({"search.objective": "val_r2"}, "expected val_mean_average_precision or val_loss"),
        ({"model.head.activation": "sigmoid"}, "expected none for multilabel, which has its own"),
        ({"pixels": {}}, "expected no such section for multilabel"),
        ({"data.masks": {}}, "expected no such section for multilabel"),
        ({"~data.csv": None, "data.train": "photos"}, "expected data.csv, a table of images and"),
        ({"~data.csv": None, "data.builtin": "digits"}, "expected data.csv, a table of images and"),
        ({"data.examples_per_class": 3}, "expected data.csv, a table of images and targets"),
        ({"search.space": {"task.labels": {"choices": ["a"]}}}, "leaves the targets as they are"),
        (
            {"baseline": {"task.separator": ";"}},
            "leaves the targets as they are (task.threshold or task.balance or task.calibrate)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_words(override, expected):
    assert expected in refuse(override)
