"""The whole job in Python: a recipe and a folder become a run that can be asked and exported."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.runs.listed import assert_all_are_listed
from tl_toolkit.api.inputs import read_parity_images
from tl_toolkit.errors import DataError, Problem, RecipeError, ThresholdError
from tl_toolkit.evaluation.metrics import check_thresholds
from tl_toolkit.images.manifest import Manifest
from tl_toolkit.tasks.classification.metrics import measure_classification

FILES = {
    "recipe.yaml", "lock.json", "status.json", "manifest.csv", "classes.json", "metrics.json",
    "predictions.csv", "model.keras", "phases", "checkpoints", "logs", "report",
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from tests.conftest import draw_class_folders

    return draw_class_folders(tmp_path_factory.mktemp("photos") / "all")


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    recipe = {
        "version": 1,
        "name": "photos",
        "data": {
            "train": str(photos),
            "validation": 0.25,
            "test": 0.25,
            "image_size": 32,
            "batch_size": 8,
        },
        "model": {
            "base": "vgg_tiny",
            "weights": "random",
            "head": {"pooling": "max", "hidden": [{"units": 8}]},
        },
        "phases": [{"name": "all", "epochs": 1}],
        "export": False,
    }
    return tl.finetune(recipe, root=tmp_path_factory.mktemp("runs"), overrides={"seed": 3})


def test_a_run_leaves_the_files_of_the_run_folder(run):
    assert {entry.name for entry in run.path.iterdir()} == FILES
    assert_all_are_listed(run.folder)
    assert json.loads((run.path / "status.json").read_text())["state"] == "done"
    assert run.recipe.seed == 3


def test_the_lock_names_versions_seeds_and_digests(run):
    lock = json.loads((run.path / "lock.json").read_text())

    assert lock["seed"] == 3
    assert len(lock["data_sha256"]) == 64
    assert lock["numerics"]["op_determinism"] is True
    assert lock["numerics"]["versions"]["keras"].count(".") == 2


def test_the_lines_of_a_card_load_the_model_as_they_stand(run, capsys, monkeypatch):
    monkeypatch.chdir(run.path)

    blocks = re.findall(r"```python\n(.*?)```", tl.card(run), flags=re.S)
    for block in blocks:
        exec(block, {})

    printed = capsys.readouterr().out
    assert "'label': " in printed and "(None, 3)" in printed


def test_the_manifest_splits_every_class_and_image(run):
    with open(run.path / "manifest.csv") as file:
        rows = list(csv.DictReader(file))

    assert len(rows) == 24
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        labels = [row["label"] for row in rows if row["split"] == split]
        assert {labels.count(name) for name in ("ants", "bees", "wasps")} == {count}


def test_the_history_is_that_of_the_phases(run):
    start, end = run.history

    assert (start["phase"], start["epoch"], start["loss"]) == ("all", 0, None)
    assert (end["epoch"], end["val_loss"]) == (1, run.metrics["best"]["val_loss"])
    assert set(end) == set(run.metrics["best"])
    assert start["val_accuracy"] == float(start["val_accuracy"])


def test_metrics_are_those_of_the_saved_model(run):
    again = tl.load_run(run.path).evaluate()

    assert again["split"] == "test"
    assert again["accuracy"] == run.metrics["test"]["accuracy"]
    assert again["loss"] == pytest.approx(run.metrics["test"]["loss"], rel=1e-6)


@pytest.mark.slow
def test_weights_that_were_changed_afterwards_are_not_those_of_the_run(run, photos, caplog):
    opened = tl.load_run(run.path)
    image = next(photos.glob("*/*"))
    before = opened.predict(image)[0].probabilities
    model = opened.model

    opened.predict(image)
    assert not caplog.text
    model.get_layer("predictions").bias.assign([9, 0, 0])

    assert opened.predict(image)[0].probabilities == before
    assert "run.model was changed" in caplog.text
    assert opened.model is not model
    opened.model = model
    assert opened.evaluate()["accuracy"] == run.metrics["test"]["accuracy"]


def test_predictions_of_files_equal_those_of_the_run(run):
    with open(run.path / "predictions.csv") as file:
        rows = list(csv.DictReader(file))

    predictions = run.predict([row["path"] for row in rows])

    for row, prediction in zip(rows, predictions, strict=True):
        assert prediction.label == row["predicted"]
        assert prediction.probability == pytest.approx(float(row["probability"]), abs=1e-6)


def test_averaging_names_its_views_and_leaves_the_run_as_it_is(run, photos):
    before = {path: path.read_bytes() for path in run.path.rglob("*.*") if path.is_file()}
    events = []

    metrics = run.evaluate(tta=True, progress=events.append)
    run.predict(photos / "ants" / "0.jpg", tta="flip", progress=events.append)

    assert metrics["tta"] == ["whole", "whole, mirrored"]
    texts = [event.text for event in events if event.text]
    assert texts[0] == "averaged over 2 views of each image: whole; whole, mirrored"
    assert texts[1] == texts[0]
    assert {path: path.read_bytes() for path in run.path.rglob("*.*") if path.is_file()} == before


def test_a_folder_is_predicted_with_all_below_it_and_refusals_by_name(run, photos, tmp_path):
    (tmp_path / "good.jpg").write_bytes((photos / "ants" / "0.jpg").read_bytes())
    (tmp_path / "bad.jpg").write_bytes(b"not an image")

    predictions = {prediction.path: prediction for prediction in run.predict([tmp_path])}

    assert predictions[str(tmp_path / "good.jpg")].label in run.classes
    assert predictions[str(tmp_path / "bad.jpg")].label is None
    assert predictions[str(tmp_path / "bad.jpg")].error


def test_arrays_are_predicted_like_the_files_they_come_from(run, photos):
    file = photos / "ants" / "0.jpg"
    pixels = np.asarray(Image.open(file))

    of_file, first, *batch = run.predict([file, pixels, np.stack([pixels, pixels])])

    assert [item.path for item in (first, *batch)] == ["array[0]", "array[1]", "array[2]"]
    for prediction in (first, *batch):
        assert prediction.probabilities == pytest.approx(of_file.probabilities, abs=1e-6)
    assert run.predict(pixels)[0].label == of_file.label
    assert run.predict(pixels[..., 0])[0].label in run.classes
    with pytest.raises(DataError, match=r"paths\[0\]  has dtype float64"):
        run.predict(pixels / 255)


@pytest.mark.slow
def test_what_was_converted_for_training_is_predicted_and_evaluated(run, photos, tmp_path):
    image = Image.open(photos / "ants" / "0.jpg")
    (tmp_path / "ants").mkdir()
    image.save(tmp_path / "ants" / "a.tif")
    clear = image.convert("RGBA")
    clear.putalpha(128)
    clear.save(tmp_path / "ants" / "b.webp", lossless=True)
    expected = run.predict(np.asarray(image))[0]
    converting = tl.Run(run.folder)
    data = run.recipe.data.model_copy(update={"convert": True})
    converting.recipe = run.recipe.model_copy(update={"data": data})

    refused = run.predict(tmp_path)
    predictions = converting.predict(tmp_path)
    measured = converting.evaluate(tmp_path)
    shutil.rmtree(run.folder.converted)

    assert all(prediction.error for prediction in refused)
    for prediction in predictions:
        assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert (measured["images"], measured["skipped"]) == (2, {})


def test_other_images_are_evaluated_by_folder(run, photos):
    found = run.evaluate(photos)

    assert found["images"] == 24
    assert np.sum(found["confusion"]) == 24


def test_images_of_an_unknown_class_are_refused(run, tmp_path, draw_photos):
    draw_photos(tmp_path / "other", classes=("ants", "hornets"))

    with pytest.raises(DataError, match="hornets"):
        run.evaluate(tmp_path / "other")


@pytest.mark.slow
def test_model_keras_loads_without_this_package(run, photos):
    code = """
