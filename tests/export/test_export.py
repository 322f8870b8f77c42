"""The exported model returns what the Keras model does, or is not published."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tests.export.unequal import Noise, assert_the_old_one_stays, compare_exported
from tests.models import build_transfer
from tl_toolkit.errors import OutputError, ParityError
from tl_toolkit.export import publish as publish_module
from tl_toolkit.export.formats import FinishedModel, Format
from tl_toolkit.export.parity import check_report
from tl_toolkit.export.publish import publish
from tl_toolkit.export.saved_model import write_saved_model
from tl_toolkit.images.geometry import Padding
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.parity import render_probes
from tl_toolkit.tasks.segmentation.task import Segmentation
from tl_toolkit.transfer.heads import is_head

CLASSES = ("bee", "fourmi é")


def build_model(*, activation="softmax", noisy=False):
    keras.utils.set_random_seed(3)
    image = keras.Input((24, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(8, 5, strides=4, activation="relu")(x)
    x = keras.layers.Flatten()(x)
    x = Noise()(x) if noisy else x
    units = 1 if activation == "sigmoid" else 2
    outputs = keras.layers.Dense(units, activation=activation, name="predictions")(x)
    return keras.Model(image, outputs)


def draw_photos():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 10, 16, 3), dtype=np.uint8)
    files = {}
    for index, array in enumerate(pixels):
        buffer = io.BytesIO()
        Image.fromarray(array).resize((70, 50)).save(buffer, format="JPEG")
        files[f"{index}.jpg"] = buffer.getvalue()
    return files


def finish(model, *, resize="stretch", classes=CLASSES):
    activation = "sigmoid" if model.output.shape[-1] == 1 else "softmax"
    return FinishedModel(model, Classification(classes, activation=activation), resize)


def publish_model(model, path, *, resize="stretch", formats=("saved_model",)):
    finished = finish(model, resize=resize)
    return publish(finished, RunFolder(path), files=draw_photos(), formats=formats)


@pytest.fixture(scope="module")
def traced():
    """The outputs, symbolic or not, that were served as `published` was made."""
    return []


@pytest.fixture(scope="module")
def published(tmp_path_factory, traced):
    """The folder of a run, with an export that cuts its images and has one output."""
    folder, serve = tmp_path_factory.mktemp("published"), Classification.serve
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Classification,
            "serve",
            lambda self, outputs: traced.append(outputs) or serve(self, outputs),
        )
        paths = publish_model(build_model(activation="sigmoid"), folder, resize="crop")
    return folder, paths


def test_a_saved_model_is_traced_once(published, traced):
    symbolic = [outputs for outputs in traced if tf.is_symbolic_tensor(outputs)]

    assert len(symbolic) == 1  # the comparison after it asks with values


def test_a_saved_model_is_a_layer_of_keras(published):
    _, paths = published
    layer = keras.layers.TFSMLayer(paths["saved_model"], call_endpoint="serving_default")
    model = build_model(activation="sigmoid")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)

    outputs = layer(pixels)

    assert len(layer.trainable_weights) == len(model.trainable_weights)
    expected = model(pixels.astype(np.float32))[:, 0]
    np.testing.assert_allclose(outputs["probabilities"][:, 1], expected, atol=1e-5)


def test_a_layer_of_keras_takes_bytes_of_encoded_images(published):
    _, paths = published
    pixels = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    layers = {
        name: keras.layers.TFSMLayer(paths["saved_model"], call_endpoint=name)
        for name in ("serving_default", "serve_bytes")
    }

    outputs = layers["serve_bytes"](tf.constant([tf.io.encode_png(pixels).numpy()]))

    expected = layers["serving_default"](pixels[np.newaxis])
    np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], atol=1e-6)


class Table(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        pairs = tf.lookup.KeyValueTensorInitializer(tf.range(256), tf.range(256)[::-1])
        self.table = tf.lookup.StaticHashTable(pairs, 0)

    def call(self, x):
        return tf.cast(self.table.lookup(tf.cast(x, tf.int32)), tf.float32)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, "float32")


class Scale(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factors = [tf.Variable(0.5, trainable=False)]

    def call(self, x):
        return x * self.factors[0]


def test_state_of_tensorflow_in_layers_of_the_users_own_is_saved(tmp_path):
    """Also in a nested model, whose layers are not the model's own."""
    image, pixels = keras.Input((24, 32, 3), name="image"), keras.Input((24, 32, 3))
    x = keras.Model(pixels, Scale()(Table()(pixels)))(image)
    model = keras.Model(image, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(x)))
    images = np.random.default_rng(1).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)

    write_saved_model(finish(model), tmp_path / "model")

    served = tf.saved_model.load(tmp_path / "model").signatures["serving_default"]
    actual = served(image=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(actual, model(images.astype(np.float32)), atol=1e-5)


def assert_it_is_published(folder, paths):
    report = json.loads((folder / "export" / "parity.json").read_text())
    assert report["holds"]
    assert len(report["images"]) == 3 + len(render_probes())
    assert paths["saved_model"] == folder / "export" / "saved_model" / "1"
    assert (paths["saved_model"] / "saved_model.pb").is_file()


def test_an_export_that_is_equal_is_published(published):
    assert_it_is_published(*published)


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["stretch", Padding()])
def test_an_export_that_resizes_otherwise_is_published_too(tmp_path, resize):
    assert_it_is_published(tmp_path, publish_model(build_model(), tmp_path, resize=resize))


