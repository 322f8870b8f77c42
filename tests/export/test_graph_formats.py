"""Formats that hold the model alone: written by Keras, and run in runtimes of their own."""

import io
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.export.test_export import CLASSES, build_model, finish
from tests.models import build_transfer
from tl_toolkit.errors import ParityError
from tl_toolkit.export import graph_process
from tl_toolkit.export.formats import FinishedModel, Format, find_format
from tl_toolkit.export.graphs import run_graph
from tl_toolkit.export.litert import write_litert
from tl_toolkit.export.parity import check_report
from tl_toolkit.export.publish import publish
from tl_toolkit.images.decoder import decode_without_webp, explain
from tl_toolkit.images.geometry import Padding
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.base import Task
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.edges.task import Edges
from tl_toolkit.tasks.multilabel.task import Multilabel
from tl_toolkit.tasks.parity import Limits
from tl_toolkit.tasks.segmentation.task import Segmentation

GRAPHS = ("litert", "litert-int8", "onnx", "openvino")


def export(folder, formats):
    return publish(finish(build_model()), RunFolder(folder), files={}, formats=formats)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("run"), ["litert"])


@pytest.fixture(scope="module")
def all_exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("all"), GRAPHS)


def read_proof(exported, name):
    return json.loads((exported["litert"].parent / f"parity.{name}.json").read_text())


def assert_it_is_proved(exported, name):
    report = read_proof(exported, name)

    assert exported[name].exists()
    assert report["holds"] and report["images"] == 16
    assert report["agreement"]["share"] >= (find_format(name).agreement or 1.0)
    assert report["bytes"] > 1000
    assert 0 < report["latency"]["p50_ms"] <= report["latency"]["p95_ms"]
    runtime = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}.get(name, "LiteRT")
    assert report["runtime"].startswith(runtime)


def test_litert_is_proved_in_a_runtime_of_its_own(exported):
    assert_it_is_proved(exported, "litert")


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_each_format_is_proved_in_a_runtime_of_its_own(all_exported, name):
    assert_it_is_proved(all_exported, name)


@pytest.mark.slow
def test_whole_numbers_differ_and_are_smaller(all_exported):
    exact, whole = (read_proof(all_exported, name) for name in ("litert", "litert-int8"))

    assert exact["outputs"]["largest_difference"] < 1e-5 < whole["outputs"]["largest_difference"]
    assert whole["bytes"] < exact["bytes"]
    assert whole["outputs"]["limit"] is None