import sys, numpy as np, keras
model = keras.saving.load_model(sys.argv[1])
print(model.predict(np.zeros((1, 32, 32, 3)), verbose=0).shape, "tl_toolkit" in sys.modules)
"""

    found = subprocess.run(
        [sys.executable, "-c", code, str(run.folder.model)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.strip() == "(1, 3) False"


@pytest.mark.slow
def test_a_recipe_object_does_the_same(photos, tmp_path, write_recipe):
    recipe = tl.load_recipe(write_recipe(tmp_path / "r.yaml", photos)).recipe

    run = tl.finetune(recipe, overrides={"phases.head.epochs": 0}, root=tmp_path / "runs")

    assert run.recipe.phases[0].epochs == 0
    assert run.recipe.data == recipe.data


@pytest.mark.slow
def test_a_failed_baseline_is_a_warning_and_the_run_is_done(photos, tmp_path, write_recipe, caplog):
    burst = {
        "phases.head.unfreeze": 4,
        "phases.head.optimizer": "sgd",
        "phases.head.learning_rate": 1e38,
    }
    path = write_recipe(tmp_path / "r.yaml", photos, baseline=burst)

    run = tl.finetune(path, out=tmp_path / "run")

    assert run.folder.read_status()["state"] == "done"
    assert run.metrics["validation"]["images"] == 6 and "baseline" not in run.metrics
    assert "the baseline failed, the run itself is done: baseline, phase 'head'" in caplog.text
    assert "baseline.phases.head" in caplog.text


def test_damaged_images_of_another_folder_are_skipped_by_name(run, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "other")
    (tmp_path / "other" / "ants" / "0.jpg").write_bytes(b"no image")

    found = run.evaluate(tmp_path / "other")

    assert found["images"] == 23
    assert list(found["skipped"]) == [str(tmp_path / "other" / "ants" / "0.jpg")]


@pytest.fixture
def copied(run, photos, tmp_path):
    """A copy of the run and of its photos."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(run.path, tmp_path / "run")
    for name in ("manifest.csv", "recipe.yaml"):
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace(str(photos), str(tmp_path / "photos")))
    return tl.load_run(tmp_path / "run")


