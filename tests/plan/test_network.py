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


@pytest.mark.parametrize(
    "name, instead",
    [("feature_noise", "augment.brightness"), ("feature_mixup", "augment.mixup")],
)
def test_features_of_a_phase_that_freezes_nothing_are_not_changed(name, instead):
    phases = [{"name": "all", "epochs": 1, "unfreeze": 5, name: 0.2},
              {"name": "most", "epochs": 1, "unfreeze": 4, name: 0.2}]  # fmt: skip

    findings, _ = check_network(make_recipe("vgg16", phases=phases).recipe, ("a", "b"))

    (finding,) = findings
    assert finding.path == ("phases", 0, name)
    assert f"{instead} changes the images" in finding.problem.expected


@pytest.mark.parametrize(
    "sections, path",
    [
        ({"augment": {"mixup": 0.2}}, "augment.mixup"),
        ({"augment": {"cutmix": 1.0}}, "augment.cutmix"),
        ({"phases": [{"name": "a", "epochs": 1, "feature_mixup": 1.0}]}, "phases[0].feature_mixup"),
    ],
)
def test_pixels_are_not_mixed(sections, path):
    with pytest.raises(RecipeError, match="each pixel has a target of its own") as caught:
        make_recipe(
            "vgg16", task="segmentation", model={"base": "vgg16", "weights": "random"}, **sections
        )

    assert path in str(caught.value)


def test_mixing_that_no_phase_trains_on_is_a_warning():
    digits = {
        "data": {"builtin": "digits", "image_size": 64},
        "model": {"base": "vgg16", "weights": "imagenet"},
        "augment": {"mixup": 0.2},
    }
    solved = make_recipe("vgg16", **digits, preset="fast", phases=None)
    trained = make_recipe("vgg16", **digits)

    assert "augment.mixup and cutmix change nothing" in check_recipe(solved).warnings[0]
    assert check_recipe(trained).warnings == []


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
