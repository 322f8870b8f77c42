"""The metrics of segmentation, against matrices worked out by hand."""

import numpy as np
import pytest

from tl_toolkit.tasks.segmentation.confusion import count_confusion, mean_iou, measure_confusion

# 4 of a, all found; 4 of b, 1 found, 2 taken for a, 1 for c; c and d do not occur.
MATRIX = np.array([[4, 0, 0, 0], [2, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
CLASSES = ("a", "b", "c", "d")


def test_pixels_are_counted_by_class_and_prediction():
    targets = np.array([[0, 0, 1], [2, 2, 2]], np.uint8)
    predictions = np.array([[0, 1, 1], [2, 0, 2]], np.uint8)

    actual = count_confusion(targets, predictions, 3, 255)

    assert actual.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


def test_ignored_pixels_count_nowhere():
    targets = np.array([[255, 0], [255, 1]], np.uint8)
    predictions = np.array([[1, 0], [0, 0]], np.uint8)

    assert count_confusion(targets, predictions, 2, 255).tolist() == [[1, 0], [1, 0]]


def test_the_mean_iou_is_over_classes_that_targets_or_predictions_have():
    # a: 4 of 6, b: 1 of 4, c: predicted once, wrongly; d is nowhere.
    assert mean_iou(MATRIX) == pytest.approx((4 / 6 + 1 / 4 + 0) / 3)


def test_metrics_are_those_of_the_paper():
    actual = measure_confusion(MATRIX, CLASSES)

    assert actual["pixel_accuracy"] == pytest.approx(5 / 8)
    assert actual["mean_accuracy"] == pytest.approx((1 + 1 / 4) / 2)
    assert actual["mean_iou"] == pytest.approx((4 / 6 + 1 / 4) / 3)
    assert actual["frequency_weighted_iou"] == pytest.approx((4 * 4 / 6 + 4 * 1 / 4) / 8)
    assert actual["confusion"] == MATRIX.tolist()


def test_each_class_has_its_numbers_and_none_where_they_have_no_meaning():
    actual = measure_confusion(MATRIX, CLASSES)["per_class"]

    assert actual["a"] == {
        "iou": pytest.approx(4 / 6), "precision": pytest.approx(4 / 6), "recall": 1.0, "pixels": 4
    }  # fmt: skip
    assert actual["c"] == {"iou": 0.0, "precision": 0.0, "recall": None, "pixels": 0}
    assert actual["d"] == {"iou": None, "precision": 0.0, "recall": None, "pixels": 0}


def test_the_majority_predicts_the_most_frequent_class_everywhere():
    matrix = np.array([[1, 0], [3, 6]])

    actual = measure_confusion(matrix, ("few", "many"))["majority"]

    assert actual == {
        "class": "many",
        "pixel_accuracy": pytest.approx(0.9),
        "mean_accuracy": pytest.approx(0.5),
        "mean_iou": pytest.approx(0.45),
    }


def test_nothing_but_ignored_pixels_gives_zeros():
    actual = measure_confusion(np.zeros((2, 2), np.int64), ("a", "b"))

    assert (actual["pixel_accuracy"], actual["mean_iou"], actual["mean_accuracy"]) == (0, 0, 0)
