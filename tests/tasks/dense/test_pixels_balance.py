"""The word `balance` of dense tasks, for fields of `pixels`; tasks without classes refuse it."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests import tables
from tests.pixels import make_recipe
from tl_toolkit.errors import RecipeError
from tl_toolkit.plan.network import resolve_head
from tl_toolkit.recipe.load import read_recipe
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.edges.task import Edges
from tl_toolkit.tasks.registry import build_task


def build(kind, balance, *changes):
    recipe = make_recipe(kind, Path("x")) | {"task": {"kind": kind, "balance": balance}}
    plain = resolve_head(read_recipe(recipe, changes).recipe)
    return build_task(plain, plain.data.classes or ())


@pytest.mark.parametrize(
    ("kind", "balance", "loss", "weights"),
    [
        ("segmentation", None, "cross_entropy", None),
        ("segmentation", "class_weights", "cross_entropy", "balanced"),
        ("segmentation", "focal", "focal", None),
        ("segmentation", "dice", "dice", None),
        ("edges", None, "cross_entropy", "balanced"),
        ("edges", "class_weights", "cross_entropy", "balanced"),
        ("edges", "focal", "focal", None),
    ],
)
def test_a_balance_stands_for_fields_of_pixels(kind, balance, loss, weights):
    pixels = build(kind, balance).pixels

    assert (pixels.loss, pixels.class_weights) == (loss, weights)


def test_fields_of_pixels_that_say_otherwise_are_refused():
    with pytest.raises(RecipeError, match=r"(?s)none beside task.balance: dice, got 'focal'"):
        build("segmentation", "dice", "pixels.loss=focal")


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_the_focal_loss_of_edges_counts_easy_pixels_less(weights):
    probabilities = np.array([0.9, 0.2, 0.6, 0.1])
    targets = np.array([1, 1, 0, 0], np.float32)

    task = Edges(PixelSettings(loss="focal", class_weights=weights))
    losses, _ = task.compare(
        tf.constant(probabilities[None, :, None], tf.float32), tf.constant(targets[None])
    )

    right = np.where(targets == 1, probabilities, 1 - probabilities)
    expected = (-((1 - right) ** 2) * np.log(right)).mean()  # two pixels of each kind
    assert losses.numpy() == pytest.approx([expected], rel=1e-4)


@pytest.mark.parametrize("kind", ["regression", "normals"])
def test_tasks_without_classes_say_why_they_have_no_balance(kind):
    task = {"kind": kind, "balance": "focal"}
    recipe = make_recipe(kind, Path("x")) | {"task": task}
    if kind == "regression":
        recipe = tables.make_recipe(task, "x.csv")

    with pytest.raises(RecipeError, match="have no classes of unequal size") as caught:
        read_recipe(recipe)

    assert len(caught.value.problems) == 1
