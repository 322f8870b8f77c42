"""The sections of each task, from predictions whose figures are computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from tests.reports.facts import find_parts, make_facts
from tl_toolkit.tasks.calibration import measure_calibration
from tl_toolkit.tasks.classification import report as classification
from tl_toolkit.tasks.classification.metrics import measure_classification
from tl_toolkit.tasks.edges import report as edges
from tl_toolkit.tasks.edges.boundaries import THRESHOLDS, BoundaryCounts, summarize
from tl_toolkit.tasks.multilabel import report as multilabel
from tl_toolkit.tasks.multilabel.metrics import measure_multilabel
from tl_toolkit.tasks.regression import report as regression
from tl_toolkit.tasks.regression.metrics import measure_regression
from tl_toolkit.tasks.segmentation import report as segmentation
from tl_toolkit.tasks.segmentation.confusion import measure_confusion


@pytest.fixture(scope="module")
def animals():
    """Six images of two classes; the third is predicted wrong, and surely."""
    labels = ["cat", "cat", "cat", "dog", "dog", "dog"]
    cats = np.array([0.9, 0.8, 0.05, 0.3, 0.45, 0.1], np.float32)
    probabilities = np.stack([cats, 1 - cats], axis=1)
    rows = [
        [
            f"photos/{number}.jpg",
            label,
            "cat" if cat > 0.5 else "dog",
            max(cat, 1 - cat),
            cat,
            1 - cat,
        ]
        for number, (label, cat) in enumerate(zip(labels, cats.tolist(), strict=True))
    ]
    columns = ["label", "predicted", "probability", "probability_cat", "probability_dog"]
    metrics = measure_classification(np.array([0, 0, 0, 1, 1, 1]), probabilities, ["cat", "dog"])
    return make_facts("classification", ["cat", "dog"], rows, columns=columns, metrics=metrics)


def test_the_expected_calibration_error_is_the_mean_gap_of_the_bins():
    hits = np.array([True, False, True, True])
    confidences = np.array([0.55, 0.58, 0.95, 0.91])

    measured = measure_calibration(hits, confidences)

    # Bins of two: mean 0.565 with half right, mean 0.93 with all right.
    assert measured["ece"] == pytest.approx((0.065 + 0.07) / 2)
    shares, means = calibration_curve(hits, confidences, n_bins=10)
    assert [each["share"] for each in measured["bins"]] == pytest.approx(shares)
    assert [each["confidence"] for each in measured["bins"]] == pytest.approx(means)


def test_classes_have_their_areas_and_confusions(animals):
    sections = classification.build_sections(animals)

    by_class = find_parts(sections, "table")[0]
    # The cat at 0.05 stands below all three dogs, the two others above: 6 of 9 pairs.
    cat, dog = by_class.rows
    assert cat[0] == "cat" and cat[4] == pytest.approx(6 / 9)
    assert dict(zip(by_class.columns, dog, strict=True))["recall"] == 1
    pairs = find_parts(sections, "table")[1]
    assert pairs.rows == [["cat", "dog", 1, "33.3%"]]
    assert "5 of 6 test images lie on the diagonal" in find_parts(sections, "chart")[0].description


def test_the_surest_error_comes_first(animals):
    galleries = find_parts(classification.build_sections(animals), "gallery")

    shown = {gallery.title: [tile.path for tile in gallery.tiles] for gallery in galleries}
    assert shown["The surest errors"] == ["photos/2.jpg"]
    assert shown["The surest hits"][:2] == ["photos/5.jpg", "photos/0.jpg"]
    assert shown["The least certain"][0] == "photos/4.jpg"
    assert shown["Labels that may be wrong"] == ["photos/2.jpg"]
    assert galleries[0].tiles[0].lines == ["label cat (5%)", "predicted dog (95%)"]


def test_images_are_counted_by_class_and_split(animals):
    (table,) = classification.tabulate_data(animals)

    assert table.columns == ["class", "test"]
    assert table.rows == [["cat", 3], ["dog", 3], ["all", 6]]


def test_labels_have_thresholds_and_support():
    targets = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    probabilities = np.array([[0.9, 0.2], [0.6, 0.7], [0.2, 0.4], [0.7, 0.6]], np.float32)
    rows = [
        [
            f"{number}.jpg",
            "|".join(name for name, has in zip("ab", flags, strict=True) if has),
            "",
            *row,
        ]
        for number, (flags, row) in enumerate(zip(targets, probabilities.tolist(), strict=True))
    ]
    metrics = measure_multilabel(targets, probabilities, np.array([0.5, 0.55]), ["a", "b"])
    facts = make_facts(
        "multilabel", ["a", "b"], rows, metrics=metrics, targets=("labels",),
        columns=["labels", "predicted", "probability_a", "probability_b"],
    )  # fmt: skip

    sections = multilabel.build_sections(facts)

    table = find_parts(sections, "table")[0]
    a, b = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (a["ROC AUC"], a["precision"], a["threshold"]) == (0.75, pytest.approx(2 / 3), 0.5)
    assert (b["ROC AUC"], b["F1"], b["support"]) == (1, 1, 2)
    assert multilabel.tabulate_data(facts)[0].rows == [["a", 2], ["b", 2], ["images", 4]]
    errors = find_parts(sections, "gallery")[0]
    assert [tile.path for tile in errors.tiles] == ["3.jpg"]
    assert errors.tiles[0].lines == ["labels b", "predicted none", "a 70%"]


def test_residuals_are_predicted_minus_true():
    targets, predicted = np.array([[1.0], [2.0], [4.0]]), np.array([[1.5], [2.0], [3.0]])
    rows = [[f"{n}.jpg", *map(float, (*t, *p))] for n, (t, p) in
            enumerate(zip(targets, predicted, strict=True))]  # fmt: skip
    metrics = measure_regression(targets, predicted, ["age"], np.array([2.0]))
    facts = make_facts(
        "regression", ["age"], rows, columns=["age", "predicted_age"], metrics=metrics,
        targets=("age",),
    )  # fmt: skip

    sections = regression.build_sections(facts)

    (row,) = find_parts(sections, "table")[0].rows
    assert row[0] == "age" and row[1] == pytest.approx(0.5) and row[4] == pytest.approx(-1 / 6)
    charts = {chart.name: chart for chart in find_parts(sections, "chart")}
    assert set(charts) == {"predicted-1", "residuals-1", "residual-counts-1"}
    assert "from -1 to 0.5" in charts["residuals-1"].description
    worst = find_parts(sections, "gallery")[0].tiles[0]
    assert (worst.path, worst.lines) == ("2.jpg", ["age 4, predicted 3"])
    (data,) = regression.tabulate_data(facts)
    assert data.rows[0][3] == pytest.approx(7 / 3)


def test_classes_of_pixels_have_their_iou():
    metrics = {"images": 2, **measure_confusion(np.array([[6, 2], [0, 4]]), ["plane", "ball"])}
    rows = [["photos/0.png", 0.4], ["photos/1.png", 0.9]]
    facts = make_facts(
        "segmentation", ["plane", "ball"], rows, columns=["mean_iou"], metrics=metrics,
        targets=("mask",),
    )  # fmt: skip

    sections = segmentation.build_sections(facts)

    (table,) = find_parts(sections, "table")
    assert table.rows == [["plane", 0.75, 1.0, 0.75, 8], ["ball", 4 / 6, 4 / 6, 1.0, 4]]
    charts = {chart.name: chart for chart in find_parts(sections, "chart")}
    assert "0.667, of ball" in charts["iou"].description
    assert ">75</text>" in charts["confusion"].body  # percent of the plane's pixels
    assert "From 0.400 to 0.900; the median is 0.650" in charts["scores"].description
    assert "Overlays are left out" in find_parts(sections, "text")[0].text


def test_edges_have_precision_and_recall_of_each_threshold():
    """Of ten edges, one more is found with each step down of the first ten thresholds."""
    found = np.minimum(np.arange(len(THRESHOLDS))[::-1], 10)
    metrics = {"images": 1, **summarize([BoundaryCounts(found, found * 2, 10)])}
    facts = make_facts(
        "edges", [], [["0.png", 0.5, 0.3]], columns=["f_score", "threshold"],
        metrics={**metrics, "sobel": metrics}, targets=("mask",),
    )  # fmt: skip

    sections = edges.build_sections(facts)

    assert metrics["curve"]["recall"][0] == 1 and metrics["curve"]["recall"][-2] == 0.1
    assert metrics["curve"]["precision"][0] == 0.5
    chart = find_parts(sections, "chart")[0]
    assert "this run 0.500" in chart.description and "Sobel filter 0.500" in chart.description


def test_training_labels_are_shown_where_the_run_asked_about_them(animals):
    row = {"path": "p/7.jpg", "label": "cat", "suggested": "dog", "own": 0.1, "other": 0.9}
    asked = {"images": 40, "doubted": 1, "labels": [row]}
    metrics = {**animals.metrics, "training_labels": asked}

    def find_texts(facts):
        return [part.text for part in find_parts(classification.build_sections(facts), "text")]

    sections = classification.build_sections(replace(animals, metrics=metrics))
    titles = {part.title: part for part in find_parts(sections, "gallery")}
    (tile,) = titles["Training labels that may be wrong"].tiles
    assert tile.lines == ["label cat (10%)", "rather dog (90%)"]
    named = replace(animals, recipe="runs/animals/001/recipe.yaml")
    check = "tltool data check runs/animals/001/recipe.yaml"
    assert any(f"{check} does it." in text for text in find_texts(named))
    named = replace(named, metrics=metrics)
    assert any(f"{check} --json lists all." in text for text in find_texts(named))
    none = {**asked, "doubted": 0, "labels": []}
    facts = replace(animals, metrics={**animals.metrics, "training_labels": none})
    assert "No label of 40 training images is doubted." in find_texts(facts)
