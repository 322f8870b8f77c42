"""Heads that a base's paper has, in place of the word."""

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.check import check_recipe
from tl_toolkit.plan.network import check_network, resolve_head
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.recipe.schema import Head


def make_recipe(base, *, task="classification", **sections):
    values = {
        "version": 1,
        "name": "heads",
        "task": task,
        "data": {"train": "photos", "image_size": 64, "classes": ["a", "b"]},
        "model": {"base": base, "weights": "random", "head": "paper"},
        "phases": [{"name": "head", "epochs": 1}],
    }
    return build_recipe(values | sections)


def resolve(base):
    return resolve_head(make_recipe(base).recipe).model.classifier


def test_the_papers_head_is_that_of_the_base():
    head = resolve("vgg16")

    assert head.pooling == "flatten"
    assert [(hidden.units, hidden.dropout) for hidden in head.hidden] == [(4096, 0.5)] * 2


def test_the_papers_head_of_a_base_without_hidden_layers_is_a_single_layer():
    assert resolve("resnet50") == Head()


def test_a_head_that_is_written_out_stays_as_it_is():
    recipe = make_recipe("vgg16", model={"base": "vgg16", "weights": "random"}).recipe

    assert resolve_head(recipe) is recipe


def test_a_network_whose_paper_has_no_classifier_has_no_papers_head():
    with pytest.raises(RecipeError, match="model.head = 'paper' with unet") as caught:
        check_recipe(make_recipe("unet", data={"builtin": "digits", "image_size": 32}))

    assert "its paper has no classifier" in str(caught.value)


def test_a_papers_head_that_does_not_fit_the_task_is_refused():
    problems = [
        finding.problem
        for finding in check_network(make_recipe("vgg16", task="segmentation").recipe, ("a", "b"))
    ]

    assert [problem.what for problem in problems] == ["model.head = 'paper' with vgg16: pooling"]
    assert "expected none for segmentation" in problems[0].expected