def test_images_that_moved_are_told_and_need_no_new_training(copied, tmp_path):
    photos, run = tmp_path / "photos", copied
    one = Manifest.load(run.folder.manifest, classes=run.classes).of("validation")[0].path
    before = Path(one).read_bytes()
    told = []

    def read():
        manifest = Manifest.load(run.folder.manifest, classes=run.classes)
        return read_parity_images(manifest, lambda event: told.append(event.text))

    assert len(read()) == 6 and not told
    Path(one).unlink()
    assert len(read()) == 5 and "1 of 6 validation images cannot be compared on" in told.pop()
    Path(one).write_bytes(before)
    photos.rename(tmp_path / "elsewhere")
    assert read() == {} and "is compared on probe images that the package renders" in told.pop()
    assert run.export(["weights"])["weights"].is_file()  # needs no image
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*--data FOLDER"):
        run.evaluate()


@pytest.mark.slow
def test_a_run_whose_photos_moved_is_exported(run, photos):
    photos.rename(photos.with_name("moved"))
    try:
        path = run.export()["saved_model"]
    finally:
        photos.with_name("moved").rename(photos)
        report = json.loads(run.folder.parity.read_text())
        shutil.rmtree(run.folder.export)

    assert path.name == "1" and report["holds"]
    assert all(image["name"].startswith("probe: ") for image in report["images"])


def test_a_damaged_model_is_told(copied):
    run = copied
    run.folder.model.write_bytes(b"half of a mod")

    with pytest.raises(DataError, match="is damaged, or no"):
        tl.load_run(run.path).evaluate()


def test_a_recipe_file_and_overrides_do_the_same(photos, tmp_path, write_recipe):
    path = write_recipe(tmp_path / "r.yaml", photos, export={"formats": ["weights"]})

    run = tl.finetune(
        path, overrides=["phases.head.epochs=0", "name=other"], root=tmp_path / "runs"
    )

    assert run.path == tmp_path / "runs" / "other" / "001"
    assert (run.path / "export" / "base.weights.h5").is_file()


