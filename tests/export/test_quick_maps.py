"""A run's LiteRT export predicts maps at the files' own sizes, as Keras does."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.models import build_transfer
from tl_toolkit.api.run import Run
from tl_toolkit.architectures.loading import remember_model
from tl_toolkit.errors import ParityError, RecipeError
from tl_toolkit.export import lines, lines_process, quick
from tl_toolkit.export.formats import FinishedModel
from tl_toolkit.export.publish import publish
from tl_toolkit.recipe.load import build_recipe, dump_recipe
from tl_toolkit.runs.folder import RunFolder
from tl_toolkit.tasks.registry import build_task

pytestmark = pytest.mark.slow

SIZE = (32, 48)
SIZES = [(60, 80), (32, 48), (41, 23), (300, 200)]  # the last one is two tiles
MOBILENET = ("mobilenet", {"alpha": 0.25})
SEGMENTATION = {"kind": "segmentation", "calibrate": True}
LIMIT = 1e-4
ROUNDED = 0.02  # around a pixel that the resize rounds to another level, which is one in a thousand
WITHOUT_TENSORFLOW = """
import sys
from tl_toolkit.cli.main import run
code = run(sys.argv[1:])
print(code, [name for name in ("tensorflow", "keras") if name in sys.modules], file=sys.stderr)
"""


def make_run(path, task, *, base, classes=(), hidden=(), taps=()):
    """A run's folder with a LiteRT export of its model, and photos."""
    data = {"train": str(path), "validation": 0.2, "image_size": list(SIZE)}
    name, arguments = base
    base = {"base": name, "arguments": arguments, "weights": "random"}
    recipe = build_recipe(
        {
            "version": 1,
            "name": "x",
            "task": task,
            "data": data | ({"classes": list(classes)} if classes else {}),
            "model": base | {"head": {"hidden": [{"units": units} for units in hidden]}},
            "pixels": {"taps": [*taps]} if taps else {},
            "phases": [{"name": "head", "epochs": 1}],
        }
    ).recipe
    (path / "recipe.yaml").write_text(dump_recipe(recipe))
    (path / "classes.json").write_text(json.dumps(classes))
    (path / "status.json").write_text('{"state": "done"}')
    built = build_task(recipe, classes)
    if classes:
        (path / "task.json").write_text('{"temperature": 0.3}')
        built.restore({"temperature": 0.3})
    model = build_transfer(name, arguments=arguments, task=built, size=SIZE).model
    last = model.get_layer("predictions")  # random weights say nearly the same of all pixels
    last.set_weights([weight * 200 for weight in last.get_weights()])
    model.save(path / "model.keras")
    remember_model(path / "model.keras")  # as training does
    publish(FinishedModel(model, built, "stretch"), RunFolder(path), files={}, formats=["litert"])
    (path / "photos").mkdir()
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        coarse = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        photo.save(path / "photos" / f"{number}.{'png' if number else 'jpg'}")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(
        tmp_path_factory.mktemp("masks"), SEGMENTATION, base=("vgg_tiny", {}),
        classes=("sky", "sea", "sand"), hidden=[8], taps=["block2"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def made_of_mobilenet(tmp_path_factory):
    return make_run(
        tmp_path_factory.mktemp("mobilenet"), SEGMENTATION, base=MOBILENET,
        classes=("sky", "sea", "sand"), hidden=[8],
    )  # fmt: skip


def predict(path, engine, *, resize="stretch", out=None, photos=None):
    run, events = Run(RunFolder(path)), []
    data = run.recipe.data.model_copy(update={"resize": resize})
    run.recipe = run.recipe.model_copy(update={"data": data})
    found = run.predict(photos or path / "photos", engine=engine, out=out, progress=events.append)
    return found, "\n".join(event.text for event in events if event.text)


def test_masks_are_those_of_keras_at_the_files_own_sizes(made):
    assert_masks_are_those_of_keras(made, "stretch")


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_masks_of_a_deeper_base_are_those_of_keras(made_of_mobilenet, resize):
    assert_masks_are_those_of_keras(made_of_mobilenet, resize)


def assert_masks_are_those_of_keras(made, resize):
    quick, said = predict(made, "litert", resize=resize)
    keras, _ = predict(made, "keras", resize=resize)

    assert "predicted by LiteRT" in said
    assert [item.path for item in quick] == [item.path for item in keras]
    for item, expected, size in zip(quick, keras, SIZES, strict=True):
        assert set(item.maps) == set(expected.maps) == {"mask", "probability"}
        for name, values in item.maps.items():
            assert values.shape == size and values.dtype == expected.maps[name].dtype
        difference = np.abs(item.maps["probability"] - expected.maps["probability"])
        assert difference.max() <= ROUNDED and np.mean(difference <= LIMIT) > 0.9
        assert expected.maps["probability"].std() > 0.01
        assert np.mean(item.maps["mask"] == expected.maps["mask"]) > 0.999
        assert item.shares == pytest.approx(expected.shares, abs=0.001)


def test_a_process_of_its_own_writes_masks_without_tensorflow(made, tmp_path):
    """It tells by its modules: this process has TensorFlow."""
    words = ["predict", str(made), str(made / "photos"), "--out", str(tmp_path / "quick")]

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *words], capture_output=True, text=True
    )
    predict(made, "keras", out=tmp_path / "keras")

    assert done.stderr.splitlines()[-1] == "0 []", done.stderr
    assert "predicted by LiteRT" in done.stderr and "legend of the colours" in done.stderr
    names = sorted(path.name for path in (tmp_path / "keras").iterdir())
    assert sorted(path.name for path in (tmp_path / "quick").iterdir()) == names
    for name in names:
        own, expected = (Image.open(tmp_path / side / name) for side in ("quick", "keras"))
        assert (own.mode, own.size, own.getpalette()) == (
            expected.mode, expected.size, expected.getpalette(),
        )  # fmt: skip
        assert np.mean(np.asarray(own) == np.asarray(expected)) > 0.999, name


