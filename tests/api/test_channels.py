"""Runs on images of other channels than RGB: from arrays to predictions."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import tl_toolkit as tl
from tests.models import build_transfer, plan_values
from tl_toolkit.catalog.records import PixelRule
from tl_toolkit.errors import DataError, RecipeError
from tl_toolkit.features.fingerprint import PrefixKeys
from tl_toolkit.images.bands import describe_pixels, encode_npy
from tl_toolkit.images.decoder import DECODER_VERSION
from tl_toolkit.transfer.freezing import digest_variables

PHASE = {"name": "all", "epochs": 4, "unfreeze": 4, "learning_rate": 1e-2}


def draw_bands(folder, *, channels=4, told_by=3, count=12, classes=("low", "high"), save=None):
    """Arrays of reflectances around 0.2, of which one band alone tells the classes."""
    random = np.random.default_rng(0)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            bands = random.normal(0.2, 0.05, (24, 32, channels))
            bands[..., told_by] += 0.03 * (2 * index - 1)
            place = folder / name / str(number)
            if save is None:
                np.save(place.with_suffix(".npy"), bands.astype(np.float32))
            else:
                save(place, bands)
    return folder


def recipe_of(folder, channels=4, **sections):
    return {
        "version": 1,
        "name": "bands",
        "data": {
            "train": str(folder), "validation": 0.25, "image_size": 32, "batch_size": 8,
            "channels": channels,
        },
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [PHASE],
        "export": False,
        "report": False,
        "yardsticks": False,
    } | sections  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_bands(tmp_path_factory.mktemp("bands") / "all")


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    return tl.finetune(recipe_of(folder), out=tmp_path_factory.mktemp("runs") / "bands")


@pytest.mark.slow
def test_what_the_fourth_band_alone_tells_is_learned(run):
    assert run.metrics["validation"]["accuracy"] == 1.0
    assert run.metrics["validation"]["images"] == 6
    assert run.model.input.shape == (None, 32, 32, 4)


@pytest.mark.slow
def test_run_and_model_keep_the_statistics_of_the_training_images(run):
    lines = (run.path / "manifest.csv").read_text().splitlines()
    paths = [line.split(",")[0] for line in lines if ",train," in line]
    pixels = np.concatenate([np.load(path).reshape(-1, 4) for path in paths])
    mean, deviation = (getattr(pixels, it)(axis=0, dtype=np.float64) for it in ("mean", "std"))

    kept = json.loads((run.path / "bands.json").read_text())

    assert kept["images"] == len(paths) == 18
    np.testing.assert_allclose(kept["mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(kept["deviation"], deviation, rtol=1e-9)
    rescale = run.model.get_layer("pixels_rescale")
    np.testing.assert_allclose(np.array(rescale.scale), 1 / deviation, rtol=1e-6)
    np.testing.assert_allclose(np.array(rescale.offset), -mean / deviation, rtol=1e-6)


@pytest.mark.slow
def test_files_arrays_and_folders_are_predicted_alike(run, folder, tmp_path):
    path = folder / "high" / "3.npy"
    pixels = np.load(path)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(pixels))

    first, second, third, *batch = run.predict(
        [path, tmp_path / "fortran.npy", pixels, np.stack([pixels, pixels])]
    )

    assert first.label == "high"
    for prediction in (second, third, *batch):
        assert prediction.probabilities == first.probabilities
    assert len(run.predict(folder)) == 24
    (wrong,) = run.predict(_write(tmp_path / "5.npy", encode_npy(np.zeros((8, 8, 5), "f4"))))
    assert wrong.error == "an array of 5 bands where data.channels is 4"
    with pytest.raises(DataError, match=r"Expected \(h, w, 4\) or a batch"):
        run.predict(pixels[..., :3])


def _write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.slow
def test_evaluation_reads_the_same_arrays(run, folder):
    again = run.evaluate()
    whole = run.evaluate(folder, tta="flip_vertical")

    assert again["accuracy"] == 1.0
    assert again["loss"] == pytest.approx(run.metrics["validation"]["loss"], rel=1e-5)
    assert whole["images"] == 24 and whole["skipped"] == {}


@pytest.mark.slow
def test_training_starts_from_a_run_with_its_statistics(run, folder, tmp_path):
    other = draw_bands(tmp_path / "other", count=5)
    events = []

    started = tl.finetune(
        recipe_of(other, phases=[PHASE | {"epochs": 0}]),
        start=run,
        out=tmp_path / "started",
        progress=events.append,
    )

    assert (started.path / "bands.json").read_text() == (run.path / "bands.json").read_text()
    assert any("of the run that training starts from" in event.text for event in events)
    with pytest.raises(RecipeError, match="is a run on images of 4 channels"):
        tl.validate(recipe_of(other, 5, model={"base": "lenet5", "start": str(run.path)}))


def test_keys_of_features_hold_channels_and_statistics():
    def key(scale, channels=2):
        rule = PixelRule("bands", "rgb", (scale,) * channels, (0.0,) * channels, "")
        transfer = build_transfer("lenet5", channels=channels, pixels=rule)
        keys = PrefixKeys(transfer, describe_pixels(channels))
        return keys.key(transfer.parts[-1].inputs, digest_variables(transfer))

    assert key(0.5) == key(0.5)
    assert len({key(0.5), key(0.25), key(0.5, 3), key(0.5, 1)}) == 4
    assert describe_pixels(3) == {"decoder": DECODER_VERSION}  # as keys of photos were before
    assert describe_pixels(4) != describe_pixels(5)


@pytest.mark.slow
def test_features_of_other_statistics_are_not_read(folder, tmp_path, monkeypatch):
    """Both runs read the same images by the same frozen weights: the statistics alone differ."""
    monkeypatch.setenv("TL_TOOLKIT_CACHE", str(tmp_path / "cache"))
    recipe = recipe_of(folder, phases=[{"name": "head", "epochs": 2}], seed=3)
    less = {**recipe, "data": {**recipe["data"], "examples_per_class": 4}}

    def tell(recipe, out):
        events = []
        tl.finetune(recipe, out=tmp_path / out, progress=events.append)
        return [event.text for event in events if event.text.startswith("features:")][0]

    assert "ran once for 24 images" in tell(recipe, "first")
    assert "read from the store" in tell(recipe, "again")
    assert "ran once for" in tell(less, "less")


@pytest.mark.slow
def test_grey_digits_train_with_one_channel(tmp_path):
    recipe = recipe_of("", 1, phases=[PHASE | {"epochs": 2}])
    recipe["data"] |= {"builtin": "digits", "classes": ["0", "1"], "train": None}

    run = tl.finetune(recipe, out=tmp_path / "run")

    assert run.metrics["validation"]["accuracy"] > 0.95
    assert run.model.input.shape[-1] == 1
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    image, array, file = run.predict(
        [Image.fromarray(grey), grey, _write(tmp_path / "x.png", buffer.getvalue())]
    )
    assert image.probabilities == array.probabilities == file.probabilities


@pytest.mark.slow
def test_base_of_ones_own_takes_as_many_bands_by_its_own_preprocessing(folder, tmp_path):
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 4))
    base = keras.Model(inputs, keras.layers.Conv2D(8, 5, strides=4, name="conv")(inputs))
    recipe = recipe_of(folder, phases=[{"name": "head", "epochs": 1}])
    base.save(tmp_path / "own.keras")
    recipe["model"] = {"base": {"model": str(tmp_path / "own.keras"), "preprocessing": "unit"}}

    run = tl.finetune(recipe, out=tmp_path / "run")

    assert not (run.path / "bands.json").exists()
    assert run.model.get_layer("pixels_rescale").scale == pytest.approx(1 / 255)
    recipe["data"]["channels"] = 3
    with pytest.raises(RecipeError, match=r"takes images of 4 channels(.|\n)*data.channels=4"):
        plan_values(recipe)
    torch = recipe["model"]["base"] | {"preprocessing": "torch"}
    recipe["data"]["channels"], recipe["model"] = 4, {"base": torch}
    with pytest.raises(RecipeError, match="expected one of raw, unit, tf for other channels"):
        plan_values(recipe)


def test_plan_says_the_channels_and_warns_of_bands_that_stay_one_sum(folder):
    model = {"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": "imagenet"}
    tune = {"name": "tune", "epochs": 1, "unfreeze": 1}

    plan, _ = plan_values(recipe_of(folder, model=model, phases=[tune]))
    whole, _ = plan_values(recipe_of(folder, model=model, phases=[tune | {"unfreeze": 5}]))

    assert "; 4 channels, normalized by those to train from" in plan.describe()
    assert plan.as_json()["channels"] == 4
    assert ["no phase trains conv1" in text for text in plan.warnings] == [True]
    assert whole.warnings == []


def test_what_has_no_meaning_for_bands_is_refused(folder):
    def refused(**sections):
        with pytest.raises(RecipeError) as caught:
            plan_values(recipe_of(folder, **sections))
        return str(caught.value)

    augment = dict.fromkeys(("hue", "saturation", "brightness", "erasing"), 0.1)
    message = refused(augment=augment | {"rand_augment": {}, "contrast": 0.1, "flip": "both"})
    for name in (*augment, "rand_augment"):
        assert f"augment.{name}" in message
    assert "augment.contrast: " not in message and "augment.flip" not in message
    padded = {**recipe_of(folder)["data"], "resize": "pad", "pad_color": [1, 2, 3]}
    assert "expected one value for all channels" in refused(data=padded)
    builtin = {"builtin": "digits", "image_size": 32, "channels": 4}
    assert "expected 1 or 3 with data.builtin" in refused(data=builtin)
    assert "data.channels" in refused(task="edges")
    space = {"space": {"data.channels": [3, 4]}}
    assert "scores on other images cannot be compared" in refused(search=space)
