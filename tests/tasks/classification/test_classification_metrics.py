"""Metrics of classification, against numbers worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from tl_toolkit.tasks.classification.metrics import measure_classification

CLASSES = ("a", "b", "c")


def one_hot(predictions, classes=3):
    return np.eye(classes, dtype=np.float32)[predictions] * 0.7 + np.float32(0.1)


def test_counts_and_means_are_those_of_a_confusion_worked_out_by_hand():
    metrics = measure_classification(
        np.array([0, 0, 0, 1, 1, 2]), one_hot([0, 0, 1, 1, 2, 2]), CLASSES
    )

    assert metrics["images"] == 6
    assert metrics["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert metrics["loss"] == pytest.approx(-(4 * np.log(0.8) + 2 * np.log(0.1)) / 6, rel=1e-6)
    assert metrics["per_class"]["a"] == pytest.approx(
        {"precision": 1.0, "recall": 2 / 3, "f1": 4 / 5, "images": 3}
    )
    assert type(metrics["per_class"]["a"]["images"]) is int


def test_a_class_without_images_counts_in_no_mean():
    metrics = measure_classification(np.array([0, 0, 1]), one_hot([0, 2, 1]), CLASSES)

    assert metrics["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert metrics["per_class"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "images": 0}
    assert metrics["confusion"][2] == [0, 0, 0]


def test_the_loss_is_the_mean_of_the_training_losses_where_they_are_passed():
    labels, probabilities = np.array([0, 1]), np.eye(2, dtype=np.float32)[[1, 1]]

    metrics = measure_classification(
        labels, probabilities, CLASSES[:2], losses=np.array([60.0, 0.0], np.float32)
    )

    assert metrics["loss"] == 30
    assert 17 < measure_classification(labels, probabilities, CLASSES[:2])["loss"] < 18.1


def test_rows_of_a_float32_softmax_over_many_classes_are_accepted():
    logits = np.random.default_rng(0).normal(size=(20, 1000)).astype(np.float32)
    exponents = np.exp(logits)
    labels = np.arange(20)

    metrics = measure_classification(
        labels,
        exponents / exponents.sum(axis=1, keepdims=True),
        [f"class {index}" for index in range(1000)],
    )

    expected = np.log(np.exp(logits.astype(float)).sum(axis=1)) - logits[np.arange(20), labels]
    assert metrics["loss"] == pytest.approx(expected.mean(), rel=1e-6)


def test_a_model_whose_outputs_are_not_finite_has_no_loss():
    probabilities = np.full((2, 2), np.nan, np.float32)

    assert np.isnan(measure_classification(np.array([0, 1]), probabilities, "ab")["loss"])


@pytest.mark.parametrize("seed", range(5))
def test_each_metric_is_that_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    names = [f"class {number}" for number in range(6)]
    probabilities = random.dirichlet(np.full(6, 0.4), 80)
    labels = random.integers(0, 5, 80)  # the last class has predictions and no images

    actual = measure_classification(labels, probabilities, names)

    predictions, indices = probabilities.argmax(axis=1), np.arange(6)
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        labels, predictions, labels=indices, zero_division=0.0
    )
    assert [list(values.values()) for values in actual["per_class"].values()] == [
        pytest.approx(row) for row in zip(precision, recall, f1, support, strict=True)
    ]
    assert actual["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predictions))
    assert actual["balanced_accuracy"] == pytest.approx(recall[:5].mean())
    assert actual["macro_f1"] == pytest.approx(f1[:5].mean())
    assert actual["loss"] == pytest.approx(sklearn.log_loss(labels, probabilities, labels=indices))
    expected = sklearn.confusion_matrix(labels, predictions, labels=indices)
    assert actual["confusion"] == expected.tolist()