@pytest.mark.slow
def test_exported_weights_start_the_next_run_where_the_first_ended(photos, tmp_path, write_recipe):
    phases = [{"name": "all", "epochs": 1, "unfreeze": 4}]
    path = write_recipe(tmp_path / "r.yaml", photos, export={"formats": ["weights"]}, phases=phases)
    first = tl.finetune(path, root=tmp_path / "runs")

    second = tl.finetune(
        path,
        overrides={
            "model.weights": str(first.path / "export" / "base.weights.h5"),
            "phases.all.epochs": 0,
            "export": False,
        },
        root=tmp_path / "runs",
    )

    for name in ("c1_conv", "f6_dense"):
        np.testing.assert_array_equal(
            first.model.get_layer(name).kernel, second.model.get_layer(name).kernel
        )


@pytest.mark.slow
def test_a_baseline_is_trained_beside_the_run(photos, tmp_path, write_recipe):
    path = write_recipe(
        tmp_path / "r.yaml", photos, baseline={"phases.head.unfreeze": 4}, yardsticks=False
    )

    run = tl.finetune(path, root=tmp_path / "runs")

    assert run.metrics["baseline"]["changes"] == {"phases.head.unfreeze": 4}
    assert run.metrics["baseline"]["validation"]["images"] == 6
    receipt = run.path / "baseline" / "phases" / "1-head" / "receipt.json"
    assert json.loads(receipt.read_text())["cut"] == "c1"
    assert_all_are_listed(run.folder)


@pytest.mark.slow
def test_a_sigmoid_predicts_like_a_softmax(tmp_path, draw_photos, write_recipe):
    photos = draw_photos(tmp_path / "two", classes=("ants", "bees"))
    model = {"base": "lenet5", "weights": "random", "head": {"activation": "sigmoid"}}
    path = write_recipe(tmp_path / "r.yaml", photos, model=model)

    run = tl.finetune(path, root=tmp_path / "runs")

    prediction = run.predict([photos / "ants" / "0.jpg"])[0]
    assert sum(prediction.probabilities.values()) == pytest.approx(1.0)
    assert run.metrics["best"]["val_accuracy"] == run.metrics["validation"]["accuracy"]
    assert run.metrics["best"]["val_loss"] == run.metrics["validation"]["loss"]


def test_metrics_of_a_hand_made_case():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])

    found = measure_classification(np.array([0, 0, 1, 1]), probabilities, ("a", "b"))

    assert found["accuracy"] == 0.5
    assert found["confusion"] == [[1, 1], [1, 1]]
    assert found["loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.3]).mean())
    assert found["per_class"]["a"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "images": 2}


def test_thresholds_name_what_was_missed():
    lower = {"loss"}
    check_thresholds(
        {"accuracy": 0.9, "loss": 0.2}, {"accuracy": 0.9, "loss": 0.2}, lower_is_better=lower
    )

    with pytest.raises(ThresholdError, match=r"accuracy = 0\.9000\n  Asked for at least 0\.95"):
        check_thresholds({"accuracy": 0.9}, {"accuracy": 0.95}, lower_is_better=lower)
    with pytest.raises(ThresholdError, match=r"Asked for at most 0\.1"):
        check_thresholds({"loss": 0.2}, {"loss": 0.1}, lower_is_better=lower)
    with pytest.raises(RecipeError, match="did you mean 'accuracy'"):
        check_thresholds({"accuracy": 0.9}, {"acuracy": 0.95}, lower_is_better=lower)


def test_a_run_that_images_end_waits_for_the_model_that_is_drawn_aside(
    photos, tmp_path, write_recipe, monkeypatch
):
    # A process that ends while a thread of TensorFlow's still traces is aborted.
    drawn = []

    def draw(self, *_):
        time.sleep(0.3)
        drawn.append(self)

    def refuse(*_):
        raise DataError(Problem("photos", "are broken"))

    monkeypatch.setattr("tl_toolkit.api.finetune._Finetuning._compile", draw)
    monkeypatch.setattr("tl_toolkit.training.prepare.survey_images", refuse)

    with pytest.raises(DataError, match="are broken"):
        tl.finetune(write_recipe(tmp_path / "r.yaml", photos), out=tmp_path / "run")

    assert len(drawn) == 1
