"""Multi-label classification and regression through every verb, on drawn images and tables."""

import csv
import io
import json
from pathlib import Path

import keras_tuner
import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.command import tltool
from tests.export.unequal import ask
from tests.tables import CLASSES, draw_tables, make_recipe, write_table
from tl_toolkit.api.report import build_report
from tl_toolkit.api.run import Run
from tl_toolkit.errors import NonFiniteError, ThresholdError
from tl_toolkit.evaluation.metrics import check_thresholds
from tl_toolkit.evaluation.pairing import read_predictions
from tl_toolkit.printing.markdown import read_front_matter
from tl_toolkit.recipe.tasks import find_task
from tl_toolkit.reports.page import write_report

TABLES = {"multilabel": "labels", "regression": "numbers"}
SCORES = {"multilabel": "mean_average_precision", "regression": "r2"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The folder of images and tables."""
    return draw_tables(tmp_path_factory.mktemp("tables") / "data")


def train(task, tables, out):
    recipe = make_recipe(task, tables / f"{TABLES[task]}.csv", yardsticks=False)
    return tl.finetune(recipe, out=out / task)


@pytest.fixture(scope="module")
def of_labels(tables, tmp_path_factory):
    return train("multilabel", tables, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def of_numbers(tables, tmp_path_factory):
    return train("regression", tables, tmp_path_factory.mktemp("runs"))


@pytest.fixture(params=["of_labels", pytest.param("of_numbers", marks=pytest.mark.slow)])
def run(request):
    """The run of each task, opened anew."""
    return Run(request.getfixturevalue(request.param).folder)


def export(run):
    if not run.folder.export.exists():
        run.export(("saved_model",))


def read_table(text):
    return list(csv.DictReader(io.StringIO(text)))


def image_of(run):
    return read_table(run.folder.predictions.read_text())[0]["path"]


def test_a_run_learns_and_tells_the_metrics_of_its_task(run):
    metrics = run.metrics["validation"]

    score = SCORES[run.recipe.task.kind]
    assert metrics["images"] == 8
    assert metrics[score] > 0.5
    assert run.metrics["best"][f"val_{score}"] == pytest.approx(metrics[score], abs=0.05)
    if score == "r2":
        assert run.metrics["best"]["val_r2"] == pytest.approx(metrics["r2"], abs=1e-5)
        assert metrics["r2"] > metrics["mean"]["r2"]
        assert set(metrics["per_column"]) == {"size", "dose"}
    else:
        assert {name: row["images"] for name, row in metrics["per_class"].items()}
        assert 0 < metrics["micro_f1"] <= 1
    assert metrics["loss"] == run.metrics["best"]["val_loss"]


def test_the_metrics_follow_from_what_a_run_has_written(run):
    saved = read_predictions(run.folder)["validation"]
    task, state = run.recipe.task, json.loads(run.folder.task_state.read_text())

    columns = saved.select(saved.images)
    sample = task.open("metrics").sample_predictions(columns, run.classes, state, task)

    measured = sample.measure(np.ones((1, sample.images)))
    expected = run.metrics["validation"]
    for name, values in measured.items():
        assert values[0] == pytest.approx(expected[name], abs=1e-6), name
    assert SCORES[task.kind] in measured
    (test,) = tl.compare([run, run]).tests
    assert (test.result["metric"], test.result["difference"]) == (SCORES[task.kind], 0.0)


def test_a_card_claims_the_metrics_of_its_task_and_columns_are_counted(run):
    text = tl.card(run)

    (result,) = read_front_matter(text)["model-index"][0]["results"]
    claimed = {metric["name"]: metric["value"] for metric in result["metrics"]}
    task, measured = run.recipe.task, run.metrics["validation"]
    score = SCORES[task.kind]
    assert claimed[f"{task.title_of(score)} (validation)"] == measured[score]
    assert f"Outputs: {', '.join(run.classes)}" in text and "| images |" in text
    assert ("pipeline_tag" in read_front_matter(text)) == (task.kind == "multilabel")


@pytest.mark.slow
def test_the_model_before_training_gives_the_units_of_the_table(of_numbers, tables):
    model = tl.build_model(make_recipe("regression", tables / "numbers.csv"))

    weights = [of.get_layer("head_units").get_weights() for of in (model, of_numbers.model)]
    np.testing.assert_array_equal(*weights)
    assert weights[0][1][0] > 1000  # the mean size


@pytest.mark.slow
def test_a_hypermodel_has_what_its_loss_takes_from_the_targets(of_numbers, tables):
    hypermodel = tl.hypermodel(make_recipe("regression", tables / "numbers.csv"))

    model = hypermodel.build(keras_tuner.HyperParameters())

    weights = [of.get_layer("head_units").get_weights() for of in (model, of_numbers.model)]
    np.testing.assert_array_equal(*weights)


def test_predictions_of_a_run_of_labels_can_be_compared_line_by_line(of_labels):
    rows = read_table(of_labels.folder.predictions.read_text())

    right = sum(row["labels"] == row["predicted"] for row in rows)
    thresholds = json.loads(of_labels.folder.task_state.read_text())["thresholds"]
    for row in rows:
        above = [name for name in CLASSES if float(row[f"probability_{name}"]) >= thresholds[name]]
        assert row["predicted"] == "|".join(above)
    columns = [f"probability_{name}" for name in CLASSES]
    assert list(rows[0]) == ["path", "split", "labels", "predicted", *columns]
    assert right > len(rows) / 2


@pytest.mark.slow
def test_predictions_of_a_run_of_numbers_are_in_the_units_of_the_table(of_numbers, tables):
    rows = read_table(of_numbers.folder.predictions.read_text())
    written = {row["path"]: row for row in read_table((tables / "numbers.csv").read_text())}

    for row in rows:
        original = written[f"images/{row['path'].rpartition('/')[2]}"]
        assert float(row["size"]) == float(original["size"])
        assert float(row["dose"]) == float(original["dose"])
    errors = [abs(float(row["size"]) - float(row["predicted_size"])) for row in rows]
    assert np.mean(errors) == pytest.approx(
        of_numbers.metrics["validation"]["per_column"]["size"]["mae"], rel=1e-4
    )
    assert np.mean(errors) < 60  # sizes are from 1040 to 1280


def test_a_kept_model_measures_as_the_run_did(run):
    again = run.evaluate()

    for name, value in run.metrics["validation"].items():
        if isinstance(value, float):
            assert again[name] == pytest.approx(value, abs=1e-4), name
    assert again["split"] == "validation"


@pytest.mark.slow
def test_a_table_is_measured_like_the_recipes(run, tables, tmp_path):
    kind = run.recipe.task.kind
    rows = read_table(run.folder.predictions.read_text())
    names = ("size", "dose") if kind == "regression" else ("labels",)
    table = write_table(
        tmp_path / "other.csv",
        [("path", *names), *((row["path"], *map(row.get, names)) for row in rows)],
    )

    metrics = run.evaluate(table)

    assert metrics["images"] == 8
    score = SCORES[kind]
    assert metrics[score] == pytest.approx(run.metrics["validation"][score], abs=1e-4)


@pytest.mark.slow
def test_columns_of_flags_are_measured_like_names(of_labels, tables):
    run = Run(of_labels.folder)

    by_name, by_flag = (run.evaluate(tables / f"{name}.csv") for name in ("labels", "flags"))

    assert by_name.pop("split") != by_flag.pop("split")
    assert by_name == by_flag and by_name["images"] == 32


def test_the_command_line_measures_and_holds_against_limits(run, tmp_path):
    printed = tltool("evaluate", run.path, "--fail-under", "loss=0", cwd=tmp_path, code=4).stdout

    titles = {
        "multilabel": ("mAP", "micro F1", "threshold", *CLASSES),
        "regression": ("MAE", "RMSE", "R2", "mean of training", "size", "dose"),
    }[run.recipe.task.kind]
    assert [title for title in titles if title not in printed] == []
    if "dose" in titles:  # of which four digits behind the point would leave nothing
        (dose,) = [line.split() for line in printed.splitlines() if line.startswith("dose")]
        mae = run.metrics["validation"]["per_column"]["dose"]["mae"]
        assert float(dose[1]) == pytest.approx(mae, rel=0.01)


def test_errors_have_upper_limits_and_scores_lower_ones():
    lower = find_task("regression").lower_is_better
    metrics = {"r2": 0.5, "mae": 2.0, "rmse": 3.0}

    check_thresholds(metrics, {"r2": 0.4, "mae": 2.5, "rmse": 3.0}, lower_is_better=lower)
    with pytest.raises(ThresholdError, match="at most 1"):
        check_thresholds(metrics, {"mae": 1.0}, lower_is_better=lower)
    with pytest.raises(ThresholdError, match=r"at least 0\.6"):
        check_thresholds(metrics, {"r2": 0.6}, lower_is_better=lower)


def test_files_are_predicted_as_the_split_was(run, tmp_path):
    def predict(*options):
        return tltool("predict", run.path, image_of(run), *options, cwd=tmp_path).stdout

    expected = read_table(run.folder.predictions.read_text())[0]

    (row,) = read_table(predict("--format", "csv"))
    record = json.loads(predict("--format", "jsonl"))
    table = predict()

    if run.recipe.task.kind == "regression":
        assert list(row) == ["path", "predicted_size", "predicted_dose", "error"]
        size, dose = float(row["predicted_size"]), float(row["predicted_dose"])
        assert size == pytest.approx(float(expected["predicted_size"]), rel=1e-5)
        assert record["values"] == {"size": size, "dose": dose}
        assert "size" in table
    else:
        assert row["labels"] == expected["predicted"]
        assert "|".join(record["labels"]) == expected["predicted"]
        assert list(record["probabilities"]) == list(CLASSES)
        assert ", ".join(record["labels"]) in table


def test_a_file_that_is_no_image_is_told_and_the_others_are_predicted(run, tmp_path):
    (tmp_path / "text.png").write_text("text")

    broken, good = run.predict([tmp_path / "text.png", image_of(run)])

    assert "by its first bytes" in broken.error and good.error is None
    assert len(run.tabulate([good]).rows) == 1


@pytest.mark.slow  # when the run was exported, the export was compared with Keras
def test_an_exported_model_answers_as_the_run_predicts(run):
    export(run)
    pixels = np.asarray(Image.open(image_of(run)))[np.newaxis]
    encoded = Path(image_of(run)).read_bytes()

    answers = ask(run.folder.export / "saved_model" / "1", [pixels], [encoded])

    record = run.predict(image_of(run))[0].as_record()
    served = answers.pixels[0]
    assert set(answers.encoded[0]) == set(served)
    if run.recipe.task.kind == "regression":
        assert set(served) == {"values"}
        assert answers.class_names == ("size", "dose")
        np.testing.assert_allclose(served["values"][0], list(record["values"].values()), rtol=1e-5)
    else:
        assert set(served) == {"probabilities", "predicted", "labels"}
        assert answers.class_names == CLASSES
        expected = list(record["probabilities"].values())
        np.testing.assert_allclose(served["probabilities"][0], expected, atol=1e-5)
        named = [name for name, flag in zip(CLASSES, served["predicted"][0], strict=True) if flag]
        assert record["labels"] == named
        assert str(served["labels"][0]) == "|".join(named)


@pytest.mark.slow
def test_an_export_was_compared_before_it_was_published(run):
    export(run)
    report = json.loads((run.folder.export / "parity.json").read_text())

    assert report["holds"] and report["labels_equal"] and report["class_names_equal"]
    assert report["pixels"]["largest_difference"] <= 1e-5
    assert len(report["images"]) == 8 + 9  # validation images and probes


@pytest.mark.slow
def test_an_interrupted_run_knows_its_units(tables, tmp_path):
    """The model is kept and can be measured, although the run never was."""
    phases = [
        {"name": "all", "epochs": 1, "learning_rate": 0.003, "unfreeze": 4},
        {"name": "wild", "epochs": 1, "learning_rate": 1e30, "optimizer": "sgd", "unfreeze": 4},
    ]
    recipe = make_recipe("regression", tables / "numbers.csv", phases=phases)

    with pytest.raises(NonFiniteError):
        tl.finetune(recipe, out=tmp_path / "run")

    metrics = tl.load_run(tmp_path / "run").evaluate()
    assert 0.3 < metrics["loss"] < 3
    stored = json.loads((tmp_path / "run" / "task.json").read_text())["columns"]["size"]
    assert metrics["mean"]["per_column"]["size"]["mae"] < 2 * stored["scale"]


@pytest.mark.slow
def test_a_field_of_the_task_is_searched(tables, tmp_path):
    search = {"algorithm": "grid", "space": {"task.loss": {"choices": ["mse", "mae", "huber"]}}}
    phases = [{"name": "all", "epochs": 3, "learning_rate": 0.003, "unfreeze": 4}]
    recipe = make_recipe("regression", tables / "numbers.csv", search=search, phases=phases)

    found = tl.search(recipe, out=tmp_path / "search")

    trials = read_table((found.folder.path / "trials.csv").read_text())
    assert [trial["task.loss"] for trial in trials] == ["mse", "mae", "huber"]
    assert len({trial["weights_sha256"] for trial in trials}) == 3
    assert all(trial["state"] == "completed" for trial in trials)


@pytest.mark.slow
def test_a_hypermodel_compiles_the_loss_of_its_task(tables):
    phases = [{"name": "all", "epochs": 4, "learning_rate": 0.003, "unfreeze": 4}]
    hypermodel = tl.hypermodel(make_recipe("multilabel", tables / "flags.csv", phases=phases))
    values = keras_tuner.HyperParameters()

    model = hypermodel.build(values)
    row = hypermodel.fit(values, model)

    scores = {"mean_average_precision", "val_mean_average_precision"}
    assert set(row) == {"learning_rate", "loss", "val_loss", "regularization_loss"} | scores
    losses = model.evaluate(np.zeros((4, 32, 32, 3)), np.zeros((4, 3)), verbose=0)
    assert np.isfinite(losses)


@pytest.mark.slow
def test_a_baseline_may_have_another_loss(tables, tmp_path):
    phases = [{"name": "all", "epochs": 1, "learning_rate": 0.003, "unfreeze": 4}]
    recipe = make_recipe(
        "regression", tables / "numbers.csv", phases=phases, baseline={"task.loss": "mae"}
    )

    metrics = tl.finetune(recipe, out=tmp_path / "run").metrics

    assert metrics["baseline"]["changes"] == {"task.loss": "mae"}
    assert metrics["baseline"]["validation"]["loss"] != metrics["validation"]["loss"]
    assert metrics["baseline"]["validation"]["mean"] == metrics["validation"]["mean"]


def test_a_report_of_each_task_shows_its_images(run):
    text = build_report_of(run)

    title, first = {
        "multilabel": ("Each label on the", "reliability"),
        "regression": ("predicted against true", "predicted-1"),
    }[run.recipe.task.kind]
    assert title in text and f'id="{first}-title"' in text
    assert text.count('<img src="data:image/jpeg;base64,') >= 4
    assert "Heat maps are left out" in text


def build_report_of(run):
    """Writes the report without heat maps, which take seconds."""
    page = write_report(run.folder.report, build_report(run, predicts=False))
    return page.read_text()
