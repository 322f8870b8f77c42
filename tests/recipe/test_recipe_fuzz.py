"""Damaged recipes: whatever is wrong, a toolkit error says so and where; never a traceback."""

import random

import pytest

from tl_toolkit.errors import RecipeError
from tl_toolkit.recipe.load import build_recipe, load_recipe

RICH = """\
version: 1
name: flowers
data: {train: photos, image_size: [28, 32], classes: [yes, "0"], validation: 0.25}
augment:
  flip: horizontal
  rand_augment: {num_ops: 3}
model:
  base: mobilenet
  arguments: &a {alpha: 0.25}
  weights: imagenet
  head:
    hidden:
      - {units: 64, l2: 1e-4}
    dropout: 0.2
phases:
  - name: head
    epochs: 5
  - name: tune
    epochs: 2
    unfreeze: {from: conv_dw_12}
    learning_rate: 1e-5
early_stopping: {patience: 3}
export: true
baseline:
  model.weights: random
  model.arguments: *a
"""
PIECES = [*"\t\n :-[]{}&*!#|>'\"%@`,~=?\\\0é\u2028", "- ", ": ", "<<: ", "!!str ", "1e999", ".nan"]
VALUES = [None, True, -1, 0, 1.5, 10**30, 10**400, float("nan"), "", "x", "a\0b", "gs://x", [], {}]
VALUES += [[[]], [1, "a"], {"a": 1}, {"from": 3}, b"x", object(), {1, 2}]
NAMES = [
    "",
    "~",
    "phases",
    "0",
    "99",
    "data",
    "train",
    "model.weights",
    "a" * 50,
    "[0]",
    "baseline",
]


def mutate(text, source):
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(text))
        end = start + source.choice([0, 1, 5, 40])
        piece = source.choice([*PIECES, text[start : start + 30], ""])
        text = text[:start] + piece + text[end:]
    return text


def scramble(value, source):
    if source.random() < 0.08:
        return source.choice(VALUES)
    if isinstance(value, dict):
        return {
            source.choice(NAMES) if source.random() < 0.03 else key: scramble(item, source)
            for key, item in value.items()
        }
    return [scramble(item, source) for item in value] if isinstance(value, list) else value


def read(call, *arguments):
    try:
        call(*arguments)
    except RecipeError as error:
        assert all(problem.where for problem in error.problems)
        return str(error)
    return ""


def test_the_undamaged_recipe_is_right(write):
    assert load_recipe(write(RICH)).recipe.name == "flowers"


@pytest.mark.parametrize("seed", range(4))
def test_damaged_text_gives_a_recipe_or_a_located_error(write, seed):
    source = random.Random(seed)

    results = [read(load_recipe, write(mutate(RICH, source))) for _ in range(60)]

    assert any(results)


@pytest.mark.parametrize("seed", range(4))
def test_wrong_values_give_a_recipe_or_a_located_error(write, seed):
    source = random.Random(seed)
    values = load_recipe(write(RICH)).recipe.model_dump(mode="json", by_alias=True)

    results = [read(build_recipe, scramble(values, source)) for _ in range(60)]

    assert any(results)


def test_damaged_bytes_give_a_recipe_or_a_located_error(tmp_path):
    source = random.Random(0)
    path = tmp_path / "x.yaml"

    for _ in range(100):
        content = bytearray(RICH.encode())
        for _ in range(source.randint(1, 3)):
            content[source.randrange(len(content))] = source.randrange(256)
        path.write_bytes(content)
        read(load_recipe, path)


def test_any_override_gives_a_recipe_or_a_located_error(values):
    source = random.Random(0)

    for _ in range(200):
        field = ".".join(source.choices([*values, *values["data"], *NAMES], k=source.randint(1, 4)))
        value = source.choice(["", "1", "[", "{a: 1}", "x", "[1, 2]", "\0", "*a"])
        override = source.choice([f"{field}={value}", f"~{field}", field, value])
        read(build_recipe, values, [override])
