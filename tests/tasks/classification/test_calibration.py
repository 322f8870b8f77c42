"""Calibrated probabilities and sets of labels: figures by hand, coverage, and what is exported."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom

from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.tasks.classification.calibration import (
    Calibration,
    fit_calibration,
    measure_calibration,
    measure_error,
)
from tl_toolkit.tasks.classification.task import Classification

CLASSES = ("a", "b", "c", "d")


def draw(number, *, seed, sharpness=1.0):
    """Labels drawn by probabilities, and what a model says whose logits are too large or small."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(number, len(CLASSES)))
    labels = np.array([random.choice(len(CLASSES), p=row) for row in softmax(logits, axis=1)])
    return labels, softmax(sharpness * logits, axis=1).astype(np.float32)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_logits_too_large(sharpness):
    labels, probabilities = draw(6000, seed=1, sharpness=sharpness)

    fitted = fit_calibration(labels, probabilities, 0.9)

    assert fitted.temperature == pytest.approx(sharpness, rel=0.1)
    scaled = fitted.scale(probabilities)
    np.testing.assert_allclose(scaled.sum(axis=1), 1, rtol=1e-6)
    assert measure_error(labels, scaled) < 0.03


def test_a_temperature_by_hand():
    probabilities = np.array([[0.9, 0.1]])

    scaled = Calibration(2.0, 0.0, 0.9, 10).scale(probabilities)

    assert scaled[0, 0] == pytest.approx(3 / (3 + 1))  # the root of 9 to 1


def test_the_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])

    error = measure_error(np.array([0, 1, 0, 1]), probabilities)

    assert error == pytest.approx((abs(1 - 2 * 0.9) + (1 - 0.6) + (1 - 0.7)) / 4)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_right_class_as_often_as_was_asked(coverage):
    """Over many draws, as the promise is one of the mean over fitting and held-out images."""
    labels, probabilities = draw(40 * 400, seed=2, sharpness=3.0)
    hits = 0
    for part in range(40):
        fit = slice(400 * part, 400 * part + 200)
        held_out = slice(400 * part + 200, 400 * part + 400)
        fitted = fit_calibration(labels[fit], probabilities[fit], coverage)
        sets = fitted.select(fitted.scale(probabilities[held_out]))
        hits += int(sets[np.arange(200), labels[held_out]].sum())

    # The threshold of each part varies too: as often as by 100 images.
    spread = math.sqrt(coverage * (1 - coverage) * (1 / 8000 + 1 / (40 * 100)))
    assert abs(hits / 8000 - coverage) < 3 * spread + 1 / 101


def test_what_is_measured_of_held_out_images():
    labels, probabilities = draw(500, seed=3, sharpness=3.0)
    fitted = fit_calibration(*draw(400, seed=4, sharpness=3.0), 0.9)

    measured = measure_calibration(fitted, labels, probabilities)

    sets = fitted.select(fitted.scale(probabilities))
    assert measured["coverage"] == sets[np.arange(500), labels].mean()
    assert measured["set_size"] == sets.sum(axis=1).mean()
    assert measured["abstained"] == (sets.sum(axis=1) > 1).mean()
    low, high = measured["coverage_interval"]
    assert low < measured["coverage"] < high
    count = round(500 * measured["coverage"])
    assert binom.cdf(count, 500, high) == pytest.approx(0.025, abs=1e-6)  # Clopper and Pearson
    assert measured["error"] < measured["error_before"]


def test_too_few_images_promise_nothing_by_naming_all_classes():
    labels, probabilities = draw(8, seed=5)

    fitted = fit_calibration(labels, probabilities, 0.9)

    assert fitted.images == 4 and fitted.threshold == 0.0  # 9 of 10 cannot be told from 4
    assert fitted.select(fitted.scale(probabilities)).all()


def test_an_exported_model_returns_what_numpy_computes():
    labels, probabilities = draw(300, seed=6, sharpness=3.0)
    task = Classification(CLASSES, coverage=0.8)
    task.calibration = fit_calibration(labels, probabilities, 0.8)

    served = {name: value.numpy() for name, value in task.serve(probabilities).items()}

    scaled = task.calibration.scale(probabilities)
    clear = np.abs(scaled - task.calibration.threshold).min(axis=1) > 1e-5
    sets = task.calibration.select(scaled)
    np.testing.assert_allclose(served["probabilities"], scaled, atol=1e-6)
    np.testing.assert_array_equal(served["label_set"][clear], sets[clear])
    np.testing.assert_array_equal(served["abstain"][clear], sets[clear].sum(axis=1) > 1)
    np.testing.assert_array_equal(served["index"], probabilities.argmax(axis=1))
    told = task.describe("x.jpg", probabilities[0], None).probabilities
    assert list(told.values()) == pytest.approx(scaled[0])
    assert set(Classification(CLASSES).serve(probabilities)) == {"probabilities", "label", "index"}


def test_it_is_kept_with_the_run_and_measured_of_each_split():
    labels, probabilities = draw(300, seed=7)
    task, again = Classification(CLASSES, coverage=0.9), Classification(CLASSES, coverage=0.9)
    assert task.state() == {}
    task.calibration = fit_calibration(labels, probabilities, 0.9)

    again.restore(task.state())

    assert again.calibration == task.calibration
    assert asdict(again.calibration) == task.state()["calibration"]
    assert again.measure(probabilities, labels)[0]["calibration"]["coverage_asked"] == 0.9
    assert "calibration" not in Classification(CLASSES).measure(probabilities, labels)[0]


def test_a_yardstick_is_calibrated_by_its_own_outputs():
    labels, probabilities = draw(400, seed=8, sharpness=3.0)
    task = Classification(CLASSES, coverage=0.9)
    task.calibration = Calibration(1.0, 0.5, 0.9, 10)

    settled = task.settle(probabilities, labels)

    assert settled.calibration == fit_calibration(labels, probabilities, 0.9)
    assert task.calibration.threshold == 0.5
    plain = Classification(CLASSES)
    assert plain.settle(probabilities, labels) is plain


@pytest.mark.parametrize(
    ("value", "expected"), [(True, 0.9), (False, None), (0.95, 0.95), (None, None)]
)
def test_a_recipe_says_true_or_a_coverage(value, expected):
    assert read(value).task.calibrate == expected


@pytest.mark.parametrize("value", [0, 1, 1.5, "yes"])
def test_a_coverage_is_a_share(value):
    with pytest.raises(RecipeError, match="task.calibrate"):
        read(value)


def read(value):
    return build_recipe(
        {
            "version": 1,
            "name": "x",
            "task": {"kind": "classification", "calibrate": value},
            "data": {"builtin": "digits", "image_size": 28},
            "model": {"base": "lenet5", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
        }
    ).recipe
