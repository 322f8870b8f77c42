"""Real weights and photos: accuracy as the recipes claim, one answer from every way to ask."""

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tl_toolkit as tl
from tests.export.unequal import compare_exported
from tl_toolkit.export.formats import FinishedModel
from tl_toolkit.export.serving_process import __file__ as serving_process

pytestmark = pytest.mark.assets
RECIPES = Path(__file__).resolve().parents[1] / "recipes"
CAMVID_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def hymenoptera(assets):
    return {
        "data.train": str(assets / "images" / "hymenoptera" / "train"),
        "data.validation": str(assets / "images" / "hymenoptera" / "val"),
        "model.weights": str(assets / "weights" / "mobilenet_2_5_224_tf_no_top.h5"),
    }


def clothing(assets):
    folder = assets / "images" / "clothing"
    return {
        **{f"data.{split}": str(folder / split) for split in ("train", "validation", "test")},
        "model.weights": str(assets / "weights" / "mobilenet_7_5_224_tf_no_top.h5"),
    }


def finetune(name, overrides, out, **changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return tl.finetune(RECIPES / f"{name}.yaml", overrides=overrides | changes, out=out)


@pytest.fixture(scope="module")
def ants_and_bees(assets, tmp_path_factory):
    """One exported run of the hymenoptera recipe with few epochs; its SavedModel reads WebP too."""
    out = tmp_path_factory.mktemp("hymenoptera") / "run"
    export = {"min_tensorflow": "2.20"}
    changes = {"phases__head__epochs": 3, "phases__tune__epochs": 1, "export": export}
    return finetune("hymenoptera_mobilenet", hymenoptera(assets), out, **changes)


@pytest.mark.parametrize(
    ("name", "data", "least"),
    [("hymenoptera_mobilenet", hymenoptera, 0.84), ("clothing_mobilenet", clothing, 0.81)],
)
def test_a_recipe_reaches_its_accuracy_over_three_seeds(assets, tmp_path, name, data, least):
    accuracies = []
    for seed in range(3):
        run = finetune(name, data(assets), tmp_path / str(seed), seed=seed, export=False)
        accuracies.append(run.metrics["validation"]["accuracy"])
        print(name, seed, run.metrics["best"], run.metrics.get("test", {}).get("accuracy"))

    assert statistics.mean(accuracies) >= least, accuracies


@pytest.mark.slow  # a quarter of an hour
def test_camvid_is_ahead_of_random_weights_in_each_seed_and_of_linear_probes(assets, tmp_path):
    folder = assets / "pixels" / "camvid"
    overrides = {
        **{f"data.{key}": str(folder / name) for key, name in CAMVID_SPLITS.items()},
        "model.weights": str(assets / "weights" / "mobilenet_7_5_224_tf_no_top.h5"),
        "data.image_size": [180, 240],  # half of the recipe's, a quarter of its time
        "export": False,
    }
    # As many epochs on the same maps, and no hidden layer.
    probe = {"model__head__hidden": [], "phases__tune__unfreeze": 0, "baseline": None}
    ahead = []
    for seed in range(3):
        run = finetune("camvid_pixelnet", overrides, tmp_path / f"run{seed}", seed=seed)
        linear = finetune(
            "camvid_pixelnet", overrides, tmp_path / f"probe{seed}", seed=seed, **probe
        )
        ours, random, probed = run.metrics, run.metrics["baseline"], linear.metrics
        for split in ("validation", "test"):
            majority = ours[split]["majority"]
            for name in ("pixel_accuracy", "mean_accuracy", "mean_iou"):
                values = [
                    metrics[name]
                    for metrics in (ours[split], random[split], probed[split], majority)
                ]
                print(seed, split, name, "ours, random, probe, majority:", values)
            assert ours[split]["mean_iou"] > random[split]["mean_iou"] > majority["mean_iou"]
        mine = ours["test"]["mean_iou"]
        ahead.append([mine - metrics["test"]["mean_iou"] for metrics in (random, probed)])

    of_random, of_probes = map(statistics.mean, zip(*ahead, strict=True))
    assert of_random >= 0.1 and of_probes > 0, ahead


def test_real_features_beat_chance_with_mobilenet_v2(assets, tmp_path):
    overrides = hymenoptera(assets) | {
        "model.base": "mobilenet_v2",
        "model.arguments": {"alpha": 0.35},
        "model.weights": str(
            assets
            / "weights"
            / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
        ),
        "phases.tune.unfreeze": 0,
        "phases.tune.epochs": 0,
        "phases.head.epochs": 4,
        "export": False,
    }

    run = finetune("hymenoptera_mobilenet", overrides, tmp_path / "run")

    assert run.metrics["validation"]["accuracy"] > 0.8


def read_index(assets):
    with open(assets / "images" / "odd" / "INDEX.tsv") as file:
        return [row["file"] for row in csv.DictReader(file, delimiter="\t")]


def test_every_way_to_ask_answers_alike_for_every_odd_image(assets, ants_and_bees, tmp_path):
    folder = assets / "images" / "odd"
    names = read_index(assets)
    predictions = {
        Path(prediction.path).name: prediction
        for prediction in ants_and_bees.predict([folder / name for name in names])
    }
    good = [name for name in names if predictions[name].error is None]

    served = ask_saved_model(ants_and_bees, [folder / name for name in good], tmp_path)

    assert len(names) == 38 and len(good) == 25
    for name, row in zip(good, served, strict=True):
        expected = list(predictions[name].probabilities.values())
        np.testing.assert_allclose(row, expected, atol=1e-5, err_msg=name)


def test_every_good_odd_image_is_answered_as_pillow_decodes_it(assets, ants_and_bees):
    folder = assets / "images" / "odd"
    predictions = ants_and_bees.predict([folder / name for name in read_index(assets)])
    good = {
        prediction.path: Path(prediction.path).read_bytes()
        for prediction in predictions
        if prediction.error is None
    }

    finished = FinishedModel(ants_and_bees.model, ants_and_bees._task, "stretch")
    report = compare_exported(finished, ants_and_bees.path / "export" / "saved_model" / "1", good)

    assert report["holds"], report


def test_what_prediction_refuses_the_exported_model_refuses_too(assets, ants_and_bees):
    folder = assets / "images" / "odd"
    predictions = ants_and_bees.predict([folder / name for name in read_index(assets)])
    refused = {prediction.path: prediction.error for prediction in predictions if prediction.error}
    code = """
import sys, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serve_bytes"]
for path in sys.argv[2:]:
    try:
        serve(bytes=tf.constant([open(path, "rb").read()]))
        print(path, "was answered")
    except tf.errors.InvalidArgumentError as error:
        print(path, " ".join(error.message.split()))
"""
    command = [
        sys.executable,
        "-c",
        code,
        str(ants_and_bees.path / "export/saved_model/1"),
        *refused,
    ]

    answered = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    lines = answered.splitlines()
    assert len(refused) == 13
    for path, error in refused.items():
        # Of what only decoding finds out, TensorFlow's own decoders tell in their own words.
        reason = "Invalid" if "damaged or incomplete" in error else error
        assert any(path in line and reason in line for line in lines), (path, error)


def test_parity_holds_on_pixels_that_pillow_decoded(ants_and_bees):
    report = json.loads((ants_and_bees.path / "export" / "parity.json").read_text())

    assert report["holds"]
    assert report["pixels"]["largest_difference"] <= 1e-5
    assert report["bytes"]["largest_difference"] <= 1e-3
    assert len(report["images"]) == 16 + 9


def ask_saved_model(run, paths, folder):
    """Returns the probabilities of `serve_bytes`, asked in a process with TensorFlow only."""
    encoded = [path.read_bytes() for path in paths]
    np.savez(
        folder / "inputs.npz",
        bytes=np.frombuffer(b"".join(encoded), np.uint8),
        lengths=[len(data) for data in encoded],
    )
    model = run.path / "export" / "saved_model" / "1"
    outputs = folder / "outputs.npz"
    subprocess.run(
        [sys.executable, "-I", serving_process, model, folder / "inputs.npz", outputs],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    with np.load(outputs) as arrays:
        return np.stack([arrays[f"bytes/{n}/probabilities"] for n in range(len(encoded))])
