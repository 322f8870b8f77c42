"""Tasks on images with other channels than RGB: exports are proved, maps and tables work."""

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.export.unequal import compare_exported
from tests.models import build_transfer
from tl_toolkit.catalog.records import PixelRule
from tl_toolkit.export.formats import FinishedModel
from tl_toolkit.export.saved_model import write_saved_model
from tl_toolkit.images.bands import encode_npy, read_size
from tl_toolkit.images.geometry import Padding
from tl_toolkit.images.pictures import as_photo
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.parity import Limits, Outputs
from tl_toolkit.tasks.segmentation.task import Segmentation

BANDS = PixelRule("bands", "rgb", (20.0, 10.0, 10.0, 5.0), (-4.0, -2.0, -2.0, -1.0), "")


def ask_here(task, model, resize, names=None):
    """Asks the functions of an export in this process."""
    import tensorflow as tf

    endpoints = task.build_endpoints(model, resize)

    def one(outputs, number):
        return {name: _read(value.numpy()[number]) for name, value in outputs.items()}

    def ask(batches, files):
        pixels = [endpoints.serve_images(tf.constant(batch)) for batch in batches]
        encoded = endpoints.serve_bytes(tf.constant(files))
        outputs = Outputs(
            tuple({name: value.numpy() for name, value in it.items()} for it in pixels),
            tuple(one(encoded, number) for number in range(len(files))),
            names or task.classes,
        )
        return lambda: outputs

    return ask


def _read(value):
    import tensorflow as tf

    if isinstance(value, bytes) and value.startswith(b"\x89PNG"):
        depth = tf.uint16 if value[24] == 16 else tf.uint8
        return tf.io.decode_png(value, dtype=depth).numpy()
    return value.decode() if isinstance(value, bytes) else value


def draw_files(count=3, channels=4):
    random = np.random.default_rng(0)
    bands = random.normal(0.2, 0.05, (count, 20, 26, channels)).astype(np.float32)
    return {f"{number}.npy": encode_npy(it) for number, it in enumerate(bands)}


@pytest.mark.parametrize(
    "resize", [pytest.param("crop", marks=pytest.mark.slow), Padding((0, 0, 0))]
)
def test_export_of_bands_equals_the_model_from_pixels_and_from_arrays(resize):
    task = Classification(("a", "b"))
    model = build_transfer("lenet5", channels=4, pixels=BANDS, task=task).model

    report = task.compare_served(
        model, draw_files(), resize, ask_here(task, model, resize), Limits()
    )

    assert report["holds"]
    assert report["bytes"]["largest_difference"] <= 1e-5  # arrays are decoded alike
    names = [image["name"] for image in report["images"]]
    assert names == [*draw_files(), "probe: Fortran order", "probe: big-endian"]
    other = Classification(("a", "b"))
    wrong = build_transfer("lenet5", channels=4, pixels=BANDS, task=other, seed=1).model
    assert not task.compare_served(
        model, draw_files(), resize, ask_here(other, wrong, resize), Limits()
    )["holds"]


@pytest.mark.slow
def test_saved_model_of_bands_equals_the_model_in_a_process_of_its_own(tmp_path):
    """The process cannot import the toolkit: what decodes arrays is inside the saved model."""
    task = Classification(("a", "b"))
    model = build_transfer("lenet5", channels=4, pixels=BANDS, task=task).model
    finished = FinishedModel(model, task, "crop")
    write_saved_model(finished, tmp_path / "saved")

    report = compare_exported(finished, tmp_path / "saved", draw_files())

    assert report["holds"]
    assert report["bytes"]["largest_difference"] <= 1e-5


@pytest.mark.slow
def test_export_of_grey_photos_is_compared_on_turned_ones(draw_jpeg):
    task = Classification(("a", "b"))
    rule = PixelRule("bands", "rgb", (1 / 60,), (-2.0,), "")
    model = build_transfer("lenet5", channels=1, pixels=rule, task=task).model

    report = task.compare_served(
        model, {"photo": draw_jpeg}, "stretch", ask_here(task, model, "stretch"), Limits()
    )

    assert report["holds"]
    assert len(report["images"]) == 10