def test_both_signatures_share_one_graph_of_the_model(published):
    path = published[1]["saved_model"]

    text = (path / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(text).meta_graphs
    functions = graph.graph_def.library.function
    operations = [node.op for function in functions for node in function.node_def]
    assert operations.count("Conv2D") == 1
    assert len(tf.saved_model.load(path).trainable_variables) == 4


@pytest.mark.slow
def test_an_export_that_differs_is_not_published_and_keeps_the_old_one(tmp_path):
    assert_the_old_one_stays(lambda: publish_model(build_model(noisy=True), tmp_path), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("task", [Classification(CLASSES), Segmentation(CLASSES)])
def test_exported_weights_load_through_keras_alone_under_their_own_name(tmp_path, task):
    transfer = build_transfer("mobilenet", arguments={"alpha": 0.25}, task=task)
    finished = FinishedModel(transfer.model, task, "stretch")
    twin = keras.applications.MobileNet((32, 32, 3), alpha=0.25, include_top=False, weights=None)

    paths = publish(finished, RunFolder(tmp_path), files={}, formats=["weights"])
    twin.load_weights(paths["weights"])

    base = [layer for layer in transfer.model.layers if layer.weights and not is_head(layer)]
    assert {layer.name for layer in base} == {layer.name for layer in twin.layers if layer.weights}
    for layer in base:
        for ours, theirs in zip(layer.weights, twin.get_layer(layer.name).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


class Equal:
    """A task to which every export is equal: what is published when needs no TensorFlow."""

    def compare_served(self, model, files, resize, *, ask, limits):
        return {"holds": True, "model": model}


@pytest.fixture
def publish_text(tmp_path, monkeypatch):
    """Publishes a text, as if it were a model that has a proof."""
    form = Format(
        lambda finished, path: path.write_text(finished.model),
        asking=lambda path: contextlib.nullcontext(lambda batches, encoded: None),
    )
    monkeypatch.setattr(publish_module, "find_format", lambda name: form)

    def publish_text(text):
        finished = FinishedModel(text, Equal(), "stretch")
        publish(finished, RunFolder(tmp_path), files={}, formats=["saved_model"])

    return publish_text


def test_an_export_that_cannot_be_written_is_an_output_error(tmp_path, publish_text, monkeypatch):
    def refuse(path, text):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OutputError, match=r"export/saved_model/1  cannot be written: Permission"):
        publish_text("new")
    assert list((tmp_path / "export").iterdir()) == []

    (tmp_path / "export").rmdir()
    (tmp_path / "export").touch()
    with pytest.raises(OutputError, match="export  cannot be written: File exists"):
        publish_text("new")


@pytest.mark.parametrize("step", ["before", "after"])
def test_a_proof_never_lies_beside_another_model(tmp_path, publish_text, monkeypatch, step):
    folder, replace = RunFolder(tmp_path), os.replace
    publish_text("old")
    assert json.loads(folder.parity.read_text())["model"] == "old"

    def interrupt(source, target):
        if target == folder.export / "saved_model" / "1":
            if step == "after":
                replace(source, target)
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupt)  # as a kill right before or after the swap
    with pytest.raises(KeyboardInterrupt):
        publish_text("new")

    model = (folder.export / "saved_model" / "1").read_text()
    assert model == {"before": "old", "after": "new"}[step]
    assert not folder.parity.exists()


@pytest.mark.slow
def test_another_order_of_classes_is_noticed(tmp_path):
    model = build_model()
    write_saved_model(finish(model), tmp_path / "model")

    reordered = finish(model, classes=CLASSES[::-1])
    report = compare_exported(reordered, tmp_path / "model", draw_photos())

    assert not report["class_names_equal"]
    with pytest.raises(ParityError):
        check_report(report, where="parity.json")


@pytest.mark.slow
def test_another_resizing_is_noticed_from_bytes(tmp_path):
    model = build_model()
    write_saved_model(finish(model, resize="crop"), tmp_path / "model")

    report = compare_exported(finish(model), tmp_path / "model", draw_photos())

    assert report["bytes"]["largest_difference"] > report["bytes"]["limit"]
    assert report["pixels"]["largest_difference"] == 0.0


@pytest.mark.slow  # the comparison before publishing runs in plain TensorFlow too
def test_plain_tensorflow_serves_pixels_of_any_size_and_bytes(tmp_path):
    model = build_model()
    write_saved_model(finish(model), tmp_path / "model")
    (tmp_path / "photo.jpg").write_bytes(draw_photos()["0.jpg"])
    code = """
import sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
data = open(sys.argv[2], "rb").read()
pixels = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")[None]
by_pixels = model.signatures["serving_default"](image=pixels)
by_bytes = model.signatures["serve_bytes"](bytes=tf.constant([data, data]))
assert sorted(by_pixels) == ["index", "label", "probabilities"], sorted(by_pixels)
assert by_pixels["probabilities"].shape == (1, 2)
assert by_bytes["probabilities"].shape == (2, 2)
assert abs(by_pixels["probabilities"] - by_bytes["probabilities"]).numpy().max() < 1e-6
names = [name.decode() for name in model.signatures["class_names"]()["class_names"].numpy()]
assert by_bytes["label"][1].numpy().decode() == names[int(by_bytes["index"][1])]
assert "tl_toolkit" not in sys.modules
print(names)
"""

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model"), str(tmp_path / "photo.jpg")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.strip() == str(list(CLASSES)), done.stderr[-2000:]


def test_probes_are_what_they_say():
    opened = {name: Image.open(io.BytesIO(data)) for name, data in render_probes().items()}

    assert opened["probe: grey"].mode == "L"
    assert opened["probe: CMYK"].mode == "CMYK"
    turned = [opened[f"probe: EXIF orientation {n}"].getexif()[0x0112] for n in range(2, 9)]
    assert turned == list(range(2, 9))
