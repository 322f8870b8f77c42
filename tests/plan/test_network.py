"""What a recipe's model and phases are by the catalog; heads that a base's paper has."""

from pathlib import Path

import pytest

import tl_toolkit
from tl_toolkit.errors import RecipeError, WeightsError
from tl_toolkit.plan.check import check_recipe, plan_trial
from tl_toolkit.plan.network import check_network, resolve_head, resolve_network
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
    findings, _ = check_network(make_recipe("vgg16", task="segmentation").recipe, ("a", "b"))
    problems = [finding.problem for finding in findings]

    assert [problem.what for problem in problems] == ["model.head = 'paper' with vgg16: pooling"]
    assert "expected none for segmentation" in problems[0].expected


def test_what_was_checked_is_what_the_plan_holds():
    recipe = make_recipe(
        "mobilenet",
        data={"builtin": "digits", "image_size": 128},
        model={"base": "mobilenet", "weights": "imagenet", "arguments": {"alpha": 0.5}},
        phases=[{"name": "head", "epochs": 1}, {"name": "tune", "epochs": 1, "unfreeze": 1}],
    )

    plan = check_recipe(recipe)
    findings, network = check_network(recipe.recipe, plan.classes)

    assert findings == []
    assert network == resolve_network(recipe.recipe)
    assert plan.units == network.units == {"head": (), "tune": ("conv_dw_12", "conv_dw_13")}
    assert plan.weights_file == network.weights_file
    assert plan.weights_file.name == plan.published.name == "mobilenet_5_0_128_tf_no_top.h5"


def test_the_plan_of_a_trial_is_of_its_own_base():
    plan = check_recipe(make_recipe("vgg16", data={"builtin": "digits", "image_size": 64}))

    trial = plan_trial(
        plan, {"model.base": "mobilenet", "model.weights": "imagenet", "model.head": {}}, seed=3
    )

    assert (trial.recipe.seed, trial.architecture.name) == (3, "mobilenet")
    assert trial.published in trial.architecture.weight_files
    assert trial.survey is plan.survey and plan.architecture.name == "vgg16"


def test_a_trial_of_weights_that_were_never_published_is_refused():
    plan = check_recipe(make_recipe("vgg16", data={"builtin": "digits", "image_size": 32}))

    with pytest.raises(WeightsError, match="no ImageNet weights of lenet5 were ever published"):
        plan_trial(plan, {"model.base": "lenet5", "model.weights": "imagenet", "model.head": {}})


def test_unfreezing_is_resolved_where_a_plan_is_made():
    package = Path(tl_toolkit.__file__).parent
    naming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "resolve_unfreeze" in path.read_text()
    }

    assert naming == {
        "catalog/lookup.py",
        "catalog/unfreezing.py",
        "plan/network.py",  # of phases
        "plan/space.py",  # of values that a search will try
        "inspect/describe.py",  # of an argument of `describe_architecture`
    }