@pytest.fixture
def draw_jpeg():
    import io

    buffer = io.BytesIO()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.slow
def test_maps_of_exported_bands_equal_those_of_the_model():
    task = Segmentation(("a", "b"))
    model = build_transfer("vgg_tiny", channels=4, pixels=BANDS, task=task).model

    report = task.compare_served(
        model, draw_files(), "stretch", ask_here(task, model, "stretch"), Limits()
    )

    assert report["holds"]


# --- runs --------------------------------------------------------------------------------------


def draw_fields(folder, *, count=8):
    """Fields that the third band alone tells from their surroundings, and their masks."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        bands = random.normal(1000, 100, (36, 30, 4))
        mask = np.zeros((36, 30), np.uint8)
        top, left = random.integers(2, 14, 2)
        mask[top : top + 16, left : left + 14] = 1
        bands[..., 2] += 800.0 * mask
        np.save(folder / "images" / f"{number}.npy", bands.astype(np.uint16))
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.mark.slow
def test_segmentation_of_bands_learns_and_writes_pictures(tmp_path):
    folder = draw_fields(tmp_path / "fields")
    recipe = {
        "version": 1,
        "name": "fields",
        "task": "segmentation",
        "data": {
            "train": str(folder), "validation": 0.25, "image_size": 32, "batch_size": 2,
            "classes": ["soil", "field"], "channels": 4,
        },
        "model": {
            "base": "unet", "arguments": {"filters": 4}, "weights": "random", "head": {"hidden": []}
        },
        "augment": {"flip": "both", "rotation": 0.1},
        "phases": [{"name": "all", "epochs": 4, "unfreeze": 9, "learning_rate": 1e-2}],
        "export": False,
    }  # fmt: skip

    run = tl.finetune(recipe, out=tmp_path / "run")

    assert run.metrics["validation"]["mean_iou"] > 0.8
    path = folder / "images" / "0.npy"
    assert read_size(str(path)) == (36, 30)
    (prediction,) = run.predict(path)
    assert prediction.maps["mask"].shape == (36, 30)
    (native,) = run.predict(path, native=True)
    assert native.maps["mask"].shape == (36, 30)
    (written,) = run.predict(path, out=tmp_path / "out")
    overlay = np.asarray(Image.open(written.files["overlay"]))
    assert overlay.shape == (36, 30, 3) and overlay.std() > 10


def test_photo_of_bands_shows_the_first_three_in_their_own_range():
    bands = np.linspace([0, 5000, -1, 7], [1, 6000, 1, 8], 51)[:, np.newaxis]

    photo = as_photo(bands.astype(np.float32))

    assert photo.shape == (51, 1, 3)
    assert photo[0].tolist() == [[0, 0, 0]] and photo[-1].tolist() == [[255, 255, 255]]
    assert np.abs(photo[25] - 127.0).max() <= 1
    assert as_photo(bands[..., :1].astype(np.float32)).shape == (51, 1, 3)


def test_sizes_of_arrays_are_read_from_their_headers(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 7, 4)))

    assert read_size(str(tmp_path / "x.npy")) == (5, 7)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_tables_of_arrays_train(task, tmp_path):
    random = np.random.default_rng(0)
    rows = ["path,first,second"]
    for number in range(12):
        values = random.integers(0, 2, 2)
        bands = random.normal(0, 1, (32, 32, 2)) + 2 * values
        np.save(tmp_path / f"{number}.npy", bands.astype(np.float32))
        rows.append(f"{number}.npy,{values[0]},{values[1]}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    recipe = {
        "version": 1,
        "name": "table",
        "task": task,
        "data": {
            "csv": str(tmp_path / "t.csv"), "validation": 0.25, "image_size": 32, "channels": 2,
            "classes": ["first", "second"],
        },
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "all", "epochs": 3, "unfreeze": 4, "learning_rate": 1e-2}],
        "export": False,
    }  # fmt: skip
    if task == "regression":
        recipe["data"].pop("classes")

    run = tl.finetune(recipe, out=tmp_path / "run")

    assert run.predict(tmp_path / "0.npy")[0].error is None
    assert run.metrics["validation"]["images"] == 3
