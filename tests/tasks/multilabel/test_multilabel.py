"""Multi-label classification: targets, loss, score, thresholds, predictions, served outputs."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

from tests.tasks.views import make_view
from tl_toolkit.tasks.multilabel.task import Multilabel

CLASSES = ("bird", "cat", "dog")
PROBABILITIES = [f"probability_{name}" for name in CLASSES]


def make_task(**settings):
    return Multilabel(CLASSES, **settings)


def sample(count=200, seed=0):
    """Probabilities that know something of their targets; nobody is a bird."""
    random = np.random.default_rng(seed)
    targets = (random.random((count, 3)) < [0.0, 0.2, 0.6]).astype(np.int32)
    logits = random.normal(0, 2, (count, 3)) + targets * 1.5
    return (1 / (1 + np.exp(-logits))).astype(np.float32), targets


def sum_states(task, outputs, targets, batch_size):
    parts = [slice(start, start + batch_size) for start in range(0, len(outputs), batch_size)]
    states = [
        task.compare(tf.constant(outputs[part]), tf.constant(targets[part]))[1].numpy().sum(axis=0)
        for part in parts
    ]
    return np.sum(states, axis=0)


def test_targets_are_ones_at_the_classes_of_an_image():
    examples = [SimpleNamespace(targets=(text,)) for text in ("dog;bird", "", "cat")]

    targets = make_task(separator=";").load_targets(examples, (8, 8), "stretch")

    assert targets.dtype == np.int32
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_the_loss_of_an_image_is_the_mean_cross_entropy_of_its_classes():
    outputs, targets = sample()

    losses, _ = make_task().compare(tf.constant(outputs), tf.constant(targets))

    chosen = np.where(targets == 1, outputs, 1 - outputs).astype(np.float64)
    np.testing.assert_allclose(losses, -np.log(chosen).mean(axis=1), rtol=1e-4)


def test_a_confident_error_costs_its_full_price():
    logits = keras.Input((3,))
    model = keras.Model(logits, keras.layers.Activation("sigmoid")(logits))
    task = make_task()

    @tf.function
    def assess(values, targets):  # Keras finds the logits behind the outputs
        return task.compare(model(values), targets)[0]

    (loss,) = assess(tf.constant([[60.0, -60, -60]]), tf.constant([[0, 0, 0]]))

    assert float(loss) == pytest.approx(20)  # 60 nats of one class in three; clipped it were 5


def test_the_score_is_the_mean_average_precision():
    outputs, targets = sample(2000)

    score = make_task().score_of(sum_states(make_task(), outputs, targets, 2000))

    exact = np.mean(
        [metrics.average_precision_score(targets[:, k], outputs[:, k]) for k in (1, 2)]
    )  # no image is of the first class
    assert score == pytest.approx(exact, abs=0.02)


def test_the_score_of_a_split_does_not_depend_on_its_batches():
    outputs, targets = sample()
    task = make_task()

    scores = {task.score_of(sum_states(task, outputs, targets, size)) for size in (1, 7, 200)}

    assert len(scores) == 1


@pytest.mark.parametrize("outputs", [[1.0, 1, 0, 0], [0.0, 0, 1, 1], [1.0, 0, 1, 0]])
def test_saturated_outputs_are_scored_too(outputs):
    targets = np.array([[1, 0, 0]] * 2 + [[0, 0, 0]] * 2, np.int32)
    rows = np.array([[value, 0, 0] for value in outputs], np.float32)
    task = make_task()

    score = task.score_of(sum_states(task, rows, targets, 4))

    exact = metrics.average_precision_score(targets[:, 0], rows[:, 0])
    assert score == pytest.approx(exact)


def test_without_any_label_the_score_is_nothing():
    outputs, targets = sample(10)
    task = make_task()

    assert task.score_of(sum_states(task, outputs, np.zeros_like(targets), 10)) == 0


def test_thresholds_are_chosen_on_the_images_of_finish_and_kept():
    outputs = np.array([[0.1, 0.2, 0.9], [0.2, 0.35, 0.8], [0.3, 0.1, 0.7]], np.float32)
    targets = np.array([[0, 0, 1], [1, 1, 1], [1, 0, 0]])
    task = make_task()

    task.finish(make_view(outputs, [("",)] * 3), targets)
    again = make_task()
    again.restore(json.loads(json.dumps(task.state())))

    np.testing.assert_allclose(task.thresholds, [0.15, 0.275, 0.75], atol=1e-6)
    assert list(task.state()["thresholds"]) == list(CLASSES)
    np.testing.assert_array_equal(again.thresholds, task.thresholds)
    assert again.thresholds.dtype == np.float32


def test_a_yardstick_is_measured_by_thresholds_of_its_own():
    outputs, targets = sample()
    task = make_task()
    task.thresholds = np.full(3, 0.999, np.float32)  # those of a model that is surer

    settled = task.settle(outputs, targets)

    assert settled.measure(outputs, targets)[0]["micro_f1"] > 0.5
    assert task.measure(outputs, targets)[0]["micro_f1"] < 0.1

    fixed = make_task(threshold=0.5)
    assert fixed.settle(outputs, targets) is fixed


def test_a_threshold_of_the_recipe_stays():
    task = make_task(threshold=0.25)

    task.finish(make_view(np.full((2, 3), 0.9), [("",)] * 2), np.ones((2, 3), int))

    assert task.thresholds.tolist() == [0.25] * 3


def test_predictions_of_a_split_name_classes_in_one_order_with_the_tables_separator():
    task = make_task(separator=" & ")
    view = make_view([[0.9, 0.1, 0.8], [0.2, 0.6, 0.1]], [("dog & bird",), ("",)])

    evaluation = task.evaluate(view, np.array([[1, 0, 1], [0, 0, 0]]))

    table = evaluation.predictions
    assert table.columns == ["labels", "predicted", *PROBABILITIES]
    assert [row[:2] for row in table.rows] == [["bird & dog", "bird & dog"], ["", "cat"]]
    assert table.rows[1][3] == pytest.approx(0.6)
    assert evaluation.metrics["per_class"]["cat"]["threshold"] == 0.5
    assert evaluation.metrics["images"] == 2


def test_a_prediction_has_the_classes_above_their_thresholds():
    task = make_task()
    task.restore({"thresholds": {"bird": 0.25, "cat": 0.5, "dog": 0.75}})

    record = task.describe("a.png", np.array([0.25, 0.4, 0.7], np.float32), None).as_record()

    assert record["labels"] == ["bird"]
    assert list(record["probabilities"]) == list(CLASSES)
    assert record["error"] is None
    assert task.describe("b.png", None, "broken").as_record() == {
        "path": "b.png", "labels": [], "probabilities": {}, "error": "broken"
    }  # fmt: skip


def test_tables_of_predictions_are_short_for_people_and_whole_for_csv():
    task = make_task(separator=";")
    records = [task.describe("a.png", np.array([0.75, 0.25, 1], np.float32), None).as_record()]

    assert task.tabulate(records).rows == [["a.png", "bird, dog"]]
    assert task.tabulate(records, wide=True).columns == ["path", "labels", *PROBABILITIES]
    assert task.tabulate(records, wide=True).rows == [["a.png", "bird;dog", 0.75, 0.25, 1.0]]


@pytest.mark.parametrize("separator", ["|", " & ", ".", "\\"])
def test_an_exported_model_gives_names_between_separators(separator):
    outputs = tf.constant([[0.9, 0.1, 0.8], [0.1, 0.2, 0.3], [0.1, 0.9, 0.1]])

    served = make_task(separator=separator).serve(outputs)

    assert set(served) == {"probabilities", "predicted", "labels"}
    assert served["predicted"].numpy().tolist() == [[True, False, True], [False] * 3,
                                                    [False, True, False]]  # fmt: skip
    labels = [text.decode() for text in served["labels"].numpy()]
    assert labels == [f"bird{separator}dog", "", "cat"]


def test_an_export_must_draw_the_same_conclusions_but_at_a_threshold():
    task = make_task()
    expected = np.array([0.9, 0.1, 0.501], np.float32)

    def is_equal(*predicted):
        return task.are_equal({"predicted": np.array(predicted)}, expected)

    assert is_equal(True, False, True) and is_equal(True, False, False)
    assert not is_equal(True, True, True) and not is_equal(False, False, True)


def soften(outputs, temperature):
    logits = np.log(outputs.astype(np.float64)) - np.log1p(-outputs.astype(np.float64))
    return 1 / (1 + np.exp(-logits / temperature))


def drawn(temperature, count=4000):
    """Labels that come as often as probabilities say, which are then made surer."""
    random = np.random.default_rng(3)
    honest = 1 / (1 + np.exp(-random.normal(0, 1.5, (count, 3))))
    targets = (random.random((count, 3)) < honest).astype(np.int32)
    return soften(honest, 1 / temperature).astype(np.float32), targets


def test_the_temperature_undoes_what_made_the_labels_too_sure():
    outputs, targets = drawn(2.0)
    task = make_task(calibrate=True)

    task.finish(make_view(outputs, [()] * len(outputs)), targets)

    assert task.state()["temperature"] == pytest.approx(2.0, rel=0.1)
    rows = task.read_outputs(outputs)
    np.testing.assert_allclose(rows, soften(outputs, task.state()["temperature"]), atol=1e-5)
    metrics_of, _ = task.measure(outputs, targets, losses=np.zeros(len(targets)))
    own = np.where(targets == 1, rows, 1 - rows)
    assert metrics_of["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)


def test_a_temperature_changes_no_label_that_thresholds_of_validation_give():
    outputs, targets = drawn(2.0, count=500)
    plain, calibrated = make_task(), make_task(calibrate=True)
    for task in (plain, calibrated):
        task.finish(make_view(outputs, [()] * len(outputs)), targets)

    np.testing.assert_array_equal(calibrated.find_answers(outputs), plain.find_answers(outputs))
    served = calibrated.serve(tf.constant(outputs))
    np.testing.assert_array_equal(served["predicted"], plain.serve(outputs)["predicted"])
    np.testing.assert_allclose(served["probabilities"], calibrated.read_outputs(outputs), atol=1e-5)


def test_a_restored_task_scales_as_before_and_one_without_does_not():
    outputs, targets = drawn(2.0, count=500)
    task = make_task(calibrate=True)
    task.finish(make_view(outputs, [()] * len(outputs)), targets)
    again = make_task(calibrate=True)

    again.restore(json.loads(json.dumps(task.state())))

    described = [each.describe("photo.jpg", outputs[0], None) for each in (task, again)]
    assert described[0] == described[1]
    assert described[0].probabilities["cat"] == pytest.approx(task.read_outputs(outputs)[0, 1])
    plain = make_task()
    plain.finish(make_view(outputs, [()] * len(outputs)), targets)
    assert set(plain.state()) == {"thresholds"} and plain.read_outputs(outputs) is outputs
