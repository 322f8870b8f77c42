"""Labels that few images have: what a step minimizes, computed by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tl_toolkit.tasks.multilabel.task import Multilabel
from tl_toolkit.tasks.standardized import Standardized

PROBABILITIES = np.array([[0.7, 0.2], [0.1, 0.6], [0.9, 0.5]])
LABELS = np.array([[1, 0], [0, 1], [0, 0]], np.int32)
TRAINING = np.array([[1, 0]] * 6 + [[0, 0]] * 3 + [[1, 1]], np.int32)
SHARES = np.array([0.7, 0.1])
OF_LABEL = np.where(LABELS == 1, PROBABILITIES, 1 - PROBABILITIES)


def minimize(**settings):
    task = Multilabel(("often", "rare"), **settings)
    task.prepare(TRAINING)
    outputs = tf.constant(PROBABILITIES, tf.float32)
    losses, _ = task.compare(outputs, tf.constant(LABELS))
    return task.find_objective(outputs, tf.constant(LABELS), losses).numpy(), losses.numpy()


def test_without_settings_a_step_minimizes_the_loss():
    objective, losses = minimize()

    np.testing.assert_array_equal(objective, losses)


def test_class_weights_are_half_the_inverse_of_what_has_or_lacks_the_label():
    objective, _ = minimize(balance="class_weights")

    weights = 0.5 / np.where(LABELS == 1, SHARES, 1 - SHARES)
    np.testing.assert_allclose(objective, -(weights * np.log(OF_LABEL)).mean(axis=1), rtol=1e-5)


def test_focal_weighs_down_what_is_predicted_well():
    objective, _ = minimize(balance="focal")

    expected = -((1 - OF_LABEL) ** 2 * np.log(OF_LABEL)).mean(axis=1)
    np.testing.assert_allclose(objective, expected, rtol=1e-4)


def test_images_with_and_without_a_label_weigh_alike():
    task = Multilabel(("often", "rare"), balance="class_weights")
    task.prepare(TRAINING)

    weights = task._class_weights(TRAINING.astype(np.float32)).numpy()

    np.testing.assert_allclose((weights * TRAINING).sum(axis=0), [5, 5], rtol=1e-5)
    np.testing.assert_allclose((weights * (1 - TRAINING)).sum(axis=0), [5, 5], rtol=1e-5)


def test_a_label_that_every_image_has_keeps_finite_weights():
    task = Multilabel(("all", "none"), balance="class_weights")
    task.prepare(np.array([[1, 0]] * 4, np.int32))

    assert np.isfinite(task._class_weights(np.eye(2, dtype=np.float32)).numpy()).all()


@pytest.mark.parametrize("balance", ["class_weights", "focal"])
def test_a_hopeless_image_leaves_a_gradient(balance):
    task = Multilabel(("a", "b"), balance=balance)
    task.prepare(TRAINING)

    @tf.function
    def differentiate(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            outputs = tf.sigmoid(logits)
            objective = task.find_objective(outputs, tf.constant([[0, 1]]), tf.zeros(1))
        return tape.gradient(objective, logits)

    gradient = differentiate(tf.constant([[60.0, -60.0]])).numpy()

    assert gradient[0, 0] > 0.1 and gradient[0, 1] < -0.1


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_a_solved_head_recalls_more_of_a_rare_label(solver):
    random = np.random.default_rng(0)
    labels = (random.uniform(size=(300, 1)) < 0.1).astype(np.int32)
    x = random.normal(size=(300, 4)) + labels

    def recall(**settings):
        task = Multilabel(("rare",), **settings)
        task.prepare(labels)
        solution = task.solve(Standardized(x), labels, solver)
        return (x @ solution.kernel + solution.bias > 0)[labels == 1].mean()

    assert recall(balance="class_weights") > recall() + 0.2
