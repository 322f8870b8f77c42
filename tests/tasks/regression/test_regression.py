"""Regression: standardized inside, the user's units outside; loss, score, predictions."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

from tests.models import build_transfer
from tests.tasks.views import make_view
from tl_toolkit.architectures.batches import FixedBatch
from tl_toolkit.architectures.heads import OUTPUT_LAYER
from tl_toolkit.tasks.parity import Limits, Outputs
from tl_toolkit.tasks.regression.task import Regression

TARGETS = np.random.default_rng(0).normal([1e5, 3e-4], [2e3, 1e-4], (200, 2)).astype(np.float32)
COLUMNS = ("weight", "dose")


def make_task(targets=TARGETS, **settings):
    task = Regression(COLUMNS[: targets.shape[1]], **settings)
    task.prepare(targets)
    return task


def predict_nearly(targets=TARGETS, error=0.5):
    noise = np.random.default_rng(1).normal(0, error, targets.shape)
    return (targets + noise * targets.std(axis=0)).astype(np.float32)


def score(task, outputs, targets, batch_size):
    parts = [slice(start, start + batch_size) for start in range(0, len(outputs), batch_size)]
    states = [
        task.compare(tf.constant(outputs[part]), tf.constant(targets[part]))[1].numpy().sum(axis=0)
        for part in parts
    ]
    return task.score_of(np.sum(states, axis=0))


def test_targets_are_the_numbers_of_the_table():
    examples = [SimpleNamespace(targets=("-1e-3", "7"))]

    targets = make_task().load_targets(examples, (8, 8), "stretch")

    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, np.array([[-1e-3, 7]], np.float32))


def test_the_model_undoes_the_standardization():
    features = keras.Input((4,))
    task = Regression(COLUMNS)
    _, outputs = task.build_outputs([features], features)
    model = keras.Model(features, outputs)
    inner = keras.Model(features, model.get_layer(OUTPUT_LAYER).output)

    task.prepare(TARGETS)

    values = np.random.default_rng(2).normal(size=(5, 4))
    expected = inner(values) * TARGETS.std(axis=0) + TARGETS.mean(axis=0, dtype=np.float64)
    # In deviations: random weights may give a value near 0, which has lost its digits.
    assert (np.abs(model(values) - expected) / TARGETS.std(axis=0)).max() < 1e-5
    assert not model.get_layer("head_units").trainable_variables


def test_a_step_that_was_compiled_before_the_targets_were_read_uses_them():
    task = Regression(COLUMNS)
    compiled = tf.function(task.compare)
    compiled(tf.constant(TARGETS), tf.constant(TARGETS))

    task.prepare(TARGETS)

    losses, _ = compiled(tf.constant(TARGETS + TARGETS.std(axis=0)), tf.constant(TARGETS))
    np.testing.assert_allclose(losses, 1, rtol=1e-2)  # 1 standard deviation off, in float32


@pytest.mark.parametrize("value", [0.1, 0.0, 1e6])
def test_a_column_that_does_not_vary_is_only_shifted(value):
    task = make_task(np.full((37, 1), value, np.float32))

    assert task.state()["columns"]["weight"] == {"mean": np.float32(value), "scale": 1.0}


@pytest.mark.parametrize(
    ("section", "loss"),
    [
        ({"loss": "mse"}, keras.losses.MeanSquaredError(reduction=None)),
        ({"loss": "mae"}, keras.losses.MeanAbsoluteError(reduction=None)),
        ({"loss": "huber"}, keras.losses.Huber(1.0, reduction=None)),
        ({"loss": "huber", "huber_delta": 0.2}, keras.losses.Huber(0.2, reduction=None)),
    ],
)
def test_losses_are_those_of_keras_on_standardized_targets(section, loss):
    outputs = predict_nearly()
    mean, scale = TARGETS.mean(axis=0, dtype=np.float64), TARGETS.std(axis=0, dtype=np.float64)

    losses, _ = make_task(**section).compare(tf.constant(outputs), tf.constant(TARGETS))

    expected = loss((TARGETS - mean) / scale, (outputs - mean) / scale)
    np.testing.assert_allclose(losses, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_the_score_is_r2_whatever_the_batches(batch_size):
    outputs = predict_nearly()

    exact = metrics.r2_score(TARGETS.astype(np.float64), outputs.astype(np.float64))
    assert 0.5 < exact < 0.9
    assert score(make_task(), outputs, TARGETS, batch_size) == pytest.approx(exact, abs=1e-6)


def test_the_score_of_other_images_is_measured_by_their_own_mean():
    moved = TARGETS + 3 * TARGETS.std(axis=0)
    outputs = predict_nearly(moved)

    exact = metrics.r2_score(moved.astype(np.float64), outputs.astype(np.float64))
    assert score(make_task(), outputs, moved, 32) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(("error", "expected"), [(0, 1.0), (1, 0.0)])
def test_targets_that_do_not_vary_are_explained_wholly_or_not_at_all(error, expected):
    task = make_task(TARGETS[:, :1])
    targets = np.full((5, 1), 97_531.0, np.float32)

    assert score(task, targets + np.float32(error * 100), targets, 5) == expected


def test_means_and_deviations_are_kept_and_restored():
    task, again = make_task(), Regression(COLUMNS)

    again.restore(json.loads(json.dumps(task.state())))

    assert again.state() == task.state()
    assert again.state()["columns"]["dose"]["mean"] == pytest.approx(3e-4, rel=0.1)


def test_predictions_of_a_split_are_in_the_units_of_the_table():
    texts = [("73.96", "5e-4"), ("99.2", "0.00025")]
    targets = np.array([list(map(float, row)) for row in texts], np.float32)
    task = make_task(targets)

    evaluation = task.evaluate(make_view([[74.1, 4e-4], [98.0, 3e-4]], texts), targets)

    table = evaluation.predictions
    assert table.columns == ["weight", "dose", "predicted_weight", "predicted_dose"]
    assert table.rows == [[73.96, 5e-4, 74.1, 4e-4], [99.2, 0.00025, 98.0, 3e-4]]
    assert evaluation.metrics["per_column"]["weight"]["mae"] == pytest.approx(0.67, abs=1e-5)
    assert evaluation.metrics["mean"]["per_column"]["weight"]["r2"] == pytest.approx(0)


def test_a_prediction_has_a_number_for_each_column():
    task = make_task()

    record = task.describe("a.png", np.array([73.96, 4e-4], np.float32), None).as_record()

    assert record == {"path": "a.png", "values": {"weight": 73.96, "dose": 4e-4}, "error": None}
    assert task.describe("b.png", None, "broken").as_record() == {
        "path": "b.png", "values": {}, "error": "broken"
    }  # fmt: skip
    predicted = [f"predicted_{name}" for name in COLUMNS]
    assert task.tabulate([record], wide=True).columns == ["path", *predicted]
    assert task.tabulate([record], wide=True).rows == [["a.png", 73.96, 4e-4]]
    assert task.tabulate([record]).rows == [["a.png", "73.96", "0.0004"]]


def test_an_exported_model_gives_values():
    served = make_task().serve(tf.constant(TARGETS))

    assert list(served) == ["values"]
    np.testing.assert_array_equal(served["values"], TARGETS)


def test_values_are_compared_in_standard_deviations():
    deviations = TARGETS.std(axis=0)

    differences = make_task().measure_differences(TARGETS + deviations / 10, TARGETS)

    np.testing.assert_allclose(differences, np.full(TARGETS.shape, 0.1), rtol=1e-3)


YEARS = np.array([[1990.0], [2010.0]], np.float32)
"""Their mean is 200 deviations away from 0: one step of float32 is more than 1e-5 of them."""


def build_years():
    """A model of years, with its task."""
    task = Regression(("year",))
    transfer = build_transfer("lenet5", task=task)
    task.prepare(YEARS)
    return transfer


@pytest.mark.parametrize(("steps", "holds"), [(1, True), (-2, True), (40, False)])
def test_an_export_may_round_the_last_digit_of_a_large_value(steps, holds):
    transfer = build_years()

    def ask(batches, files):
        outputs = FixedBatch(transfer.model)(batches[0]).numpy()
        values = {"values": outputs + steps * np.spacing(outputs)}
        encoded = tuple({"values": row} for row in values["values"])
        return lambda: Outputs((values,), encoded, transfer.task.classes)

    report = transfer.task.compare_served(transfer.model, {}, "stretch", ask, Limits())

    assert report["holds"] == holds


def test_intervals_of_an_export_follow_from_its_values_and_are_not_compared():
    transfer = build_years()
    task = transfer.task
    task.restore({"columns": {"year": {"mean": 2000.0, "scale": 10.0, "half_width": None}}})

    def ask(batches, files):
        values = task.serve(FixedBatch(transfer.model)(batches[0]))
        values = {name: value.numpy() for name, value in values.items()}
        assert np.isinf(values["interval"]).all()  # whose difference is no number
        encoded = tuple({"values": row} for row in values["values"])
        return lambda: Outputs((values,), encoded, task.classes)

    report = task.compare_served(transfer.model, {}, "stretch", ask, Limits())

    assert report["holds"] and report["further_outputs"] == {}


def test_half_of_the_intervals_asked_for_are_those_of_the_smallest_errors():
    targets = np.zeros((9, 1), np.float32)
    outputs = np.array([[0.5, -4, 1, 3, -2, 0.1, 6, -7, 5]], np.float32).T
    task = make_task(targets, coverage=0.5)

    task.finish(make_view(outputs, [()] * len(outputs)), targets)

    # ceil((9 + 1) * 0.5) = 5 of the errors 0.1, 0.5, 1, 2, 3, 4, ...
    assert task.state()["columns"]["weight"]["half_width"] == 3
    measured, _ = task.measure(outputs, targets)
    assert measured["coverage"] == pytest.approx(5 / 9)
    assert measured["per_column"]["weight"]["coverage"] == pytest.approx(5 / 9)
    served = task.serve(tf.constant([[10.0]]))
    np.testing.assert_allclose(served["interval"], [[[7, 13]]])
    again = make_task(targets, coverage=0.5)
    again.restore(json.loads(json.dumps(task.state())))
    prediction = again.describe("photo.jpg", np.array([10], np.float32), None)
    assert prediction.as_record()["intervals"] == {"weight": [7.0, 13.0]}


def test_intervals_have_no_end_where_too_few_images_validate():
    targets = np.zeros((8, 1), np.float32)
    task = make_task(targets, coverage=0.9)

    task.finish(make_view(targets + 1, [()] * 8), targets)

    assert task.state()["columns"]["weight"]["half_width"] is None
    again = make_task(targets, coverage=0.9)
    again.restore(json.loads(json.dumps(task.state())))
    record = again.describe("photo.jpg", np.array([1], np.float32), None).as_record()
    assert record["intervals"] == {"weight": [None, None]}
    assert again.measure(targets, targets)[0]["coverage"] == 1


def test_new_images_are_covered_as_often_as_asked():
    random = np.random.default_rng(5)
    errors = random.standard_t(3, (20_000, 1)).astype(np.float32)
    known, new = errors[:2000], errors[2000:]
    task = make_task(np.zeros_like(known), coverage=0.9)

    measured, _ = task.settle(known, np.zeros_like(known)).measure(new, np.zeros_like(new))

    low, high = measured["intervals"]["coverage"]
    assert low - 0.01 < 0.9 < high + 0.01  # the validation images place it to 0.7 points
    assert "coverage" not in task.measure(new, np.zeros_like(new))[0]  # a copy has learned


def test_without_a_coverage_nothing_is_learned_or_served():
    task = make_task()

    task.finish(make_view(TARGETS, [()] * len(TARGETS)), TARGETS)

    assert set(task.state()["columns"]["weight"]) == {"mean", "scale"}
    assert set(task.serve(tf.constant(TARGETS))) == {"values"}
    assert task.settle(TARGETS, TARGETS) is task
    assert "intervals" not in task.describe("photo.jpg", TARGETS[0], None).as_record()
