"""Metrics of regression, against numbers worked out by hand."""

import numpy as np
import pytest

from tl_toolkit.tasks.regression.metrics import measure_regression

TARGETS = np.array([[0.0, 10], [2, 30], [4, 50]], np.float32)


def test_metrics_of_each_column_and_their_means_are_those_worked_out_by_hand():
    predictions = np.array([[1.0, 10], [2, 30], [1, 50]], np.float32)

    metrics = measure_regression(TARGETS, predictions, ("x", "y"), np.array([2.0, 20]))

    assert metrics["images"] == 3
    assert metrics["per_column"]["x"] == pytest.approx(
        {"mae": 4 / 3, "rmse": np.sqrt(10 / 3), "r2": 1 - 10 / 8}
    )
    assert metrics["per_column"]["y"] == {"mae": 0, "rmse": 0, "r2": 1}
    assert metrics["mae"] == pytest.approx(2 / 3)
    assert metrics["rmse"] == pytest.approx(np.sqrt(10 / 3) / 2)
    assert metrics["r2"] == pytest.approx((1 - 10 / 8 + 1) / 2)


def test_predicting_the_training_mean_has_metrics_of_its_own():
    metrics = measure_regression(TARGETS, TARGETS, ("x", "y"), np.array([2.0, 20]))

    assert metrics["mean"]["per_column"]["x"] == pytest.approx(
        {"mae": 4 / 3, "rmse": np.sqrt(8 / 3), "r2": 0}
    )
    assert metrics["mean"]["per_column"]["y"]["mae"] == pytest.approx(50 / 3)
    assert set(metrics["mean"]) == {"mae", "rmse", "r2", "per_column"}


@pytest.mark.parametrize("images", [1, 3])
def test_targets_that_do_not_vary_are_explained_wholly_or_not_at_all(images):
    targets = np.full((images, 1), 5.0)

    metrics = measure_regression(targets, targets, ("x",), np.array([4.0]))

    assert metrics["r2"] == 1
    assert metrics["mean"]["r2"] == 0 and metrics["mean"]["mae"] == 1


def test_large_values_keep_their_small_differences():
    targets = np.array([[1e8], [1e8 + 8]], np.float32)

    metrics = measure_regression(targets, targets.astype(float) + 1, ("x",), np.array([0.0]))

    assert metrics["mae"] == metrics["rmse"] == 1
