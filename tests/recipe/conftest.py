"""A small valid recipe, as values and as a file."""

import pytest

TEXT = """\
version: 1
name: flowers
data:
  train: photos
  image_size: 28
model:
  base: lenet5
  weights: random
phases:
  - name: head
    epochs: 5
  - name: tune
    epochs: 2
    unfreeze: 1
"""


@pytest.fixture
def values():
    return {
        "version": 1,
        "name": "flowers",
        "data": {"train": "photos", "image_size": 28},
        "model": {"base": "lenet5", "weights": "random"},
        "phases": [{"name": "head", "epochs": 5}, {"name": "tune", "epochs": 2, "unfreeze": 1}],
    }


@pytest.fixture
def recipe_text():
    return TEXT


@pytest.fixture
def write(tmp_path):
    def write_recipe(text=TEXT, name="x.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe
