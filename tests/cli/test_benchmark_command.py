"""`tltool benchmark`, and what `tltool export` says of formats that hold the model alone."""

import base64
import contextlib
import io
import json
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

from tests.command import tltool
from tl_toolkit.errors import ParityError
from tl_toolkit.export.benchmark import time_formats
from tl_toolkit.recipe.load import build_recipe, dump_recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run that was exported, and what the export printed."""
    from tests.conftest import draw_class_folders

    folder = tmp_path_factory.mktemp("benchmark")
    draw_class_folders(folder / "photos", classes=("ants", "bees"), count=4)
    recipe = {
        "version": 1, "name": "photos",
        "data": {"train": "photos", "validation": 0.5, "image_size": 32, "batch_size": 4},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}], "export": False, "report": False,
        "yardsticks": False,
    }  # fmt: skip
    (folder / "x.yaml").write_text(json.dumps(recipe))
    tltool("finetune", "x.yaml", cwd=folder)
    return folder, tltool("export", "latest", "--to", "weights,litert", cwd=folder).stderr


def test_an_export_says_which_of_its_formats_begins(place):
    begun = [line for line in place[1].splitlines() if line.startswith("exporting ")]

    assert begun == [
        "exporting weights, litert", "exporting weights, 1 of 2", "exporting litert, 2 of 2"
    ]  # fmt: skip


def test_an_export_says_what_its_proof_found(place):
    folder, printed = place
    proof = json.loads((folder / "runs/photos/001/export/parity.litert.json").read_text())

    assert "litert: largest difference" in printed and "100.0% of answers equal" in printed
    score = proof["metrics"]["exported"]["accuracy"]
    assert f"accuracy {score:.4f} (Keras {proof['metrics']['keras']['accuracy']:.4f})" in printed
    assert proof["images"] == 4  # the validation images of the run, and no noise
    assert proof["metrics"]["keras"]["images"] == 4


@pytest.mark.slow  # each row starts TensorFlow
def test_a_benchmark_times_what_was_exported(place):
    folder, _ = place
    options = ("--formats", "litert", "--batch", "1,3", "--threads", "1", "--calls", "2")

    shown = tltool("benchmark", "latest", *options, "--json", cwd=folder)

    found = json.loads(shown.stdout)
    assert [(row["format"], row["batch"]) for row in found["timings"]] == [
        ("keras predict", 1), ("keras predict", 3), ("litert", 1), ("litert", 3),
    ]  # fmt: skip
    for row in found["timings"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["p50_ms"])
    begun = [line for line in shown.stderr.splitlines() if line.startswith("timing ")]
    assert begun == ["timing keras predict", "timing litert"]
    export = folder / "runs/photos/001/export"
    assert json.loads((export / "benchmark.json").read_text()) == found
    assert found["machine"]["cores"] >= 1
    assert ElementTree.parse(export / "benchmark.svg").getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--formats", "onnx"), 3, "Try: tltool export photos/001 --to onnx"),
        (("--formats", "weights"), 3, "weights: this format cannot be run"),
        (("--formats", "onyx"), 2, "'onyx' is no format; did you mean 'onnx'?"),
        (("--batch", "1,0"), 2, "expected numbers from 1 on"),
        (("--threads", "two"), 2, "expected numbers from 1 on"),
    ],
)
def test_what_cannot_be_timed_is_refused_by_name(place, options, code, words):
    shown = tltool("benchmark", "latest", *options, cwd=place[0], code=code)

    assert words in " ".join(shown.stderr.split())


def test_a_dense_run_that_was_not_exported_has_nothing_to_time(tmp_path):
    data = {"train": str(tmp_path), "validation": 0.2, "image_size": 32, "classes": ["a", "b"]}
    recipe = build_recipe(
        {
            "version": 1, "name": "x", "task": "segmentation", "data": data,
            "model": {"base": "pixelnet", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
        }
    ).recipe  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    (tmp_path / "status.json").write_text("{}")
    (tmp_path / "model.keras").touch()

    shown = tltool("benchmark", tmp_path, cwd=tmp_path, code=3)

    assert "was exported to no format that can be run" in shown.stderr
    assert not (tmp_path / "export").exists()


@pytest.mark.slow  # the proof starts TensorFlow
def test_a_savedmodel_says_how_to_call_it(place):
    folder, _ = place
    shown = tltool("export", "latest", "--to", "saved_model", cwd=folder)
    signatures = json.loads((folder / "runs/photos/001/export/signature.json").read_text())

    assert "saved_model: largest difference" in shown.stderr
    assert signatures["classes"] == ["ants", "bees"]
    assert signatures["reads_webp"] is False
    serve = signatures["signatures"]["serving_default"]
    assert serve["inputs"] == {"image": {"dtype": "uint8", "shape": [-1, -1, -1, 3]}}
    assert serve["outputs"]["probabilities"] == {"dtype": "float32", "shape": [-1, 2]}
    photo = next((folder / "photos/ants").iterdir())
    (folder / "photo.jpg").write_bytes(photo.read_bytes())
    line = signatures["python"].replace("saved_model/1", "runs/photos/001/export/saved_model/1")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as text:
        exec(line, {})
    assert "probabilities" in text.getvalue()


@pytest.mark.parametrize("image", [b"not", b"\xff\xd8\xff" * 100])
def test_the_line_for_curl_sends_what_tensorflow_serving_takes(image, tmp_path):
    from tl_toolkit.export.saved_model import _CURL

    (tmp_path / "photo.jpg").write_bytes(image)
    sender, _, _ = _CURL.partition(" | curl")

    sent = subprocess.run(sender, shell=True, cwd=tmp_path, capture_output=True, check=True).stdout

    request = json.loads(sent)
    assert request["signature_name"] == "serve_bytes"
    (instance,) = request["instances"]
    assert base64.b64decode(instance["bytes"]["b64"]) == image


def test_a_benchmark_that_fails_speaks_of_no_publishing(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"no model")
    begun = []

    with pytest.raises(ParityError, match=r"(?s)cannot be run by litert.*No figure was written"):
        time_formats(
            {"litert": tmp_path / "model.tflite"}, (4, 4, 3),
            batches=[1], threads=[1], calls=1, began=begun.append, done=print,
        )  # fmt: skip
    assert begun == ["litert"]
