"""The exported model predicts each pixel as the Keras model does, or is not published."""

import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.export.unequal import Noise, ask, assert_the_old_one_stays, compare_exported
from tests.models import build_transfer, layers_of
from tl_toolkit.architectures.sampling import PixelSample
from tl_toolkit.errors import ParityError
from tl_toolkit.export.formats import FinishedModel
from tl_toolkit.export.parity import check_report
from tl_toolkit.export.publish import publish
from tl_toolkit.export.saved_model import write_saved_model
from tl_toolkit.images.decoder import decode_image
from tl_toolkit.images.geometry import Padding
from tl_toolkit.images.pipeline import resize_pixels
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.dense import parity as dense_parity
from tl_toolkit.tasks.dense.predictor import DensePredictor
from tl_toolkit.tasks.dense.resizing import place_pixels
from tl_toolkit.tasks.dense.serving import place_pixels_in_graph
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.dense.task import DenseTask
from tl_toolkit.tasks.parity import read_by_pillow, render_probes
from tl_toolkit.tasks.segmentation.task import Segmentation
from tl_toolkit.transfer.weights import load_weights

CLASSES = ("sky", "sea", "grève é")
TASK = Segmentation(CLASSES, head=layers_of({"hidden": [{"units": 16}]}))
SIZE = (64, 80)  # not whole cells of the coarsest map: padded to 64 x 96
SHAPES = [(2, 64, 80), (2, 37, 50), (1, 131, 90), (1, 1, 7)]
CLEAR = 1e-4


class FloatsOnly(DenseTask):
    """A task without classes."""

    def __init__(self):
        super().__init__((), PixelSettings(), reader=None)


class Edges(FloatsOnly):
    """A task with one output, and floats only."""

    units = 1

    def postprocess(self, outputs):
        return {"probability": outputs[..., 0]}


class Normals(FloatsOnly):
    """A task with a vector for each pixel."""

    units = 3

    def postprocess(self, outputs):
        return {"normal": outputs * 2 - 1}


@pytest.fixture(scope="module")
def mobilenet():
    """A MobileNet of random weights that tells its three classes clearly apart."""
    transfer = build_transfer("mobilenet", task=TASK, size=SIZE, arguments={"alpha": 0.25})
    return sharpen(transfer.model)


def build_model(*, units=3, noisy=False):
    """Draws two maps, strides 2 and 8, and a linear predictor."""
    keras.utils.set_random_seed(3)
    image = keras.Input((24, 32, 3), name="image")
    pixels = keras.Input((None, 2), name="pixels")
    x = keras.layers.Rescaling(1 / 255)(image)
    fine = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    fine = Noise()(fine) if noisy else fine
    coarse = keras.layers.Conv2D(8, 5, strides=4, padding="same", activation="relu")(fine)
    columns = [PixelSample(2)(fine, pixels), PixelSample(8)(coarse, pixels)]
    outputs = keras.layers.Dense(
        units, activation="sigmoid" if units == 1 else "softmax", name="predictions"
    )(keras.layers.Concatenate()(columns))
    return sharpen(keras.Model([image, pixels], outputs))


def sharpen(model):
    """Makes the outputs spread: those of random weights are nearly alike everywhere."""
    layer = model.get_layer("predictions")
    image = np.random.default_rng(1).integers(0, 256, (1, *model.inputs[0].shape[1:3], 3))
    places = np.random.default_rng(2).uniform(0, 24, (1, 500, 2)).astype(np.float32)
    hidden = keras.Model(model.inputs, layer.input)([image.astype(np.float32), places])[0].numpy()
    kernel = layer.kernel.numpy()
    kernel *= 3 / (hidden @ kernel).std()
    layer.kernel.assign(kernel)
    layer.bias.assign(-(hidden @ kernel).mean(axis=0))
    return model


def draw_photo(height, width, seed=0):
    """Draws uint8 (h, w, 3): coarse coloured noise, so that neighbours are alike."""
    random = np.random.default_rng((seed, height, width))
    pixels = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((width, height)))


