"""Hosts that train one model on images, weights and features in a bucket, each with a cache."""

import csv
import json
import re

import keras
import pytest

from tests.conftest import draw_class_folders
from tests.training.test_hosts import CLOSE, COMPUTED, free_addresses, run_processes
from tl_toolkit.architectures.lenet import build_lenet5

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(server, tmp_path):
    """Writes a recipe with all of its data in the bucket; returns it with a place of features."""
    draw_class_folders(tmp_path / "hosts", classes=("ants", "bees"), count=12)
    server.put(str(tmp_path / "hosts"), "flowers/hosts", recursive=True)
    keras.utils.set_random_seed(0)
    pixels = keras.Input((32, 32, 1))
    keras.Model(pixels, build_lenet5(pixels)).save_weights(tmp_path / "lenet.weights.h5")
    server.put(str(tmp_path / "lenet.weights.h5"), "flowers/lenet.weights.h5")
    values = {
        "version": 1,
        "name": "hosts",
        "data": {
            "train": "s3://flowers/hosts",
            "validation": 0.25,
            "image_size": 32,
            "batch_size": 6,
        },
        "model": {"base": "lenet5", "weights": "s3://flowers/lenet.weights.h5"},
        "phases": [
            {"name": "head", "epochs": 3, "learning_rate": 1e-1},
            {"name": "tune", "epochs": 5, "unfreeze": 1, "learning_rate": 1e-2},
        ],
        "yardsticks": False,
        "export": False,
        "report": False,
    }

    def write(name, source="s3://flowers", **features):
        place = tmp_path / f"{name}.yaml"
        text = json.dumps(values).replace("s3://flowers", str(source))
        place.write_text(json.dumps(json.loads(text) | {"features": features}))
        return str(place)

    return write


def read_losses(run):
    """The losses of all epochs of all phases."""
    rows = []
    for path in sorted(run.glob("phases/*/history.csv")):
        with path.open() as file:
            rows += list(csv.DictReader(file))
    return [float(row[name]) for row in rows for name in ("loss", "val_loss") if row[name]]


def train(out, *recipes):
    """Trains on a host for each recipe, each with a cache of its own; returns what they printed."""
    folder, count = out.parent, len(recipes)
    addresses = ",".join(free_addresses(count))
    hosts = [("--hosts", addresses, "--host-index", str(index)) for index in range(count)]
    codes, texts = run_processes(
        [
            ("tl_toolkit", "finetune", recipe, "--out", str(out), *(each if count > 1 else ()))
            for recipe, each in zip(recipes, hosts, strict=True)
        ],
        folder,
        environments=[
            {"TL_TOOLKIT_CACHE": str(folder / f"{out.name}{index}")} for index in range(count)
        ],
    )
    assert codes == [0] * count, texts
    return texts


def test_two_hosts_train_from_a_bucket_what_one_process_trains(server, recipe, tmp_path):
    features = {"store": "always", "location": "s3://flowers/features", "part": 4}
    stored, local = recipe("stored", **features), recipe("local", tmp_path, **features)
    train(tmp_path / "alone", recipe("plain", store="never"))
    texts = train(tmp_path / "both", stored, stored)
    again = train(tmp_path / "again", stored, local)  # on hosts that have no features yet

    expected = read_losses(tmp_path / "alone")
    assert len(expected) > 16 and max(expected) - min(expected) > 0.05
    for name in ("both", "again"):
        assert read_losses(tmp_path / name) == pytest.approx(expected, abs=CLOSE)
    told = [re.search(COMPUTED, " ".join(text.split())) for text in texts]
    computed = [int(found[2] or found[1]) for found in told if found]
    assert sum(computed) == 24  # each by one of the two
    assert all("read from the store before" in " ".join(text.split()) for text in again)
    assert server.glob("flowers/features/*/*/whole.json")
    assert not [path for path in server.find("flowers/features") if "/.lease" in path]
