"""Predictions that know their limits: temperature, label sets, and distance from what is known."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import tl_toolkit as tl
from tests.command import tltool
from tests.conftest import draw_class_folders
from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.export_formats import EXPORT_FORMATS
from tl_toolkit.tasks import temperature as temperatures
from tl_toolkit.tasks.classification import calibration
from tl_toolkit.tasks.classification.calibration import (
    Limits,
    Outliers,
    find_outliers,
    find_threshold,
)
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.parity import compare_further
from tl_toolkit.tasks.temperature import find_temperature, scale

ASKED = {"kind": "classification", "calibrate": True, "coverage": 0.8, "ood": True}


def test_the_temperature_makes_a_probability_the_share_that_is_right():
    rows = np.tile([0.9, 0.1], (10, 1))
    labels = np.array([0] * 7 + [1] * 3)  # sure to 0.9, and right in 0.7

    temperature = find_temperature(rows, labels)

    assert temperature == pytest.approx(np.log(9) / np.log(7 / 3), rel=1e-3)
    np.testing.assert_allclose(scale(rows, temperature)[0], [0.7, 0.3], atol=1e-4)
    assert scale(rows, 1.0) is rows


def test_a_temperature_of_few_rows_is_that_of_all_classes(monkeypatch):
    rows = np.tile([[0.9, 0.1]], (400, 1))
    rows[200:] = [0.1, 0.9]
    # In pairs, by class: the model is right in half of the first class, in 0.9 of the second.
    labels = np.repeat([0, 1] * 50 + ([1] * 9 + [0]) * 10, 2)
    monkeypatch.setattr(temperatures, "_MOST_CELLS", 400)  # half of the cells

    temperature = find_temperature(rows, labels)

    assert temperature == pytest.approx(np.log(9) / np.log(7 / 3), rel=1e-3)  # right in 0.7


@pytest.mark.parametrize(
    ("coverage", "least"),
    # Below the 8th, 8th, 5th and 9th best; none of 9.
    [(0.8, 0.15), (0.75, 0.15), (0.5, 0.45), (0.9, 0.05), (0.95, 0.0)],
)
def test_the_threshold_lies_below_that_of_the_images_which_label_sets_must_hold(coverage, least):
    own = np.arange(1, 10) / 10
    rows = np.stack([own, 1 - own], axis=1)

    assert find_threshold(rows, np.zeros(9, int), coverage) == pytest.approx(least)


@pytest.mark.parametrize("change", [1 - 1e-6, 1 + 1e-6])
def test_a_rounding_changes_no_label_set_of_validation_images(change):
    random = np.random.default_rng(1)
    rows = random.dirichlet([1, 1, 1], 50).astype(np.float32)
    labels = random.integers(0, 3, 50)

    threshold = find_threshold(rows, labels, 0.8)

    rounded = rows * np.float32(change)
    np.testing.assert_array_equal(rounded >= threshold, rows >= threshold)
    assert (rows[np.arange(50), labels] >= threshold).sum() == 41  # ceil(51 * 0.8)


def test_label_sets_hold_the_label_as_often_as_asked_on_images_held_out():
    random = np.random.default_rng(0)
    logits = random.normal(size=(6000, 5)) * 2
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(5, p=row) for row in shares])
    sure = scale(shares, 0.3)  # far too sure of itself
    known, new = slice(0, 1000), slice(1000, None)

    temperature = find_temperature(sure[known], labels[known])
    rows = scale(sure, temperature)
    threshold = find_threshold(rows[known], labels[known], 0.9)

    assert temperature == pytest.approx(1 / 0.3, rel=0.15)
    hits = int((rows[new][np.arange(5000), labels[new]] >= threshold).sum())
    # Coverage given 1,000 images is distributed as a beta; hits among 5,000 as a beta-binomial.
    low, high = stats.betabinom(5000, 901, 100).ppf([0.0005, 0.9995])
    assert low <= hits <= high


def test_an_image_like_none_is_far_from_all_and_a_known_one_is_near():
    random = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = np.eye(3)[labels] * 5 + random.normal(size=(40, 3)) * 0.1

    known = find_outliers(features, labels, 2, 0.9)

    def score(row):
        moved = (row - known.centre) * known.weights
        return 1 - (known.means @ moved).max() / np.linalg.norm(moved)

    assert score(np.array([5.0, 0, 0])) < known.threshold < 0.1
    assert score(known.centre + np.array([0, 0, 5.0])) == pytest.approx(1, abs=0.1)


def test_an_image_is_judged_by_the_others_of_its_class():
    features = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])

    known = find_outliers(features, np.zeros(4, int), 1, 0.5)

    # Without itself, the mean of the other three points the other way.
    assert known.threshold == pytest.approx(2.0)


def test_scores_are_those_by_all_means_without_the_image_and_cost_one_mean_each(monkeypatch):
    random = np.random.default_rng(0)
    labels = np.arange(60) % 20
    features = random.normal(size=(20, 8))[labels] + random.normal(size=(60, 8)) * 0.5
    counted = []
    plain = calibration._normalize
    monkeypatch.setattr(calibration, "_normalize", lambda rows: counted.append(rows) or plain(rows))

    known = find_outliers(features, labels, 20, 1 - 1e-9)  # the threshold is the highest score

    moved = (features - known.centre) * known.weights
    scores = []
    for place, row in enumerate(moved):
        rest = np.arange(60) != place
        means = np.stack([moved[rest & (labels == name)].mean(axis=0) for name in range(20)])
        cosines = means @ row / np.linalg.norm(means, axis=1) / np.linalg.norm(row)
        scores.append(1 - cosines.max())
    assert known.threshold == pytest.approx(max(scores), abs=1e-5)
    assert sum(map(len, counted)) == 20 + 60 + 60


def test_limits_come_back_as_they_were_written():
    limits = Limits(
        2.0, 0.25, Outliers(*np.ones((2, 2), np.float32), np.eye(2, dtype=np.float32), 0.5)
    )

    again = Limits.from_state(json.loads(json.dumps(limits.as_state())))

    assert (again.temperature, again.threshold, again.outliers.threshold) == (2.0, 0.25, 0.5)
    np.testing.assert_array_equal(again.outliers.means, np.eye(2))


def recipe_of(photos, **sections):
    return {
        "version": 1,
        "name": "photos",
        "data": {"train": str(photos), "validation": 0.25, "test": 0.25, "image_size": 32},
        "model": {"base": "lenet5", "weights": "random", "head": {"hidden": [{"units": 8}]}},
        "phases": [{"name": "head", "epochs": 2, "learning_rate": 0.01}],
        "export": False,
        "report": False,
        "yardsticks": False,
        **sections,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    photos = draw_class_folders(tmp_path_factory.mktemp("limits") / "photos", count=16)
    root = tmp_path_factory.mktemp("runs")
    return [tl.finetune(recipe_of(photos, **task), root=root) for task in ({}, {"task": ASKED})]


def test_what_is_asked_for_changes_no_label_and_is_measured(runs):
    plain, run = (each.metrics["test"] for each in runs)

    assert run["accuracy"] == plain["accuracy"] and run["confusion"] == plain["confusion"]
    assert "temperature" not in plain and not runs[0].folder.task_state.exists()
    assert run["temperature"] != 1 and 0 < run["set_size"] <= 3
    low, high = run["intervals"]["coverage"]
    assert low <= run["coverage"] <= high
    state = json.loads(runs[1].folder.task_state.read_text())
    assert state["temperature"] == run["temperature"]
    again = runs[1].evaluate()
    assert again["loss"] == pytest.approx(run["loss"], abs=1e-5)
    assert again["coverage"] == run["coverage"]
    validation = [each.metrics["validation"]["loss"] for each in runs]
    assert validation[1] <= validation[0] + 1e-6  # the temperature with the least


def test_the_exported_model_has_a_named_output_for_each_limit(runs):
    plain, run = runs
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)

    names = plain._task.build_endpoints(plain.model, plain.resize).serve_images(images)
    served = run._task.build_endpoints(run.model, run.resize).serve_images(tf.constant(images))

    assert set(names) == {"probabilities", "label", "index"}
    assert set(served) - set(names) == {"label_set", "ood_score", "abstain"}
    state = json.loads(run.folder.task_state.read_text())
    raw = run.model.predict(images.astype(np.float32), verbose=0)
    expected = scale(raw, state["temperature"])
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-5)
    sets = expected >= np.float32(state["threshold"])
    np.testing.assert_array_equal(served["label_set"], sets)
    vectors = keras.Model(run.model.input, run.model.get_layer("f6_dense").output)
    moved = vectors.predict(images.astype(np.float32), verbose=0) - state["outliers"]["centre"]
    moved *= state["outliers"]["weights"]
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    scores = 1 - (moved @ np.array(state["outliers"]["means"]).T).max(axis=1)
    np.testing.assert_allclose(served["ood_score"], scores, atol=1e-4)
    is_far = served["ood_score"].numpy() > state["outliers"]["threshold"]
    np.testing.assert_array_equal(served["abstain"], (sets.sum(axis=1) != 1) | is_far)


def test_a_graph_of_keras_alone_has_the_limits_too(runs):
    plain, run = runs
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)

    graph = run._task.build_graph(run.model)
    outputs = graph(images.astype(np.float32))

    assert plain._task.build_graph(plain.model) is plain.model
    served = run._task.build_endpoints(run.model, run.resize).serve_images(tf.constant(images))
    assert set(outputs) == {"probabilities", "label_set", "ood_score", "abstain"}
    for name in ("probabilities", "ood_score"):
        np.testing.assert_allclose(outputs[name], served[name], atol=1e-5)
    for name in ("label_set", "abstain"):
        np.testing.assert_array_equal(outputs[name], served[name])


def test_the_graph_of_a_single_output_is_scaled():
    task = Classification(("a", "b"), activation="sigmoid")
    task.restore({"temperature": 2.5})
    image = keras.Input((4, 4, 3))
    outputs = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(image))
    model = keras.Model(image, outputs)
    images = np.random.default_rng(0).uniform(-3, 3, (5, 4, 4, 3)).astype(np.float32)

    scaled = np.asarray(task.build_graph(model)(images))

    odds = np.log(np.asarray(model(images)) / (1 - np.asarray(model(images))))
    np.testing.assert_allclose(scaled, 1 / (1 + np.exp(-odds / 2.5)), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("formats", [["litert"], ["keras", "onnx", "openvino"]])
def test_an_export_holds_the_limits_and_is_proved_by_them(runs, formats):
    run = runs[1]

    paths = run.export(formats)

    for name in paths:
        report = run.folder.read_json(run.folder.export / EXPORT_FORMATS[name].proof)
        further = report["further_outputs"]
        assert set(further) == {"label_set", "ood_score", "abstain"}
        assert further["label_set"]["equal"] == further["abstain"]["equal"] == 1
        assert further["ood_score"]["largest_difference"] <= 1e-3
        measured = report["metrics"]
        assert measured["keras"]["coverage"] == run.metrics["validation"]["coverage"]
        assert measured["exported"]["coverage"] == measured["keras"]["coverage"]
        accuracy = run.metrics["validation"]["accuracy"]
        assert report["score"] == {"name": "accuracy", "keras": accuracy, "exported": accuracy}
    told = json.loads((run.folder.export / "preprocess.json").read_text())["outputs"]
    assert told["probabilities"] == "float32 (n, 3)" and told["label_set"] == "bool (n, 3)"


def export_once(run):
    if not (run.folder.export / "model.tflite").is_file():
        run.export(["litert"])


@pytest.mark.slow
def test_a_report_shows_the_exported_formats(runs):
    export_once(runs[1])

    assert "Exported formats" in tl.report(runs[1]).read_text()


@pytest.mark.slow
def test_an_export_predicts_with_the_limits(runs):
    run = runs[1]
    export_once(run)
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    (quick,), (prediction,) = (run.predict([image], engine=name) for name in ("litert", "keras"))

    assert quick.probabilities == pytest.approx(prediction.probabilities, abs=1e-4)
    assert quick.label_set == prediction.label_set


def test_outputs_beside_the_probabilities_are_compared():
    expected = {"label_set": np.array([[True, False]]), "ood_score": np.array([0.5])}
    clear = {"label_set": np.array([[True, False]])}

    def compare(sets, score, limit=1e-4):
        outputs = {"label_set": np.array([sets]), "ood_score": np.array([score])}
        return compare_further(outputs, expected, clear, limit)

    assert all(found["holds"] for found in compare([True, True], 0.5009).values())
    assert compare([True, True], 0.5)["label_set"]["equal"] == 0.5
    assert not compare([False, False], 0.5)["label_set"]["holds"]
    assert not compare([True, False], 0.5011)["ood_score"]["holds"]
    assert not compare([True, False], np.nan)["ood_score"]["holds"]
    assert compare([False, False], 9.0, float("inf"))["label_set"]["holds"]
    assert not compare_further({}, expected, clear, 1e-4)["ood_score"]["holds"]


def test_predictions_have_the_label_set(runs):
    image = np.zeros((32, 32, 3), np.uint8)

    (plain,), (prediction,) = (run.predict([image]) for run in runs)

    assert "label_set" not in plain.as_record()
    state = json.loads(runs[1].folder.task_state.read_text())
    expected = [
        name for name, value in prediction.probabilities.items() if value >= state["threshold"]
    ]
    assert prediction.as_record()["label_set"] == expected


def test_limits_that_have_no_meaning_are_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"task.coverage"):
        tl.validate(recipe_of(tmp_path, task={**ASKED, "coverage": 1.5}))
    with pytest.raises(RecipeError, match=r"each fold has features of its own model"):
        data = {"train": str(tmp_path), "folds": 3, "image_size": 32}
        tl.validate(recipe_of(tmp_path, task=ASKED, data=data))
    with pytest.raises(RecipeError, match=r"task.calibrate"):
        tl.validate(recipe_of(tmp_path, task={"kind": "regression", "calibrate": True}))


@pytest.mark.parametrize(
    ("task", "field", "reason"),
    [
        ("multilabel", "coverage", "any number of labels may be right"),
        ("multilabel", "ood", "classes that exclude each other"),
        ("regression", "calibrate", "coverage gives each an interval"),
        ("segmentation", "coverage", "one class for each image"),
        ("edges", "calibrate", "at every threshold"),
        ("normals", "calibrate", "no probabilities"),
    ],
)
def test_tasks_without_it_say_why(tmp_path, task, field, reason):
    value = 0.9 if field == "coverage" else True

    with pytest.raises(RecipeError, match=rf"task\.{field}[^~]*{reason}[^~]*~task\.{field}"):
        tl.validate(recipe_of(tmp_path, task={"kind": task, field: value}))


@pytest.mark.slow
def test_the_coverage_of_a_run_is_within_its_binomial_interval(tmp_path):
    """On 719 digits that neither trained nor chose the epoch; and through a published export."""
    values = {
        "version": 1,
        "name": "digits",
        "data": {"builtin": "digits", "validation": 0.3, "test": 0.4, "image_size": 32},
        "model": {"base": "lenet5", "weights": "random", "head": {"solver": "ridge"}},
        "phases": [{"name": "head", "epochs": 0}],
    }
    (tmp_path / "r.yaml").write_text(json.dumps(values))

    asked = "task={kind: classification, calibrate: true, coverage: 0.9, ood: true}"
    tltool("finetune", "r.yaml", asked, cwd=tmp_path)

    run = tl.load_run(tmp_path / "runs/digits/001")
    measured, known = run.metrics["test"], run.metrics["validation"]["images"]
    hits = round(measured["coverage"] * measured["images"])
    rank = int(np.ceil((known + 1) * 0.9))
    expected = stats.betabinom(measured["images"], rank, known + 1 - rank)
    low, high = expected.ppf([0.0005, 0.9995])
    assert low <= hits <= high
    served = tf.saved_model.load(str(run.folder.export / "saved_model" / "1"))
    outputs = served.signatures["serving_default"](image=tf.zeros((1, 32, 32, 3), tf.uint8))
    assert {"probabilities", "label_set", "ood_score", "abstain"} <= set(outputs)