def encode(pixels, *, format="PNG", **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def draw_files():
    return {f"{h} x {w}": encode(draw_photo(h, w)) for h, w in [(24, 32), (41, 30), (150, 120)]}


def predict_in_keras(model, image, resize="stretch"):
    """Returns what the task keeps of all pixels, and which of them are clear."""
    predictor = DensePredictor(model, mode="gather_first")
    size = predictor.image_size
    maps = predictor.read_maps(resize_pixels(image, size, resize)[np.newaxis])

    def keep(outputs):
        best = tf.math.top_k(outputs, 2).values
        return {**TASK.postprocess(outputs), "clear": best[..., 0] - best[..., 1] > CLEAR}

    ys, xs = place_pixels(image.shape[:2], size, resize)
    actual = predictor.predict([one[0] for one in maps], ys, xs, keep)
    return actual, actual.pop("clear")


def check_equal(actual, expected, clear, tolerance=1e-5):
    assert clear.mean() > 0.99
    assert actual["mask"].dtype == np.uint8
    np.testing.assert_array_equal(actual["mask"][clear], expected["mask"][clear])
    np.testing.assert_allclose(actual["probability"], expected["probability"], atol=tolerance)


@pytest.fixture(scope="module")
def exported(mobilenet, tmp_path_factory):
    path = tmp_path_factory.mktemp("stretch") / "model"
    write_saved_model(FinishedModel(mobilenet, TASK, "stretch"), path)
    return path


@pytest.fixture(scope="module")
def served(exported):
    """Images of several sizes, and the outputs of a fresh process."""
    batches = [
        np.stack([draw_photo(*shape, seed) for seed in range(count)]) for count, *shape in SHAPES
    ]
    return batches, ask(exported, batches, [encode(batch[-1]) for batch in batches])


# By default the run of tests/tasks/dense/test_pixel_tasks.py is exported and compared.
served_in_a_process = pytest.mark.slow


@served_in_a_process
def test_an_image_of_any_size_is_predicted_at_its_own_size(mobilenet, served):
    batches, results = served

    for batch, actual in zip(batches, results.pixels, strict=True):
        assert actual["mask"].shape == actual["probability"].shape == batch.shape[:3]
        for number, image in enumerate(batch):
            rows = {name: one[number] for name, one in actual.items()}
            check_equal(rows, *predict_in_keras(mobilenet, image))
    assert len(np.unique(results.pixels[0]["mask"])) == 3


@served_in_a_process
def test_an_image_of_the_models_size_is_predicted_as_by_the_model_itself(mobilenet, served):
    batches, results = served
    places = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), axis=-1)

    outputs = mobilenet([batches[0].astype(np.float32), np.stack([places.reshape(-1, 2)] * 2)])

    outputs = outputs.numpy().reshape(2, *SIZE, 3)
    best = np.sort(outputs, axis=-1)
    expected = {"mask": outputs.argmax(axis=-1), "probability": best[..., -1]}
    check_equal(results.pixels[0], expected, best[..., -1] - best[..., -2] > CLEAR)


@served_in_a_process
def test_files_are_predicted_as_their_pixels(served):
    batches, results = served

    for batch, from_pixels, actual in zip(batches, results.pixels, results.encoded, strict=True):
        assert (actual["height"], actual["width"]) == batch.shape[1:3]
        np.testing.assert_array_equal(actual["mask_bytes"][..., 0], from_pixels["mask"][-1])
        assert actual["probability_bytes"].dtype == np.uint16
        difference = actual["probability_bytes"][..., 0] / 65535 - from_pixels["probability"][-1]
        assert np.abs(difference).max() < 0.5 / 65535 + 1e-6


