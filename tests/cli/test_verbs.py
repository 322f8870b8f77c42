"""The verbs as a person or a script meets them: what is printed where, and how fast."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.command import tltool, tltool_process
from tests.conftest import draw_class_folders
from tl_toolkit.cli.main import run
from tl_toolkit.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


def prepare(place):
    """A working directory with photos and a recipe of them."""
    draw_class_folders(place / "photos")
    recipe = {
        "version": 1,
        "name": "photos",
        "data": {"train": "photos", "validation": 0.25, "image_size": 32, "batch_size": 8},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 2}],
        "export": False,
        "report": False,
        "yardsticks": False,
    }
    (place / "photos.yaml").write_text(json.dumps(recipe))
    return place


FINETUNE = ("finetune", "photos.yaml", "--json", "--threads", "1")


def assert_run(place, stdout, stderr):
    metrics = json.loads(stdout)
    assert metrics["run"] == str(place / "runs" / "photos" / "001")
    assert metrics["best"]["phase"] == "head"
    assert "phase  epochs  trains" in stderr
    assert stderr.count("head 1/2") == 1
    assert "tltool predict photos/001" in stderr
    log = (place / "runs" / "photos" / "001" / "command.log").read_text()
    assert log.startswith("$ tltool finetune photos.yaml --json --threads 1")
    assert "head 1/2" in log


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with a finished run, and what the command said of it."""
    place = prepare(tmp_path_factory.mktemp("place"))
    return place, tltool(*FINETUNE, cwd=place)


@pytest.fixture(scope="module")
def place(trained):
    return trained[0]


def test_finetune_prints_json_on_stdout_and_the_rest_on_stderr_and_in_the_log(trained):
    place, done = trained

    assert_run(place, done.stdout, done.stderr)


@pytest.mark.slow  # in a process alone does TensorFlow start under the command's eyes
def test_stderr_of_a_run_holds_nothing_of_tensorflow(tmp_path):
    done = tltool_process(*FINETUNE, cwd=prepare(tmp_path))

    assert_run(tmp_path, done.stdout, done.stderr)
    assert not any(word in done.stderr for word in ("oneDNN", "cuda", "WARNING", "absl", "TF_"))


def test_evaluate_prints_a_table_and_json(place):
    table = tltool("evaluate", "latest", cwd=place).stdout
    metrics = json.loads(tltool("evaluate", "photos/001", "--json", cwd=place).stdout)

    assert "accuracy" in table and "wasps" in table
    assert metrics["images"] == 6


def test_evaluate_fails_under_a_threshold_with_code_4(place):
    done = tltool("evaluate", "latest", "--fail-under", "loss=0", cwd=place, code=4)
    percent = tltool("evaluate", "latest", "--fail-under", "accuracy=80", cwd=place, code=2)

    assert "Asked for at most 0" in done.stderr
    assert "Try: --fail-under accuracy=0.8" in percent.stderr and not percent.stdout


def test_an_interrupted_run_is_measured_too(place):
    shutil.copytree(place / "runs/photos/001", place / "interrupted")
    (place / "interrupted" / "metrics.json").unlink()

    table = tltool("evaluate", "interrupted", cwd=place).stdout
    failed = tltool("evaluate", "interrupted", "--fail-under", "acuracy=1", cwd=place, code=2)

    assert "accuracy" in table
    assert "did you mean 'accuracy'" in failed.stderr


@pytest.mark.parametrize("state", ["interrupted", "failed", "done"])
def test_a_run_that_ended_early_is_used_with_a_warning_that_names_what_resumes_it(place, state):
    shutil.copytree(place / "runs/photos/001", place / state, dirs_exist_ok=True)
    folder = RunFolder(place / state)
    folder.write_status(state)
    commands = (["evaluate", state], ["predict", state, "photos/ants/0.jpg"])

    warnings = [
        [line for line in tltool(*words, cwd=place).stderr.splitlines() if "resume" in line]
        for words in commands
    ]

    command = f"tltool finetune {folder.recipe} --resume --out {folder.path}"
    for lines in warnings:
        assert len(lines) == (state != "done")
        assert all(state in line and line.endswith(command) for line in lines)


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_predict_answers_in_three_forms_and_names_what_it_refuses(place, form):
    (place / "broken.jpg").write_text("no image")

    done = tltool(
        "predict", "latest", "photos/ants", "broken.jpg", "--format", form, cwd=place, code=3
    )

    assert "broken.jpg: " in done.stderr and "1 of 9 files" in done.stderr
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert len(rows) == 9
        assert rows[-1]["error"] and not rows[-1]["label"]
        names = [f"probability_{name}" for name in ("ants", "bees", "wasps")]
        assert sum(float(rows[0][name]) for name in names) == pytest.approx(1)
    elif form == "jsonl":
        rows = list(map(json.loads, done.stdout.splitlines()))
        assert rows[0]["label"] in ("ants", "bees", "wasps") and rows[-1]["label"] is None
    else:
        assert done.stdout.count("photos/ants/") == 8


