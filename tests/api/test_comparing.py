"""`tl.compare`: recipes, conditions, scores, and a paired test of what was predicted."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.runs.written import CLASSES, write_predictions, write_run
from tests.tasks.views import make_view
from tl_toolkit.errors import RecipeError
from tl_toolkit.runs.files import write_json
from tl_toolkit.tasks.classification.metrics import sample_predictions as sample_classes
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.dense.metrics import sample_predictions as sample_maps
from tl_toolkit.tasks.resampling import compare_samples
from tl_toolkit.tasks.segmentation.spec import SegmentationSection


def predict(right, labels="ab" * 5):
    """Rows of images 0, 1, ... of which those in `right` are predicted as they are labelled."""
    names = {"a": "ant", "b": "bee"}
    other = {"a": "bee", "b": "ant"}
    return [
        (f"image {place}", names[label], (names if place in right else other)[label])
        for place, label in enumerate(labels)
    ]


def test_two_runs_are_tested_on_the_images_that_both_predicted(tmp_path):
    first, second = write_run(tmp_path), write_run(tmp_path)
    write_predictions(first, predict(right=range(7)))
    # In another order, under other paths, and without image 9.
    write_predictions(second, predict(right=range(5, 10))[8::-1])

    (test,) = tl.compare(["photos/001", "photos/002"], root=tmp_path).tests

    assert (test.run, test.other, test.split, test.images) == (
        "photos/001", "photos/002", "test", 9,
    )  # fmt: skip
    # 0 to 4 are right in the first alone, 7 and 8 in the other: of 7 coins 2 or fewer, twice.
    assert test.result["only_run"] == 5 and test.result["only_other"] == 2
    assert test.result["p"] == pytest.approx(2 * (1 + 7 + 21) / 2**7)
    assert test.result["verdict"] == "open"


def test_images_that_one_run_alone_predicts_right_are_listed_with_both_predictions(tmp_path):
    first, second = write_run(tmp_path), write_run(tmp_path)
    write_predictions(first, predict(right=(0, 1, 2)))
    write_predictions(second, predict(right=(1, 2, 3)))

    (test,) = tl.compare([first.path, second.path]).tests

    assert [(image.target, image.predicted, image.other) for image in test.differing] == [
        ("ant", "ant", "bee"), ("bee", "ant", "bee"),
    ]  # fmt: skip
    assert [image.is_right for image in test.differing] == [True, False]
    assert [image.path for image in test.differing] == ["001/0.png", "001/3.png"]


def test_the_page_shows_the_images_that_differ_and_escapes_their_names(tmp_path):
    first, second = write_run(tmp_path), write_run(tmp_path)
    write_predictions(first, predict(right=(0, 1, 2)))
    write_predictions(second, predict(right=(1, 2, 3)))
    photo = tmp_path / "a & <b>.png"
    Image.new("RGB", (8, 8), "red").save(photo)
    for file in (first.predictions, first.manifest):
        file.write_text(file.read_text().replace("001/0.png", str(photo)))

    tl.compare([first.path, second.path]).write_page(tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text()
    assert "a &amp; &lt;b&gt;.png: ant, not bee" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 1
    assert page.count("no picture") == 1  # the other image is not there
    assert "http" not in page.replace("http-equiv", "")


def test_an_image_whose_label_was_changed_is_no_image_of_both(tmp_path):
    first, second = write_run(tmp_path), write_run(tmp_path)
    write_predictions(first, predict(right=range(10)))
    relabelled = [("image 0", "bee", "bee"), *predict(right=())[1:]]
    write_predictions(second, relabelled)

    (test,) = tl.compare([first.path, second.path]).tests

    assert test.images == 9 and test.result["only_run"] == 9
    assert test.result["verdict"] == "better"


def test_runs_without_an_image_in_common_are_not_tested_and_it_is_said(tmp_path):
    first, second = write_run(tmp_path), write_run(tmp_path)
    write_predictions(first, predict(right=range(10)))
    write_predictions(second, [(f"another {name}", *rest) for name, *rest in predict(range(3))])

    comparison = tl.compare(["photos/001", "photos/002"], root=tmp_path)

    assert comparison.tests == []
    assert comparison.untested == [
        "photos/001 and photos/002, test: they predicted no images in common"
    ]


@pytest.mark.parametrize("times", [1, 2])
def test_an_image_that_is_there_twice_in_both_counts_twice(tmp_path, times):
    first, second = write_run(tmp_path), write_run(tmp_path)
    write_predictions(first, 2 * predict(right=range(10)))
    write_predictions(second, times * predict(right=range(10)))

    assert tl.compare([first.path, second.path]).tests[0].images == 10 * times


def test_fields_and_conditions_that_differ_are_named(tmp_path):
    write_run(tmp_path)
    second = write_run(tmp_path, changes={"phases.head.epochs": 5, "seed": 1})
    write_run(tmp_path, changes={"seed": 2})
    lock = json.loads(second.lock.read_text())
    write_json(second.lock, {**lock, "numerics": {"versions": {"keras": "3.16.0"}}})

    comparison = tl.compare([f"photos/00{n}" for n in (1, 2, 3)], root=tmp_path)

    assert comparison.fields == {"seed": (0, 1, 2), "phases.head.epochs": (3, 5, 3)}
    assert comparison.conditions == {"versions.keras": ("3.15.1", "3.16.0", "3.15.1")}
    assert [each["accuracy"] for each in comparison.splits["validation"]] == [0.75] * 3


def test_copies_of_one_base_of_the_users_own_do_not_differ(tmp_path):
    for _ in range(2):
        folder = write_run(tmp_path)
        text = folder.recipe.read_text()
        text = text.replace("base: lenet5", f"base: {{model: {folder.base}}}")
        folder.recipe.write_text(text.replace("  weights: random\n", ""))

    assert tl.compare(["photos/001", "photos/002"], root=tmp_path).fields == {}


def test_a_search_or_a_single_run_is_refused(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, "photos-search", kind="search")

    with pytest.raises(RecipeError, match="photos-search/001  is a search"):
        tl.compare(["photos/001", "photos-search/001"], root=tmp_path)
    with pytest.raises(RecipeError, match="got 1"):
        tl.compare(["photos/001"], root=tmp_path)


@pytest.mark.parametrize("units", [2, 1])
def test_what_a_classification_predicted_tells_its_metrics_again(units):
    random = np.random.default_rng(0)
    positive = random.random((20, 1))
    outputs = positive if units == 1 else np.concatenate([1 - positive, positive], axis=1)
    targets = random.integers(0, 2, 20)
    activation = "sigmoid" if units == 1 else "softmax"
    task = Classification(CLASSES, activation=activation)
    view = make_view(outputs, [(CLASSES[target],) for target in targets])
    evaluation = task.evaluate(view, targets.astype(np.int32))

    table = evaluation.predictions
    cells = zip(*[map(str, row) for row in table.rows], strict=True)
    columns = dict(zip(table.columns, map(list, cells), strict=True))

    sample = sample_classes(columns, CLASSES, {}, None)

    found = compare_samples(sample, evaluation.sample, "accuracy")
    assert (found["only_run"], found["only_other"]) == (0, 0)
    for name, values in sample.measure(np.ones((1, 20))).items():
        assert values[0] == pytest.approx(evaluation.metrics[name])


def test_maps_are_compared_by_the_mean_of_their_images():
    paths = ["a.png", "b.png", "c.png", "d.png"]
    columns = {"path": paths, "mean_iou": ["0.5", "", "1.0", "0.0"]}  # a crop left nothing of b

    sample = sample_maps(columns, (), {}, SegmentationSection())

    counts = np.array([[1, 1, 1, 1], [2, 1, 0, 0]], np.float64)
    assert sample.measure(counts)["mean_iou"].tolist() == [0.5, 0.5]
    assert sample.images == 4
    unscored = sample_maps({"path": paths}, (), {}, SegmentationSection())
    assert unscored.measure(counts)["mean_iou"].tolist() == [0.0, 0.0]


def test_the_command_prints_what_differs_and_the_verdict(tmp_path):
    runs = tmp_path / "runs"
    first = write_run(runs, changes={"phases.head.epochs": 5})
    second = write_run(runs)
    write_predictions(first, predict(right=range(10)))
    write_predictions(second, predict(right=range(3)))

    command = ("compare", "photos/001", "photos/002")
    printed = tltool(*command, "--html", "page.html", cwd=tmp_path).stdout
    as_json = tltool(*command, "--json", cwd=tmp_path).stdout
    page = tltool(*command, "--html", "-", cwd=tmp_path).stdout
    refused = tltool(*command, "--html", "-", "--json", cwd=tmp_path, code=2)

    assert "--json and --html -: stdout takes one of them" in refused.stderr and not refused.stdout
    assert "phases.head.epochs   5           3" in printed
    assert "validation  accuracy  0.7500 (0.300 to 0.950)  0.7500 (0.300 to 0.950)" in printed
    assert "photos/001 on 10 images (test): better than photos/002: this run alone" in printed
    assert "001/3.png   bee    bee         ant" in printed
    assert json.loads(as_json)["fields"] == {"phases.head.epochs": [5, 3]}
    assert len(json.loads(as_json)["tests"][0]["differing"]) == 7
    assert (tmp_path / "page.html").read_text() == page and page.startswith("<!doctype html>")


def test_runs_has_the_verb_too(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path)

    printed = tltool("runs", "compare", "photos/001", "photos/002", cwd=tmp_path).stdout

    assert printed == tltool("compare", "photos/001", "photos/002", cwd=tmp_path).stdout
    assert "the recipes are equal" in printed


@pytest.mark.slow
def test_comparing_imports_no_tensorflow(tmp_path):
    """A process of its own: this one has imported it."""
    for _ in range(2):
        write_predictions(write_run(tmp_path), predict(right=range(3)))
    code = (
        "import sys, tl_toolkit as tl; "
        f"found = tl.compare(['photos/001', 'photos/002'], root={str(tmp_path)!r}); "
        "print(len(found.tests), 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["1", "False", "False"]
