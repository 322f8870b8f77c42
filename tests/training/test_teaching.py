"""A teacher's outputs: what a step makes of them, and where they come from."""

from dataclasses import replace

import numpy as np
import pytest

import tl_toolkit as tl
from tests.models import build_trainer, build_transfer, plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.errors import ToolkitError
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.images.pipeline import Images
from tl_toolkit.plan.check import plan_baseline, plan_trial
from tl_toolkit.plan.training import (
    PhaseSettings,
    Teaching,
    feature_values,
    training_settings,
)
from tl_toolkit.recipe.optimizers import SGD
from tl_toolkit.training.changes import TaughtTargets
from tl_toolkit.training.compiled import CompiledPhases
from tl_toolkit.training.folds import FoldTrainer
from tl_toolkit.training.prepare import split_folds
from tl_toolkit.training.teaching import Distillation

HEAD = {"name": "head", "epochs": 1, "learning_rate": 1e-2}


def softmax(values):
    powers = np.exp(values)
    return powers / powers.sum(axis=-1, keepdims=True)


def test_what_is_minimized_is_the_formula_of_the_paper():
    model, teacher = (np.random.default_rng(seed).normal(0, 3, (5, 4)) for seed in (0, 1))
    objective = np.arange(5.0)
    distillation = Distillation()
    distillation.set(temperature=4.0, weight=0.3)

    found = distillation.join(
        np.float32(objective), np.float32(softmax(model)), np.float32(softmax(teacher))
    )

    p, q = softmax(model / 4), softmax(teacher / 4)
    divergence = (q * np.log(q / p)).sum(axis=1)
    np.testing.assert_allclose(found, 0.7 * objective + 0.3 * 16 * divergence, rtol=1e-4)


