"""Classes of unequal size and smoothed targets: what a step minimizes, computed by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tests.models import build_trainer, plan_values
from tests.training.test_loop import digits_recipe
from tl_toolkit.events import ignore
from tl_toolkit.features.settings import FeatureSettings
from tl_toolkit.features.source import FeatureSource
from tl_toolkit.plan.training import training_settings
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.standardized import Standardized

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])
LABELS = np.array([0, 1, 2, 1], np.int32)
TRAINING = np.repeat([0, 1, 2], [6, 3, 1])
SHARES = np.array([0.6, 0.3, 0.1])
OF_LABEL = PROBABILITIES[np.arange(4), LABELS]


def minimize(**settings):
    task = Classification(("a", "b", "c"), **settings)
    task.prepare(TRAINING)
    outputs = tf.constant(PROBABILITIES, tf.float32)
    losses, _ = task.compare(outputs, tf.constant(LABELS))
    return task.find_objective(outputs, tf.constant(LABELS), losses).numpy(), losses.numpy()


def test_without_settings_a_step_minimizes_the_loss():
    objective, losses = minimize()

    np.testing.assert_array_equal(objective, losses)


def test_class_weights_are_the_inverse_of_the_classes_shares():
    objective, losses = minimize(balance="class_weights")

    np.testing.assert_allclose(objective, losses / (3 * SHARES[LABELS]), rtol=1e-5)


def test_weights_of_the_training_images_have_a_mean_of_1():
    task = Classification(("a", "b", "c"), balance="class_weights")
    task.prepare(TRAINING)

    assert task._class_weights().numpy()[TRAINING].mean() == pytest.approx(1)


def test_focal_weighs_down_what_is_predicted_well():
    objective, losses = minimize(balance="focal")

    np.testing.assert_allclose(objective, (1 - OF_LABEL) ** 2 * losses, rtol=1e-5)


def test_logit_adjust_takes_the_shares_out_of_the_logits():
    objective, _ = minimize(balance="logit_adjust")

    adjusted = PROBABILITIES * SHARES
    adjusted /= adjusted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(objective, -np.log(adjusted[np.arange(4), LABELS]), rtol=1e-5)


def test_smoothing_spreads_a_share_of_the_target():
    objective, _ = minimize(label_smoothing=0.3)

    targets = 0.7 * np.eye(3)[LABELS] + 0.1
    np.testing.assert_allclose(objective, -(targets * np.log(PROBABILITIES)).sum(axis=1), rtol=1e-5)


def test_a_sigmoid_is_balanced_as_two_classes():
    task = Classification(("a", "b"), activation="sigmoid", balance="class_weights")
    task.prepare(np.array([0, 0, 0, 1]))
    outputs, labels = tf.constant([[0.2], [0.9]]), tf.constant([0, 1])
    losses, _ = task.compare(outputs, labels)

    objective = task.find_objective(outputs, labels, losses).numpy()

    np.testing.assert_allclose(
        objective, -np.log([0.8, 0.9]) / (2 * np.array([0.75, 0.25])), rtol=1e-5
    )


def test_a_hopeless_image_leaves_a_finite_gradient():
    task = Classification(("a", "b", "c"), balance="focal")
    logits = tf.Variable([[200.0, 0.0, -200.0]])
    with tf.GradientTape() as tape:
        outputs = tf.nn.softmax(logits)
        labels = tf.constant([2])
        objective = task.find_objective(outputs, labels, tf.zeros(1))

    assert np.isfinite(tape.gradient(objective, logits).numpy()).all()


def make_unbalanced(count=400):
    random = np.random.default_rng(0)
    labels = (random.uniform(size=count) < 0.1).astype(np.int32)
    return random.normal(size=(count, 4)) + labels[:, None], labels


def order(targets, epoch=1, **settings):
    task = Classification(("a", "b", "c"), **settings)
    return task.order_epoch(np.array(targets), np.random.default_rng((3, epoch)))


def test_oversampling_shows_each_class_equally_often_in_as_many_steps():
    targets = np.repeat([0, 1, 2], [20, 7, 3])

    epochs = [order(targets, epoch, balance="oversample") for epoch in (1, 1, 2)]

    for images in epochs:
        assert np.bincount(targets[images]).tolist() == [10, 10, 10]
        times = np.bincount(images, minlength=30)
        assert (
            set(times[:20]) == {0, 1}
            and set(times[20:27]) == {1, 2}
            and set(times[27:])
            == {
                3,
                4,
            }
        )
    np.testing.assert_array_equal(epochs[0], epochs[1])
    assert set(epochs[0][targets[epochs[0]] == 0]) != set(epochs[2][targets[epochs[2]] == 0])


def test_oversampling_shares_out_what_is_left_and_leaves_absent_classes_out():
    counts = np.bincount(
        np.array([0] * 8 + [2] * 3)[order([0] * 8 + [2] * 3, balance="oversample")]
    )

    assert sorted(counts.tolist()) == [0, 5, 6]


def test_without_it_each_image_comes_once_in_the_order_that_it_had():
    expected = np.random.default_rng((3, 1)).permutation(30)

    np.testing.assert_array_equal(order([0] * 30), expected)


@pytest.mark.slow
def test_oversampled_steps_are_the_same_with_a_store_and_after_a_pause(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    recipe = digits_recipe(
        task={"kind": "classification", "balance": "oversample"},
        phases=[{"name": "head", "epochs": 2, "learning_rate": 1e-2}],
        features={"store": "always"},
    )
    plan, task = plan_values(recipe)
    stored, images = build_trainer(plan, task, tmp_path)
    never = FeatureSettings(plan.recipe.data.image_size, "stretch", store="never")
    live = stored.with_images(FeatureSource(stored.transfer, never, images, ignore), images, ignore)
    settings = training_settings(plan)

    results = [trainer.train(settings) for trainer in (stored, live)]
    paused = stored.train(settings, pause_after=1).paused
    results.append(live.train(settings, paused=paused))

    assert len({result.weights_sha256 for result in results}) == 1
    assert results[0].history == results[1].history == results[2].history


@pytest.mark.parametrize("balance", ["class_weights", "oversample", "logit_adjust"])
def test_a_solved_head_recalls_more_of_a_rare_class(balance):
    x, labels = make_unbalanced()

    def recall(**settings):
        task = Classification(("often", "rare"), **settings)
        task.prepare(labels)
        solution = task.solve(Standardized(x), labels, "ridge")
        predicted = (x @ solution.kernel + solution.bias).argmax(axis=1)
        return predicted[labels == 1].mean()

    assert recall(balance=balance) > recall() + 0.2
