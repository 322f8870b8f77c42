"""Metrics and thresholds of multi-label classification, against numbers worked out by hand."""

import numpy as np
import pytest

from tl_toolkit.tasks.multilabel.metrics import choose_thresholds, measure_multilabel

TARGETS = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
PROBABILITIES = np.array([[0.9, 0.1], [0.3, 0.6], [0.4, 0.8], [0.1, 0.2]], np.float32)
HALVES = np.array([0.5, 0.5])


def test_averages_are_those_worked_out_by_hand():
    metrics = measure_multilabel(TARGETS, PROBABILITIES, HALVES, ("x", "y"))

    assert metrics["images"] == 4
    assert metrics["per_class"]["x"] == pytest.approx(
        {
            "average_precision": (1 + 2 / 3) / 2,
            "f1": 2 / 3,
            "precision": 1.0,
            "recall": 0.5,
            "threshold": 0.5,
            "images": 2,
        }
    )
    assert metrics["per_class"]["y"]["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["mean_average_precision"] == pytest.approx(5 / 6)
    assert metrics["micro_f1"] == pytest.approx(2 * 2 / (3 + 4))
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    likelihood = [0.9, 0.3, 0.6, 0.9, 0.9, 0.4, 0.8, 0.2]
    assert metrics["loss"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-6)


def test_each_class_has_its_own_threshold_and_reaching_it_is_enough():
    metrics = measure_multilabel(TARGETS, PROBABILITIES, np.array([0.25, 0.8]), ("x", "y"))

    assert metrics["per_class"]["x"]["recall"] == 1
    assert metrics["per_class"]["x"]["precision"] == pytest.approx(2 / 3)
    assert metrics["per_class"]["y"]["recall"] == 0.5  # float32 0.8 is above 0.8


def test_a_class_without_images_counts_in_no_mean_but_its_false_positives_count_in_micro_f1():
    targets = np.array([[1, 0], [1, 0]])

    metrics = measure_multilabel(targets, np.full((2, 2), 0.9), HALVES, ("x", "y"))

    assert metrics["mean_average_precision"] == metrics["macro_f1"] == 1
    assert metrics["micro_f1"] == pytest.approx(2 * 2 / (2 + 4))
    assert metrics["per_class"]["y"] == {
        "average_precision": 0, "f1": 0, "precision": 0, "recall": 0, "threshold": 0.5, "images": 0
    }  # fmt: skip


def test_one_class_alone_is_measured():
    metrics = measure_multilabel(TARGETS[:, :1], PROBABILITIES[:, :1], HALVES[:1], ("x",))

    assert metrics["macro_f1"] == metrics["micro_f1"] == pytest.approx(2 / 3)


def test_the_loss_is_the_mean_of_the_training_losses_where_they_are_passed():
    losses = np.array([1.0, 2.0, 3.0, 6.0])

    metrics = measure_multilabel(TARGETS, PROBABILITIES, HALVES, ("x", "y"), losses=losses)

    assert metrics["loss"] == 3


def f1_at(threshold, targets, probabilities):
    predictions = probabilities >= threshold
    return 2 * (predictions & (targets == 1)).sum() / (predictions.sum() + targets.sum())


def test_chosen_thresholds_have_the_greatest_f1_of_all():
    random = np.random.default_rng(0)
    targets = (random.random((60, 5)) < 0.3).astype(int)
    probabilities = np.round(random.random((60, 5)) * 0.6 + targets * 0.2, 2)

    for column, threshold in enumerate(choose_thresholds(targets, probabilities)):
        case = targets[:, column], probabilities[:, column]
        grid = [f1_at(value, *case) for value in np.arange(0, 1.0005, 0.0005)]
        assert f1_at(threshold, *case) == max(grid)


def test_a_threshold_lies_halfway_between_the_probabilities_it_parts():
    thresholds = choose_thresholds(np.array([[0], [1]]), np.array([[0.1], [0.3]]))

    assert thresholds == pytest.approx([0.2])


def test_one_half_stands_where_no_threshold_is_better():
    assert choose_thresholds(np.array([[0], [1]]), np.array([[0.2], [0.6]])) == [0.5]


def test_of_thresholds_of_equal_f1_the_nearest_to_one_half_is_chosen_then_the_higher():
    #   F1 is 2/3 at 0.91..0.95 (one of two, no mistake) and at 0.55..0.6 (two of two, two mistakes)
    targets = np.array([[1], [0], [0], [1]])
    probabilities = np.array([[0.95], [0.91], [0.7], [0.56]])
    assert f1_at(0.93, targets, probabilities) == f1_at(0.5, targets, probabilities) == 2 / 3

    assert choose_thresholds(targets, probabilities) == [0.5]

    farther = np.array([[0.6], [0.5], [0.45], [0.4]])  # midpoints 0.55 and 0.425 -> 0.55
    assert choose_thresholds(targets, farther) == pytest.approx([0.55])
    symmetric = np.array([[0.75], [0.625], [0.5], [0.375]])  # 0.6875 and (0.375 + 0) / 2
    assert choose_thresholds(targets, symmetric) == pytest.approx([0.6875])


def test_a_class_that_no_image_has_keeps_one_half():
    assert choose_thresholds(np.zeros((3, 1), int), np.array([[0.1], [0.2], [0.9]])) == [0.5]


def test_a_class_that_every_image_has_is_always_predicted():
    probabilities = np.array([[0.0], [0.2], [0.9]], np.float32)

    assert (probabilities >= choose_thresholds(np.ones((3, 1), int), probabilities)).all()