def test_a_step_moves_the_logits_by_what_the_teacher_has_more():
    transfer = build_transfer("lenet5", seed=1)
    teaching = Teaching(None, (), (32, 32), "stretch", 2.0, 1.0)
    phase = PhaseSettings("head", 1, SGD(), 0.1, teaching=teaching)
    _, steps = CompiledPhases(transfer).get(phase, 6)
    steps.distillation.set(temperature=2.0, weight=1.0)  # labels do not count
    random = np.random.default_rng(0)
    features = random.uniform(size=(6, *steps.model.input.shape[1:])).astype(np.float32)
    taught = softmax(random.normal(0, 2, (6, 3))).astype(np.float32)
    output = transfer.model.get_layer("predictions")
    kernel, bias = output.get_weights()
    logits = features.reshape(6, -1) @ kernel + bias

    norms = steps.weigh_gradients(features, TaughtTargets(np.zeros(6, np.int32), taught))
    steps.train(features, TaughtTargets(np.zeros(6, np.int32), taught))

    # The gradient of T^2 KL by a logit is T times the difference of the softened probabilities.
    difference = softmax(np.log(taught) / 2) - softmax(logits / 2)
    expected = bias + 0.1 * 2 * difference.mean(axis=0)
    np.testing.assert_allclose(output.bias.numpy(), expected, atol=1e-6)
    slopes = -2 * difference / 6
    gradient = np.hypot(
        np.linalg.norm(features.reshape(6, -1).T @ slopes), np.linalg.norm(slopes.sum(axis=0))
    )
    weight = np.hypot(np.linalg.norm(kernel), np.linalg.norm(bias))
    assert norms == {"head": pytest.approx(gradient / weight, rel=1e-4)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run of 3, 5 and 8 at 48 pixels, which was never trained."""
    recipe = digits_recipe(phases=[{**HEAD, "epochs": 0}], yardsticks=False)
    recipe["data"] = recipe["data"] | {"image_size": 48, "resize": "pad"}
    return tl.finetune(recipe, out=tmp_path_factory.mktemp("teacher") / "run")


@pytest.fixture(scope="module")
def taught(teacher, tmp_path_factory):
    """A trainer of 8, 3 and 5 that learns from it, its images, and its outcome."""
    plan, task = plan_values(taught_recipe(teacher))
    trainer, images = build_trainer(plan, task, tmp_path_factory.mktemp("images"))
    return trainer, images, trainer.train(training_settings(plan)), plan


def taught_recipe(teacher, **sections):
    recipe = digits_recipe(phases=[HEAD], **{"teacher": str(teacher.path)} | sections)
    return {**recipe, "data": recipe["data"] | {"classes": ["8", "3", "5"]}}


@pytest.mark.slow
def test_the_outputs_are_the_teachers_in_the_order_of_the_recipes_classes(teacher, taught):
    trainer, images, _, plan = taught
    (phase,) = training_settings(plan).phases

    shares = trainer._teachers.find(phase.teaching)

    size = Images(images["train"].examples, image_size=(48, 48))
    pixels = size.load(np.arange(len(size))).astype(np.float32)
    expected = teacher.model.predict(pixels, verbose=0)  # of 3, 5 and 8
    np.testing.assert_allclose(shares, expected[:, [2, 0, 1]], atol=1e-5)


@pytest.mark.slow
def test_each_fold_learns_what_the_teacher_makes_of_its_own_images(taught):
    trainer, images, _, plan = taught
    (phase,) = training_settings(plan).phases
    folded, task = plan_values(plan.recipe, {"data.folds": 2})
    examples = [
        replace(example, fold=n % 2 + 1) for n, example in enumerate(images["train"].examples)
    ]
    whole = Images(examples, image_size=(32, 32), targets=images["train"].targets)
    features = FeatureSettings.from_values(feature_values(folded.recipe))

    folds = FoldTrainer(trainer, features, split_folds(folded, task, whole))

    known = trainer._teachers.find(phase.teaching)
    for fold, own in enumerate(folds.trainers):
        np.testing.assert_array_equal(own._teachers.find(phase.teaching), known[1 - fold :: 2])


@pytest.mark.slow
def test_they_change_what_is_trained_but_not_what_is_reported(taught, tmp_path):
    trainer, _, outcome, plan = taught

    alone, _ = plan_values(plan.recipe, {"~teacher": None})
    plain = trainer.train(training_settings(alone))

    assert outcome.history[0] == plain.history[0]
    assert outcome.history[1].loss == pytest.approx(plain.history[1].loss, rel=0.5)
    assert outcome.weights_sha256 != plain.weights_sha256


@pytest.mark.slow
@pytest.mark.parametrize("store", ["never", "auto"])
def test_the_store_changes_no_bit_and_spares_the_teacher(taught, tmp_path, monkeypatch, store):
    plan, task = plan_values(taught[3].recipe, {"features.store": store})
    trainer, _ = build_trainer(plan, task, tmp_path)
    if store == "auto":
        monkeypatch.setattr("tl_toolkit.features.teacher.load_saved_model", None)

    again = trainer.train(training_settings(plan))

    assert again.weights_sha256 == taught[2].weights_sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.classes": ["3", "5"]}, r"knows the classes 3, 5, 8(.|\n)*data\.classes=\["),
        ({"teacher": "nowhere"}, "is no run"),
        ({"teacher.temperature": 0}, r"teacher\.temperature = 0"),
        ({"teacher.weight": 1.5}, r"teacher\.weight = 1.5"),
        ({"~phases": None, "preset": "fast"}, "learns labels alone"),
        ({"augment": {"mixup": 0.2}}, r"none with augment\.mixup(.|\n)*Try: ~augment\.mixup"),
        ({"phases.head.feature_mixup": 0.2}, r"Try: ~phases\.0\.feature_mixup, or ~teacher"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_words(teacher, changes, message):
    with pytest.raises(ToolkitError, match=message):
        plan_values(taught_recipe(teacher), changes)


def test_other_tasks_take_no_teacher(teacher):
    recipe = digits_recipe(phases=[HEAD], teacher=str(teacher.path), task="multilabel")
    recipe["data"] = {"csv": "labels.csv", "validation": 0.2, "image_size": 32}

    with pytest.raises(ToolkitError, match="expected none but for classification"):
        plan_values(recipe)


def test_a_search_and_a_baseline_may_change_it(teacher):
    space = {"teacher.weight": {"choices": [0.3, 0.9]}}
    recipe = taught_recipe(teacher, baseline={"~teacher": None}, search={"space": space})

    plan, _ = plan_values(recipe, ["teacher.temperature=3"])

    (phase,) = training_settings(plan_trial(plan, {"teacher.weight": 0.3})).phases
    assert (phase.teaching.temperature, phase.teaching.weight) == (3, 0.3)
    assert training_settings(plan_baseline(plan)).phases[0].teaching is None
    assert plan_baseline(plan_values(recipe, {"baseline": "scratch"})[0]).recipe.teacher is None
    assert plan.recipe.teacher.run == teacher.path