@pytest.mark.slow
def test_plain_tensorflow_returns_files_that_pillow_reads(mobilenet, exported, tmp_path):
    photo = draw_photo(37, 50)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    stored = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    (tmp_path / "one.png").write_bytes(encode(stored, exif=exif))
    (tmp_path / "two.png").write_bytes(encode(draw_photo(90, 20)))
    code = """
import pathlib, sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
folder = pathlib.Path(sys.argv[2])
data = [(folder / name).read_bytes() for name in ("one.png", "two.png")]
maps = model.signatures["serve_bytes"](bytes=tf.constant(data))
assert sorted(maps) == ["height", "mask_bytes", "probability_bytes", "width"], sorted(maps)
assert maps["height"].numpy().tolist() == [37, 90] and maps["width"].numpy().tolist() == [50, 20]
(folder / "mask.png").write_bytes(maps["mask_bytes"][0].numpy())
(folder / "probability.png").write_bytes(maps["probability_bytes"][0].numpy())
assert "tl_toolkit" not in sys.modules
print([name.decode() for name in model.signatures["class_names"]()["class_names"].numpy()])
"""

    actual = subprocess.run(
        [sys.executable, "-c", code, str(exported), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert actual.stdout.strip() == str(list(CLASSES)), actual.stderr[-2000:]
    mask, probability = (
        np.asarray(Image.open(tmp_path / name)) for name in ("mask.png", "probability.png")
    )
    from_pixels = {"mask": mask, "probability": probability / 65535}
    check_equal(from_pixels, *predict_in_keras(mobilenet, photo))


@pytest.mark.slow
def test_served_files_can_be_sent_as_json_by_their_names():
    endpoints = TASK.build_endpoints(build_model(), "stretch")

    outputs = endpoints.serve_bytes(tf.constant([encode(draw_photo(*SIZE))]))

    # As TensorFlow Serving does: base64 for names that end so, UTF-8 for other strings.
    files = {name for name, values in outputs.items() if values.dtype == tf.string}
    assert files == {"mask_bytes", "probability_bytes"}
    for name in files:
        assert outputs[name].numpy()[0].startswith(b"\x89PNG")


def test_places_in_the_graph_are_those_of_training():
    for mode in ("stretch", "crop", Padding()):
        compiled = tf.function(
            lambda source, mode=mode: place_pixels_in_graph(source, SIZE, mode),
            input_signature=[tf.TensorSpec((2,), tf.int32)],
        )
        for source in [(64, 80), (1, 1), (37, 50), (480, 361), (3, 1000), (2999, 7)]:
            actual = compiled(tf.constant(source))

            for one, expected in zip(actual, place_pixels(source, SIZE, mode), strict=True):
                np.testing.assert_array_equal(one, expected)


@pytest.mark.slow
def test_tiles_are_no_higher_than_they_must_be():
    def keep(outputs):
        return {"rows": tf.fill(tf.shape(outputs)[:2], tf.shape(outputs)[0])}

    maps = [np.zeros((12, 16, 4), np.float32), np.zeros((3, 4, 8), np.float32)]
    ys, xs = place_pixels((50, 20), (24, 32))

    # Two maps' parts of a first layer of three units, in float32.
    for tile_bytes, rows in [(1 << 20, 50), (40 * 20 * 2 * 3 * 4, 25)]:
        predictor = DensePredictor(build_model(), tile_bytes=tile_bytes)
        assert np.unique(predictor.predict(maps, ys, xs, keep)["rows"]) == [rows]


@pytest.mark.slow
def test_pixels_that_were_cut_off_are_of_no_class(tmp_path):
    model = build_model()
    write_saved_model(FinishedModel(model, TASK, "crop"), tmp_path / "model")
    image = draw_photo(30, 70)

    actual = ask(tmp_path / "model", [image[np.newaxis]], [encode(image)])

    expected, clear = predict_in_keras(model, image, "crop")
    from_pixels = {name: one[0] for name, one in actual.pixels[0].items()}
    # Of 70 columns the middle 40 have the model's proportions.
    kept = slice(15, 55)
    for name, blank in (("mask", 255), ("probability", 0)):
        assert (from_pixels[name][:, : kept.start] == blank).all()
        assert (from_pixels[name][:, kept.stop :] == blank).all()
        np.testing.assert_allclose(
            actual.encoded[0][f"{name}_bytes"][..., 0] / (1 if name == "mask" else 65535),
            from_pixels[name], atol=1e-5,
        )  # fmt: skip
    check_equal(
        {name: one[:, kept] for name, one in from_pixels.items()},
        {name: one[:, kept] for name, one in expected.items()},
        clear[:, kept],
    )


def publish_model(model, path, *, resize="stretch", formats=("saved_model",)):
    finished = FinishedModel(model, TASK, resize)
    return publish(finished, RunFolder(path), files=draw_files(), formats=formats)


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["stretch", "crop", Padding()])
def test_an_export_that_is_equal_is_published(tmp_path, resize):
    paths = publish_model(build_model(), tmp_path, resize=resize)

    report = json.loads((tmp_path / "export" / "parity.json").read_text())
    assert report["holds"]
    assert report["labels_equal"] and report["class_names_equal"]
    assert report["pixels"]["limit"] == 1e-5 and report["bytes"]["limit"] == 2e-3
    assert [row["name"] for row in report["images"]] == [*draw_files(), *render_probes()]
    assert paths["saved_model"] == tmp_path / "export" / "saved_model" / "1"
    assert (paths["saved_model"] / "saved_model.pb").is_file()


@pytest.mark.slow
def test_an_export_that_differs_is_not_published_and_keeps_the_old_one(tmp_path):
    assert_the_old_one_stays(lambda: publish_model(build_model(noisy=True), tmp_path), tmp_path)


@pytest.mark.slow
def test_a_head_that_changed_is_noticed(mobilenet, exported):
    kernel = mobilenet.get_layer("predictions").kernel
    before = kernel.numpy()

    kernel.assign(before * (1 + 1e-3))
    try:
        report = compare_exported(FinishedModel(mobilenet, TASK, "stretch"), exported, draw_files())
    finally:
        kernel.assign(before)

    assert 1e-5 < report["pixels"]["largest_difference"] < 1
    assert not report["holds"]
    with pytest.raises(ParityError):
        check_report(report, where="parity.json")


@pytest.mark.slow
def test_another_order_of_classes_and_another_resizing_are_noticed(tmp_path):
    model = build_model()
    write_saved_model(FinishedModel(model, TASK, "crop"), tmp_path / "model")

    reordered = FinishedModel(model, Segmentation(CLASSES[::-1]), "stretch")
    report = compare_exported(reordered, tmp_path / "model", draw_files())

    by_name = {row["name"]: row for row in report["images"]}
    assert not report["class_names_equal"] and not report["labels_equal"]
    assert by_name["41 x 30"]["pixels"] == by_name["41 x 30"]["bytes"] == 1.0
    assert by_name["24 x 32"]["pixels"] < 1e-5  # has the model's proportions: nothing to cut


@pytest.mark.slow
@pytest.mark.parametrize("task", [Edges(), Normals()], ids=lambda task: type(task).__name__)
def test_predictions_without_a_mask_are_compared_too(tmp_path, monkeypatch, task):
    model = build_model(units=task.units)
    write_saved_model(FinishedModel(model, task, "stretch"), tmp_path / "model")
    monkeypatch.setattr(dense_parity, "MAX_PIXELS", 24 * 32 + 41 * 30)
    finished = FinishedModel(model, task, "stretch")

    report = compare_exported(finished, tmp_path / "model", draw_files())

    assert report["holds"]
    # Rounding to 16 bits is what differs from bytes: half a step of what lies between low and high.
    assert 0.4 < report["bytes"]["largest_difference"] * 65535 / task.units**0.5 < 1.2
    assert len(report["images"]) == 2 + len(render_probes())  # the third would be too many pixels
    model.get_layer("predictions").bias.assign_add([0.01] + [0] * (task.units - 1))
    assert not compare_exported(finished, tmp_path / "model", draw_files())["holds"]


@pytest.mark.slow
def test_decoders_that_differ_by_a_level_do_not_forbid_an_export(tmp_path):
    random = np.random.default_rng(0)
    levels = random.integers(0, 256, (60, 80, 4), dtype=np.uint8)
    photo = encode(Image.fromarray(levels, mode="CMYK"), format="JPEG", quality=95)
    difference = read_by_pillow(photo).astype(int) - decode_image(photo).numpy()
    assert np.abs(difference).max() == 1
    model = build_model()
    predictions = model.get_layer("predictions")
    predictions.kernel.assign(predictions.kernel * 100)  # so steep that a level changes predictions
    write_saved_model(FinishedModel(model, TASK, "stretch"), tmp_path / "model")

    finished = FinishedModel(model, TASK, "stretch")
    report = compare_exported(finished, tmp_path / "model", {"CMYK": photo})

    assert report["images"][0]["name"] == "CMYK"
    assert report["images"][0]["bytes"] < 2e-3


def test_a_map_without_an_encoding_is_refused():
    class Depth(Edges):
        def postprocess(self, outputs):
            return {"depth": outputs[..., 0]}

    with pytest.raises(ValueError, match="depth: expected one of"):
        Depth().build_endpoints(build_model(units=1), "stretch")


@pytest.mark.slow
def test_weights_hold_the_base_alone(mobilenet, tmp_path):
    path = publish_model(mobilenet, tmp_path, formats=("weights",))["weights"]

    other = build_transfer("mobilenet", classes=2, arguments={"alpha": 0.25}, seed=7)
    base = [layer for part in other.parts[:-1] for layer in part.layers]
    load_weights(base, path)

    for layer in base:
        for one, right in zip(
            layer.get_weights(), mobilenet.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(one, right)