def test_the_process_cannot_import_the_package(tmp_path):
    """A runtime that asks for the package, in place of ONNX Runtime, is told that there is none."""
    (tmp_path / "onnxruntime.py").write_text("import tl_toolkit\n")
    np.savez(tmp_path / "x.npz", images=np.zeros((1, 4, 4, 3), np.float32))
    settings = json.dumps({"path": [str(tmp_path), *sys.path]})
    words = ["onnx", "x.onnx", tmp_path / "x.npz", tmp_path / "out.npz", settings]

    child = subprocess.run(
        [sys.executable, "-I", graph_process.__file__, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert child.returncode == 1
    assert "import of tl_toolkit halted" in child.stderr


def test_a_saved_model_is_timed_whose_outputs_are_text_too(tmp_path, monkeypatch):
    """Text would be an array of objects, which the outputs' file does not give back."""
    spec = tf.TensorSpec((None, 4, 4, 3), tf.uint8, name="image")
    signature = tf.function(
        lambda image: {"label": tf.constant(["a"]), "mean": tf.reduce_mean(image)},
        input_signature=[spec],
    )
    tf.saved_model.save(
        tf.Module(), str(tmp_path / "model"), signatures={"serving_default": signature}
    )
    monkeypatch.setattr(graph_process, "set_threads", lambda count: None)

    call, _ = graph_process.open_saved_model(str(tmp_path / "model"), 1)

    assert list(call(np.ones((1, 4, 4, 3), np.float32))) == ["mean"]


def test_a_model_that_its_runtime_refuses_is_told(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")

    with pytest.raises(ParityError, match="cannot be run by onnx") as raised:
        run_graph("onnx", tmp_path / "model.onnx", np.zeros((1, 4, 4, 3), np.float32))

    assert "published" not in str(raised.value)  # a benchmark says it too


@pytest.mark.slow
def test_openvino_does_not_call_its_maker(all_exported, tmp_path):
    """The package that does writes a client's number below HOME first."""
    np.savez(tmp_path / "x.npz", images=np.zeros((1, 24, 32, 3), np.float32))
    words = ["openvino", all_exported["openvino"], tmp_path / "x.npz", tmp_path / "out.npz"]

    subprocess.run(
        [sys.executable, "-I", graph_process.__file__, *words], stdin=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(tmp_path), "CI": ""}, check=True,
    )  # fmt: skip

    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "x.npz"]


def test_a_format_that_differs_is_not_published_and_keeps_the_old_one(exported, monkeypatch):
    other = build_model()
    other.get_layer("predictions").kernel.assign_add(
        keras.random.normal(other.get_layer("predictions").kernel.shape, seed=0)
    )

    def write_another(finished, path):
        write_litert(finish(other), path)

    wrong = Format(write_another, runtime="litert", limits=find_format("litert").limits)
    monkeypatch.setattr("tl_toolkit.export.publish.find_format", lambda name: wrong)
    old = exported["litert"].read_bytes()

    with pytest.raises(
        ParityError, match=r"differs from the Keras model by up to \S+, .* of its answers are equal"
    ):
        publish(
            finish(build_model()),
            RunFolder(exported["litert"].parents[1]),
            files={},
            formats=["litert"],
        )

    assert exported["litert"].read_bytes() == old
    failed = exported["litert"].parent / "parity.litert.failed.json"
    assert not json.loads(failed.read_text())["holds"]


def assert_the_script_predicts(exported, tmp_path, model):
    photo = tmp_path / "photo.png"
    ramp = np.linspace(0, 255, 48 * 64).reshape(48, 64, 1).repeat(3, axis=-1).astype(np.uint8)
    Image.fromarray(ramp).save(photo)
    folder = exported["litert"].parent

    shown = subprocess.run(
        [sys.executable, "-I", folder / "predict.py", folder / model, photo],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    pixels = np.asarray(Image.open(photo).resize((32, 24), Image.BILINEAR), np.float32)[None]
    answer = json.loads(shown)
    assert answer["path"] == str(photo)
    np.testing.assert_allclose(answer["output"], build_model()(pixels)[0], atol=1e-4)


def test_the_script_beside_it_gives_what_the_model_gives(exported, tmp_path):
    assert_the_script_predicts(exported, tmp_path, "model.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["model.onnx", "openvino"])
def test_it_does_so_for_the_other_formats(all_exported, tmp_path, model):
    assert_the_script_predicts(all_exported, tmp_path, model)


@pytest.mark.parametrize(
    ("resize", "expected"),
    [("crop", {"resize": "crop"}), (Padding((9, 8, 7)), {"resize": "pad", "pad_color": [9, 8, 7]})],
)
def test_the_script_resizes_as_the_recipe_says(tmp_path, resize, expected):
    from tl_toolkit.export import reference
    from tl_toolkit.export.graphs import write_companions
    from tl_toolkit.images.pipeline import resize_pixels

    write_companions(finish(build_model(), resize=resize), tmp_path)
    settings = json.loads((tmp_path / "preprocess.json").read_text())
    random = np.random.default_rng(0)
    photo = np.asarray(
        Image.fromarray(random.integers(0, 256, (9, 14, 3), np.uint8)).resize((90, 61))
    )
    Image.fromarray(photo).save(tmp_path / "x.png")

    pixels = reference.read(tmp_path / "x.png", settings)

    assert expected.items() <= settings.items()
    assert np.abs(pixels - resize_pixels(photo, (24, 32), resize).astype(float)).max() <= 1


def test_a_savedmodel_for_older_tensorflow_has_no_operation_for_webp():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP")

    def list_operations(decode):
        graph = decode.get_concrete_function().graph
        return {node.op for node in graph.as_graph_def().node} | {
            node.op for part in graph.as_graph_def().library.function for node in part.node_def
        }

    from tl_toolkit.images.decoder import decode_image

    assert "DecodeWebP" in list_operations(decode_image)
    assert "DecodeWebP" not in list_operations(decode_without_webp)
    with pytest.raises(Exception, match="exported without WebP") as raised:
        decode_without_webp(buffer.getvalue())
    assert explain(raised.value).startswith("a WebP image; this model is exported without WebP")


def test_answers_are_what_two_models_can_agree_on():
    outputs = np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)

    assert Classification(CLASSES).find_answers(outputs).tolist() == [1, 0]
    assert Multilabel(CLASSES).find_answers(outputs).tolist() == [[False, True], [True, False]]
    assert Segmentation(CLASSES).find_answers(outputs).tolist() == [1, 0]


def test_a_dense_model_gives_the_outputs_of_all_its_pixels():
    task = Segmentation(CLASSES)
    model = build_transfer("mobilenet", arguments={"alpha": 0.25}, task=task).model
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    places = np.array([[[0, 0], [3, 17], [31, 31]]] * 2, np.float32)

    graph = task.build_graph(model)
    outputs = np.asarray(graph(images))

    assert outputs.shape == (2, 32, 32, 2)
    expected = np.asarray(model([images, places]))
    rows, columns = places[0].astype(int).T
    np.testing.assert_allclose(outputs[:, rows, columns], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.turns
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("lenet5", Classification(CLASSES)),
        ("mobilenet", Multilabel(CLASSES)),
        ("resnet50", Classification(CLASSES)),
        ("densenet121", Classification(CLASSES)),
        ("pixelnet", Segmentation(CLASSES)),
    ],
)
def test_each_architecture_goes_to_each_format(tmp_path, name, task):
    model = build_transfer(name, task=task).model
    finished = FinishedModel(model, task, "stretch")

    publish(finished, RunFolder(tmp_path), files={}, formats=GRAPHS)

    for form in GRAPHS:
        assert json.loads((tmp_path / f"export/parity.{form}.json").read_text())["holds"]


def test_limits_of_exact_formats_are_small():
    for name in ("keras", "litert", "onnx", "openvino"):
        assert find_format(name).limits.pixels <= 1e-4
    assert Limits().pixels == 1e-5


def test_whole_numbers_of_a_task_that_measures_have_a_limit_of_the_mean():
    assert Edges.find_answers is Task.find_answers
    form = find_format("litert-int8")

    assert 0 < form.mean <= 0.1
    report = {
        "holds": False,
        "outputs": {
            "largest_difference": 1,
            "limit": None,
            "mean_difference": 0.3,
            "mean_limit": 0.1,
        },
        "further_outputs": {},
        "agreement": {"share": None, "limit": 0.8},
    }  # fmt: skip
    with pytest.raises(ParityError, match="0.3 in the mean"):
        check_report(report, where="x")