def test_predict_shows_the_best_classes_and_writes_a_file(place):
    table = tltool("predict", "latest", "photos/ants/0.jpg", "--top", "2", cwd=place).stdout
    done = tltool("predict", "photos", "photos/ants", "--top", "9", "-o", "best.csv", cwd=place)
    lines = tltool(
        "predict",
        "photos",
        "photos/ants/0.jpg",
        "--top",
        "1",
        "--format",
        "jsonl",
        "-o",
        "-",
        cwd=place,
    )

    rows = list(csv.DictReader((place / "best.csv").read_text().splitlines()))
    assert "class 1" in table and "class 2" in table and "class 3" not in table
    assert (len(rows), done.stdout) == (8, "")
    assert list(rows[0])[-3:] == ["label_3", "probability_3", "error"]
    assert float(rows[0]["probability_1"]) >= float(rows[0]["probability_2"])
    record = json.loads(lines.stdout)
    assert record["top"] == [{"label": record["label"], "probability": record["probability"]}]


def test_predict_refuses_a_place_that_cannot_be_written_before_it_predicts(place):
    done = tltool("predict", "latest", "photos/ants", "-o", "no/x.csv", cwd=place, code=7)

    assert "no does not exist" in done.stderr


@pytest.mark.parametrize("sign", ["\n", "\0"])
def test_predict_reads_a_list_of_files_from_stdin(place, sign, monkeypatch):
    names = sign.join(["photos/ants/0.jpg", "photos/bees/1.jpg", "gone.jpg", ""])
    arguments = ["predict", "latest", "-", "--format", "csv"]
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["tltool", *arguments])
    with CliRunner().isolation(input=names.encode()) as (out, err, _):
        code = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()

    rows = list(csv.DictReader(out.getvalue().decode().splitlines()))
    told = err.getvalue().decode()
    assert code == 3 and "'gone.jpg' does not exist" in told and "gone.jpg: 'gone.jpg'" not in told
    assert [row["path"] for row in rows] == names.split(sign)[:3]
    assert rows[1]["label"] and "does not exist" in rows[2]["error"]


def run_in_a_process(place, commands):
    """Runs commands in one process; returns it, and for each its code and what it imported."""
    code = (
        "import sys; from tl_toolkit.cli.main import run\n"
        f"for words in {commands!r}:\n"
        "    code = run(words)\n"
        "    found = [name for name in ('tensorflow', 'keras') if name in sys.modules]\n"
        "    print('ended', code, *found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True
    )
    return done, [line for line in done.stdout.splitlines() if line.startswith("ended ")]


def test_a_classification_draws_nothing_and_says_so_before_tensorflow_starts(place):
    options = [["--out", "here"], ["--native"]]
    commands = [["predict", "latest", "photos/ants", *option] for option in options]

    done, ends = run_in_a_process(place, commands)

    for option in options:
        assert f"{option[0]}  goes with tasks that have an output for each pixel" in done.stderr
    assert ends == ["ended 2"] * 2


@pytest.mark.slow
def test_export_of_a_finished_run_is_checked_and_published(place):
    done = tltool("export", "latest", "--json", cwd=place)

    paths = json.loads(done.stdout)
    assert "saved_model: largest difference " in done.stderr
    assert (Path(paths["saved_model"]) / "saved_model.pb").is_file()
    assert json.loads((place / "runs/photos/001/export/parity.json").read_text())["holds"]


def test_models_are_listed_and_shown(place):
    listed = tltool("models", "list", cwd=place).stdout
    shown = tltool("models", "show", "mobilenet", "alpha=0.25", "--unfreeze", "1", cwd=place).stdout
    record = json.loads(tltool("models", "show", "lenet5", "--json", cwd=place).stdout)

    assert "mobilenet_v2" in listed
    assert "218,544 parameters, 101,760 of them trainable" in shown
    assert sum(row["parameters"] for row in record["units"]) == record["parameters"] == 60856


def test_show_refuses_what_the_architecture_does_not_have(place):
    small = tltool("models", "show", "mobilenet", "--input-size", "16", cwd=place, code=2)
    unit = tltool("models", "show", "mobilenet", "--unfreeze", "conv_dw_99", cwd=place, code=2)

    assert "32" in small.stderr
    assert "conv_dw_99" in unit.stderr


def test_env_and_schema_are_json(place):
    assert json.loads(tltool("env", "--json", cwd=place).stdout)["device"] in ("CPU", "GPU")
    assert json.loads(tltool("schema", cwd=place).stdout)["title"] == "Recipe"


def test_what_must_answer_at_once_imports_no_tensorflow(place):
    commands = [
        ["--help"],
        ["runs", "list"],
        ["runs", "show", "photos"],
        ["data", "check", "photos"],
        ["validate", "photos.yaml"],
        ["validate", "photos.yaml", "phases.head.unfreeze={from: c9}", "model.weights=no.h5"],
    ]

    _, ends = run_in_a_process(place, commands)

    assert ends == [*["ended 0"] * 5, "ended 2"]
