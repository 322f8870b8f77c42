"""What a run gives besides its model, by the command line, on runs of five architectures."""

import contextlib
import csv
import json
import re

import numpy as np
import pytest

import tl_toolkit as tl
from tests.command import tltool
from tests.pixels import draw_balls, make_recipe

BASES = {
    "lenet5": ({}, "c3"),
    "mobilenet": ({"alpha": 0.25}, "conv_pw_6"),
    "resnet50": ({}, "conv3"),
    "densenet121": ({}, "conv3"),
}


def write(place, values):
    place.write_text(json.dumps(values))
    return place


def run_lines(card, folder):
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    with contextlib.chdir(folder):
        for block in blocks:
            exec(block, {})
    return len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_a_run_of_photos_is_compared_described_and_read(base, tmp_path, draw_photos):
    arguments, block = BASES[base]
    photos = draw_photos(tmp_path / "photos", count=6)
    draw_photos(tmp_path / "more", count=3, seed=1)
    values = {
        "version": 1,
        "name": "p",
        "data": {"train": str(photos), "validation": 0.25, "test": 0.25, "image_size": 32},
        "model": {"base": base, "arguments": arguments, "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
        "export": base == "lenet5",
    }
    recipe = write(tmp_path / "r.yaml", values)
    tltool("finetune", recipe, cwd=tmp_path)
    tltool("finetune", recipe, "phases.head.epochs=2", "export=false", cwd=tmp_path)

    compared = tltool("compare", "p/002", "p/001", "--html", "c.html", "--json", cwd=tmp_path)
    card = tltool("card", "p/001", cwd=tmp_path).stdout
    tltool("embed", "p/001", "more", "-o", "own.npz", cwd=tmp_path)
    tltool("embed", "p/001", "more", "-o", "block.npz", "--block", block, cwd=tmp_path)
    again = tltool("embed", "p/001", "more", "-o", "again.npz", "--block", block, cwd=tmp_path)
    found = tltool("similar", "p/001", "more/ants/0.jpg", "more", "--json", cwd=tmp_path)
    chosen = tltool("label-next", "p/001", "more", "-n", "4", cwd=tmp_path).stdout

    comparison = json.loads(compared.stdout)
    assert comparison["fields"]["phases.head.epochs"] == [2, 1]
    assert {test["split"] for test in comparison["tests"]} == {"validation", "test"}
    assert run_lines(card, tmp_path / "runs/p/001") == (2 if base == "lenet5" else 1)
    with np.load(tmp_path / "own.npz") as own, np.load(tmp_path / "block.npz") as middle:
        assert len(own["features"]) == len(middle["features"]) == 9
        assert own["features"].shape != middle["features"].shape
    assert "read from the store" in again.stderr and "ran once" not in again.stderr
    assert len(json.loads(found.stdout)) == 8
    assert len(list(csv.DictReader(chosen.splitlines()))) == 4


@pytest.mark.slow
def test_a_run_of_pixels_is_compared_described_and_read(tmp_path):
    balls = draw_balls(tmp_path / "balls")
    sections = {
        "name": "p",
        "model": {"base": "pixelnet_c12345", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
    }
    recipe = write(tmp_path / "r.yaml", make_recipe("segmentation", balls, **sections))
    tltool("finetune", recipe, cwd=tmp_path)
    tltool("finetune", recipe, "seed=1", cwd=tmp_path)
    images = balls / "segmentation" / "validation" / "images"

    compared = json.loads(tltool("compare", "p/002", "p/001", "--json", cwd=tmp_path).stdout)
    card = tltool("card", "p/001", cwd=tmp_path).stdout
    tltool("embed", "p/001", images, "-o", "own.npz", cwd=tmp_path)
    block = tl.describe_architecture("pixelnet_c12345", image_size=64).blocks[1].block
    tltool("embed", "p/001", images, "-o", "block.npz", "--block", block, cwd=tmp_path)
    found = tltool("similar", "p/001", images / "0.png", images, "--json", cwd=tmp_path)
    refused = tltool("label-next", "p/001", images, cwd=tmp_path, code=2).stderr

    assert compared["tests"][0]["result"]["test"] == "bootstrap"
    assert run_lines(card, tmp_path / "runs/p/001") == 1
    with np.load(tmp_path / "own.npz") as own, np.load(tmp_path / "block.npz") as middle:
        assert len(own["features"]) == len(middle["features"]) == 4
    assert len(json.loads(found.stdout)) == 3
    assert "which gives no class a probability" in refused


@pytest.mark.slow
def test_bases_of_all_kinds_are_ranked(tmp_path, draw_photos):
    photos = draw_photos(tmp_path / "photos", count=6)
    values = {
        "version": 1,
        "name": "p",
        "data": {"train": str(photos), "validation": 0.25, "image_size": 32},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}],
    }
    names = ["lenet5", "mobilenet:alpha=0.25", "resnet50", "densenet121", "pixelnet_c12345"]

    recipe = write(tmp_path / "r.yaml", values)
    done = tltool("rank-bases", recipe, "--bases", ",".join(names), "--json", cwd=tmp_path)

    ranking = json.loads(done.stdout)
    assert {base["name"] for base in ranking["bases"]} == set(names)
    assert all(
        0 <= base["probe"] <= 1 and base["neighbors"] is not None for base in ranking["bases"]
    )
