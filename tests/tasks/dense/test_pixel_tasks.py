"""Tasks with an output for each pixel, through the verbs that a classification goes through."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.pixels import TASKS, draw_balls, make_recipe
from tl_toolkit.errors import OutputError, RecipeError
from tl_toolkit.evaluation.splits import ModelView
from tl_toolkit.images.pipeline import Images
from tl_toolkit.printing.markdown import read_front_matter
from tl_toolkit.recipe.load import replace_fields
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.runs.results import finish
from tl_toolkit.tasks.dense.evaluation import sample_lattice
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.tasks.temperature import scale

SCORES = {"segmentation": "mean_iou", "edges": "f_score", "normals": "within_22_5"}
METRICS = {"segmentation": "mean_iou", "edges": "ods", "normals": "within_22_5"}
PICTURES = {"segmentation": "mask", "edges": "edges", "normals": "normals"}


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    """A folder for each task, with the same images."""
    return draw_balls(tmp_path_factory.mktemp("balls"))


@pytest.fixture(
    scope="module",
    params=[TASKS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in TASKS[1:])],
)
def run(request, balls, tmp_path_factory):
    """A finished run of each task; that of the default tests trains its head alone."""
    recipe = make_recipe(request.param, balls)
    if request.param == TASKS[0]:
        del recipe["phases"][1:]
    return tl.finetune(recipe, out=tmp_path_factory.mktemp("runs") / request.param)


class Record:
    """Keeps the sentences and the counts of images that are reported."""

    def __init__(self):
        self.lines, self.counts = [], []

    def handle(self, event):
        if event.kind == "message":
            self.lines.append(event.text)
        elif event.kind == "images_inspected":
            self.counts.append((event.done, event.total))


def photo_of(run):
    return next((Path(run.recipe.data.validation) / "images").iterdir())


def test_a_run_tells_the_scores_of_its_task(run):
    task = run.recipe.task.kind
    metrics = run.metrics

    best = metrics["best"]
    assert 0 < best[f"val_{SCORES[task]}"] <= 1
    assert METRICS[task] in metrics["validation"]
    receipts = [json.loads(path.read_text()) for path in run.folder.path.rglob("receipt.json")]
    assert len(receipts) == len(run.recipe.phases)
    assert all(receipt["holds"] for receipt in receipts)
    rows = run.folder.predictions.read_text().splitlines()[1:]
    assert len(rows) == metrics["validation"]["images"] == 4


@pytest.mark.slow
def test_a_kept_model_measures_as_the_run_did(run):
    again = run.evaluate()

    for name, value in run.metrics["validation"].items():
        if isinstance(value, float):
            assert again[name] == pytest.approx(value, abs=1e-4), name


def test_runs_are_compared_by_the_mean_of_their_images(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "worse")
    other = RunFolder(tmp_path / "worse")
    with open(other.predictions, newline="") as file:
        rows = list(csv.DictReader(file))
    score = SCORES[run.recipe.task.kind]
    lowered = [row | {score: float(row[score]) - 0.125} for row in rows]
    with open(other.predictions, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(lowered)
    finish(other)

    (test,) = tl.compare([run, other.path]).tests

    assert (test.split, test.images, test.result["metric"]) == ("validation", 4, score)
    assert test.result["difference"] == pytest.approx(0.125)
    assert test.result["verdict"] == "better"


def test_a_card_claims_the_metrics_of_its_task(run):
    text = tl.card(run)

    task = run.recipe.task
    (result,) = read_front_matter(text)["model-index"][0]["results"]
    names = {metric["name"]: metric["value"] for metric in result["metrics"]}
    name = METRICS[task.kind]
    assert names[f"{task.title_of(name)} (validation)"] == run.metrics["validation"][name]
    assert result["task"]["type"] in ("image-segmentation", "image-to-image")


@pytest.mark.slow
def test_mirror_images_are_averaged_in_metrics_and_predictions(run):
    mirrored = run.evaluate(tta=True)

    name = METRICS[run.recipe.task.kind]
    assert mirrored["tta"] == ["whole", "whole, mirrored"]
    assert abs(mirrored[name] - run.metrics["validation"][name]) < 0.2
    assert mirrored["images"] == 4
    (plain,), (averaged,) = run.predict(photo_of(run)), run.predict(photo_of(run), tta=True)
    assert plain.maps.keys() == averaged.maps.keys()
    with pytest.raises(RecipeError, match="and tta: windows"):
        run.predict(photo_of(run), native=True, tta=True)


@pytest.mark.slow
def test_a_folder_is_measured_like_the_split_that_it_holds(run):
    actual = run.evaluate(run.recipe.data.validation)

    assert actual["images"] == 4
    name = METRICS[run.recipe.task.kind]
    assert actual[name] == pytest.approx(run.metrics["validation"][name], abs=1e-4)


@pytest.mark.slow
def test_predictions_are_of_the_size_of_the_file(run, tmp_path):
    Image.open(photo_of(run)).resize((90, 50)).save(tmp_path / "wide.png")

    (prediction,) = run.predict(tmp_path / "wide.png")

    (large,) = run.predict(tmp_path / "wide.png", native=True)
    for one in (*prediction.maps.values(), *large.maps.values()):
        assert one.shape[:2] == (50, 90)


@pytest.mark.slow
def test_an_image_of_the_model_s_size_is_predicted_alike_at_its_own(run):
    (resized,) = run.predict(photo_of(run))
    (native,) = run.predict(photo_of(run), native=True)

    for name, one in resized.maps.items():
        np.testing.assert_allclose(native.maps[name], one, atol=1e-5)


@pytest.mark.slow
def test_a_saved_model_predicts_as_the_run_predicts(run):
    from tests.export.unequal import ask

    run.export(("saved_model",))
    pixels = np.asarray(Image.open(photo_of(run)))
    predicted = ask(run.folder.export / "saved_model" / "1", [pixels[np.newaxis]],
                [photo_of(run).read_bytes()]).pixels[0]  # fmt: skip

    (expected,) = run.predict(photo_of(run))
    for name, one in expected.maps.items():
        if one.dtype == np.float32:
            np.testing.assert_allclose(predicted[name][0], one, atol=1e-5)
        else:
            assert (predicted[name][0] == one).mean() > 0.999


@pytest.mark.slow
def test_the_command_line_measures_and_draws(run, tmp_path):
    table = tltool("evaluate", run.path, cwd=tmp_path).stdout
    drawn = tltool("predict", run.path, photo_of(run), "--format", "csv", cwd=tmp_path).stdout

    picture = PICTURES[run.recipe.task.kind]
    (row,) = csv.DictReader(io.StringIO(drawn))
    for kind in (picture, "overlay"):
        with Image.open(tmp_path / row[kind]) as image:
            assert image.size == (64, 64)
    assert (tmp_path / "predictions" / "legend.png").exists()
    if run.recipe.task.kind == "segmentation":
        assert "ball" in table and "majority class" in table
        assert float(row["share_ball"]) + float(row["share_plane"]) == pytest.approx(1)
        with Image.open(tmp_path / row["mask"]) as image:
            assert image.mode == "P" and set(np.unique(np.asarray(image))) <= {0, 1}


def test_images_in_the_folder_of_predictions_are_left_out(run, tmp_path):
    place = tmp_path / "same"
    place.mkdir()
    shutil.copy(photo_of(run), place / "cat.png")
    mine = place / f"cat_{PICTURES[run.recipe.task.kind]}.png"
    shutil.copy(photo_of(run), mine)

    with pytest.raises(OutputError, match="the 2 images in it are left out"):
        run.predict(place, out=place)
    with pytest.raises(OutputError, match="would be lost"):
        run.predict(place / "cat.png", out=place)

    assert mine.read_bytes() == photo_of(run).read_bytes()
    assert len(list(place.iterdir())) == 2


@pytest.mark.slow
def test_predicting_again_leaves_the_first_predictions_out_and_replaces_them(run, tmp_path):
    shutil.copy(photo_of(run), tmp_path / "cat.png")
    record = Record()

    for _ in range(2):
        (prediction,) = run.predict(tmp_path, out=tmp_path / "predictions", progress=record.handle)

    assert prediction.path == str(tmp_path / "cat.png")
    assert len(list((tmp_path / "predictions").iterdir())) == 3  # with a legend
    assert [line for line in record.lines if "left out: 3 images in" in line]


@pytest.mark.slow
def test_progress_counts_files_that_cannot_be_read(run, tmp_path):
    shutil.copy(photo_of(run), tmp_path / "cat.png")
    (tmp_path / "dog.png").write_text("no image")
    record = Record()

    _, dog = run.predict(tmp_path, progress=record.handle)

    assert dog.error
    assert record.counts == [(1, 2), (2, 2)]


@pytest.mark.slow
def test_thresholds_are_those_of_the_task(run, tmp_path):
    name = METRICS[run.recipe.task.kind]

    done = tltool("evaluate", run.path, "--fail-under", f"{name}=1.0", cwd=tmp_path, code=4)
    assert "Asked for at least 1" in done.stderr

    done = tltool("evaluate", run.path, "--fail-under", "accuracy=0.5", cwd=tmp_path, code=2)
    assert "'accuracy' is no metric of the run" in done.stderr and name in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_search_over_dropout_and_depth(task, balls, tmp_path):
    recipe = make_recipe(task, balls) | {
        "search": {
            "algorithm": "grid",
            "space": {
                "model.head.hidden.0.dropout": {"choices": [0.0, 0.4]},
                "phases.tune.unfreeze": {"choices": [0, {"from": "block4"}]},
            },
        }
    }

    actual = tl.search(recipe, out=tmp_path / "search")

    assert [trial.state for trial in actual.trials] == ["completed"] * 4
    assert actual.summary["objective"] == f"val_{SCORES[task]}"
    alone = tl.finetune(tmp_path / "search" / "best.yaml", out=tmp_path / "alone")
    assert alone.metrics["best"][f"val_{SCORES[task]}"] == actual.summary["best"]["score"]
    header = (tmp_path / "search" / "trials.csv").read_text().splitlines()[0]
    assert f"val_{SCORES[task]}" in header


@pytest.mark.slow
@pytest.mark.parametrize("store", ["never", "always"])
def test_augmented_and_stored_runs_train(store, balls, tmp_path):
    features = {"store": store, "views": 2} if store == "always" else {"store": store}
    recipe = make_recipe("normals", balls) | {
        "augment": {"flip": "horizontal", "rotation": 0.1},
        "features": features,
    }

    run = tl.finetune(recipe, out=tmp_path / "run")

    assert run.metrics["best"]["val_within_22_5"] > 0


@pytest.mark.slow  # tests/api/test_surface.py loads such a layer in a process of its own
def test_a_fresh_process_loads_the_model_of_a_run(run):
    code = """