def test_a_file_that_takes_the_decoder_leaves_no_picture(made, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.gif")
    photos = [made / "photos" / "0.jpg", tmp_path / "a.gif"]

    with pytest.raises(RecipeError, match=r"a\.gif takes the decoder"):
        predict(made, "litert", photos=photos, out=tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_auto_leaves_photos_of_many_pixels_to_keras(made, monkeypatch):
    """Each tile runs the base again: 12 million pixels took three times as long as by Keras."""
    photo, large = (made / "photos" / name for name in ("1.png", "0.jpg"))
    monkeypatch.setattr(quick, "MOST_PIXELS", 60 * 80 + 32 * 48 - 1)

    assert "predicted by LiteRT" in predict(made, "auto", photos=[large])[1]
    assert "predicted by LiteRT" not in predict(made, "auto", photos=[large, photo])[1]
    assert "predicted by LiteRT" in predict(made, "litert", photos=[large, photo])[1]


def test_a_second_file_that_was_not_proved_does_not_predict(made, tmp_path):
    copied = shutil.copytree(made, tmp_path / "run")
    export = copied / "export" / "model.lines.tflite"
    export.write_bytes(export.read_bytes() + b"\0")

    with pytest.raises(RecipeError, match="is not proved to be of this run"):
        predict(copied, "litert")


def test_an_export_of_an_earlier_version_lacks_the_second_file(made, tmp_path):
    copied = shutil.copytree(made, tmp_path / "run")
    (copied / "export" / "model.lines.tflite").unlink()

    with pytest.raises(RecipeError, match="has no model.lines.tflite") as caught:
        predict(copied, "litert")

    assert "tltool export" in caught.value.problems[0].hint


def test_a_second_file_that_differs_is_not_published(made, tmp_path, monkeypatch):
    copied = shutil.copytree(made, tmp_path / "run")
    run = Run(RunFolder(copied))
    before = (copied / "export" / "model.lines.tflite").read_bytes()
    monkeypatch.setattr(lines, "_compare", lambda *_: 0.01)

    with pytest.raises(ParityError, match=r"model\.lines\.tflite"):
        publish(
            FinishedModel(run.model, run._task, "stretch"), run.folder, files={}, formats=["litert"]
        )

    assert (copied / "export" / "model.lines.tflite").read_bytes() == before


def test_a_second_file_that_ends_its_process_ends_no_other(made, tmp_path, monkeypatch):
    process = tmp_path / "ends.py"
    process.write_text("import os; os.abort()")
    monkeypatch.setattr(lines_process, "__file__", str(process))
    run = Run(RunFolder(made))

    with pytest.raises(ParityError, match="cannot be run by LiteRT: .* SIGABRT"):
        lines.write_lines(FinishedModel(run.model, run._task, "stretch"), tmp_path, LIMIT)


@pytest.mark.parametrize(
    ("kind", "name", "limit"), [("edges", "probability", ROUNDED), ("normals", "normal", 0.05)]
)
def test_maps_of_other_tasks_are_those_of_keras(tmp_path, kind, name, limit):
    path = make_run(tmp_path, {"kind": kind}, base=MOBILENET)

    quick, _ = predict(path, "litert")
    keras, _ = predict(path, "keras")
    pictures = [predict(path, engine, out=tmp_path / engine)[0] for engine in ("litert", "keras")]

    for item, expected in zip(quick, keras, strict=True):
        assert item.maps[name].shape == expected.maps[name].shape
        assert np.abs(item.maps[name] - expected.maps[name]).max() <= limit
        assert expected.maps[name].std() > 0.01
    for item, expected in zip(*pictures, strict=True):
        assert [*item.files] == [*expected.files]
        own, other = (np.asarray(Image.open(each.files[kind]), int) for each in (item, expected))
        assert np.abs(own - other).max() <= 255 * limit + 1