import sys, numpy as np, tl_toolkit as tl
model = tl.load_run(sys.argv[1]).model
places = np.array([[[0, 0], [63, 63], [5, 7]]], "float32")
print(model.predict([np.zeros((1, 64, 64, 3)), places], verbose=0).shape[:2])
"""

    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "(1, 3)", done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # KerasTuner calls names that Python has deprecated
@pytest.mark.parametrize("task", TASKS)
def test_a_hypermodel_is_compiled_with_the_loss_of_its_task(task, balls):
    import keras_tuner

    recipe = make_recipe(task, balls)
    recipe["search"] = {"space": {"model.head.dropout": {"choices": [0.1, 0.2]}}}
    model = tl.hypermodel(recipe).build(keras_tuner.HyperParameters())
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    places = np.random.default_rng(1).integers(0, 64, (2, 5, 2)).astype("float32")
    targets = {
        "segmentation": np.array([[0, 1, 1, 0, 255]] * 2, "int32"),
        "edges": np.array([[0, 1, 1, 0, -1]] * 2, "float32"),
        "normals": np.array([[[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]] * 2, "f4"),
    }[task]

    actual = model.evaluate([images, places], targets, verbose=0, return_dict=True)["loss"]

    predicted = model.predict([images, places], verbose=0)[:, :4]
    if task == "normals":
        cosines = (predicted * targets[:, :4]).sum(-1) / np.linalg.norm(predicted, axis=-1)
        expected = (1 - cosines).mean()
    elif task == "segmentation":
        expected = -np.log(np.take_along_axis(predicted, targets[:, :4, None], -1)).mean()
    else:
        hit = np.where(targets[:, :4] == 1, predicted[..., 0], 1 - predicted[..., 0])
        expected = -np.log(hit).mean()
    assert actual == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_report_shows_targets_predictions_and_errors(run):
    text = tl.report(run).read_text()

    kinds = ["image", "target", "prediction", "errors"]
    counts = [text.count(f'alt="{kind}: ') for kind in kinds]
    assert counts == [4] * 4  # the images that were validated
    assert text.count('<img src="data:image/jpeg;base64,') == 16


@pytest.mark.slow
def test_the_temperature_of_a_run_is_that_of_pixels_all_over_its_maps(run):
    if run.recipe.task.kind != "segmentation":
        pytest.skip("of tasks with classes")
    task = build_task(replace_fields(run.recipe, {"task.calibrate": True}), run.classes)
    examples = run._read_manifest().of("validation")
    size = run.recipe.data.image_size
    masks = task.load_targets(examples, size, run.resize)
    view = ModelView(run.model, task, Images(examples, image_size=size, resize=run.resize,
                                             channels=3, targets=masks))  # fmt: skip

    task.finish(view, masks)

    outputs, labels = sample_lattice(view, masks, most_lines=8)
    assert outputs.shape == (4 * 8 * 8, len(run.classes)) and labels.shape == (256,)
    whole = run.predict(examples[0].path)[0].maps
    rows, columns = (np.linspace(0, side - 1, 8).round().astype(int)
                     for side in whole["mask"].shape)  # fmt: skip
    at = np.ix_(rows, columns)
    np.testing.assert_allclose(outputs[:64].max(-1), whole["probability"][at].ravel(), atol=1e-5)
    outputs, labels = sample_lattice(view, masks)
    losses = [-np.log(scale(outputs, each)[np.arange(len(labels)), labels]).mean()
              for each in (task.state()["temperature"], 1.0, 1.2, 0.8)]  # fmt: skip
    assert losses[0] < min(losses[1:])
    measured = task.evaluate(view, masks).metrics
    assert measured["temperature"] == task.state()["temperature"] and 0 <= measured["ece"] < 1
    assert measured["mean_iou"] == pytest.approx(run.metrics["validation"]["mean_iou"])
