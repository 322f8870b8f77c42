"""Each task with an output for each pixel, learned from a few drawn images."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.models import build_trainer, plan_values
from tests.pixels import SIDE, TASKS, draw_balls, make_recipe
from tl_toolkit.evaluation.splits import evaluate_trained
from tl_toolkit.plan.network import resolve_head
from tl_toolkit.plan.training import training_settings
from tl_toolkit.recipe.load import build_recipe
from tl_toolkit.tasks.registry import build_task
from tl_toolkit.tasks.types import PredictionOptions


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    """A folder for each task, with the same images."""
    return draw_balls(tmp_path_factory.mktemp("balls"), train=16, radius=(18, 24))


def train(task, folder, out):
    values = make_recipe(task, folder)
    values["data"]["batch_size"] = 2
    values["phases"][0]["epochs"] = 12
    values["phases"][1]["epochs"] = 2
    plan, built = plan_values(values)
    out.mkdir()
    trainer, images = build_trainer(plan, built, out)
    settings = training_settings(plan)
    return plan.recipe, trainer._transfer, trainer, images, trainer.train(settings)


@pytest.mark.parametrize("task", TASKS)
def test_comparing_needs_no_operation_that_gpus_have_no_deterministic_form_of(task):
    recipe = resolve_head(build_recipe(make_recipe(task, Path())).recipe)
    chosen = build_task(recipe, ["plane", "ball"])
    outputs = tf.TensorSpec((2, 5, chosen.units), tf.float32)
    targets = tf.TensorSpec((2, 5, *chosen.targets.shape[2:]), chosen.targets.dtype)

    graph = tf.function(chosen.compare).get_concrete_function(outputs, targets).graph

    kinds = {operation.type for operation in graph.get_operations()}
    assert "BatchMatMulV2" in kinds or task == "normals"
    assert not {"Bincount", "DenseBincount", "ScatterNd", "UnsortedSegmentSum"} & kinds


@pytest.fixture(scope="module", params=TASKS)
def trained(request, balls, tmp_path_factory):
    """A task, and what training it gave."""
    return train(request.param, balls, tmp_path_factory.mktemp("run") / "one")


@pytest.mark.slow
def test_a_task_is_learned_better_than_by_one_prediction_for_all(trained):
    recipe, _, _, images, training = trained
    first, last = training.history[0], training.history[12]
    targets = [images["validation"].targets.whole(index) for index in range(4)]
    trivial = {
        "segmentation": max(np.mean(np.array(targets) == value) for value in (0, 1)) / 2,
        # Every pixel an edge.
        "edges": 2 * np.mean(targets) / (1 + np.mean(targets)),
        # The plane's normal everywhere.
        "normals": np.mean(np.array(targets)[..., -1] > np.cos(np.radians(22.5))),
    }[recipe.task.kind]

    assert last.val_loss < 0.8 * first.val_loss
    assert last.loss < training.history[1].loss
    assert training.best.val_score > trivial + 0.1


@pytest.mark.slow
def test_a_task_is_learned_again_bit_for_bit(trained, balls, tmp_path):
    recipe, _, _, _, training = trained

    again = train(recipe.task.kind, balls, tmp_path / "again")[-1]

    assert [one.as_row() for one in again.history] == [one.as_row() for one in training.history]
    assert again.weights_sha256 == training.weights_sha256


@pytest.mark.slow
def test_what_is_frozen_does_not_move(trained):
    _, transfer, _, _, training = trained
    head, tune = training.receipts

    assert {part.name for part in transfer.parts} >= {"block3", "head"}
    for receipt, first in ((head, "head"), (tune, "block3")):
        names = [row["part"] for row in receipt["parts"]]
        frozen = [row for row in receipt["parts"] if row["state"] == "frozen"]
        assert receipt["holds"] and receipt["steps"] > 0
        assert [row["part"] for row in frozen] == names[: names.index(first)]
        assert all(row["moved"] == 0 for row in frozen)


@pytest.mark.slow
def test_whole_images_are_measured_and_drawn(trained, balls, tmp_path):
    recipe, transfer, trainer, images, _ = trained
    targets = images["validation"].targets
    task, kind = transfer.task, recipe.task.kind

    metrics, table, _ = evaluate_trained(trainer, task, images)
    path = balls / kind / "validation" / "images" / "0.png"
    options = PredictionOptions((SIDE, SIDE), out=tmp_path)
    (prediction,) = task.predict(transfer.model, [path], options)

    actual = metrics["validation"]
    if kind == "edges":
        assert actual["ods"] > 0.3
    else:
        trivial = actual["majority" if kind == "segmentation" else "facing"]
        assert actual[task.score] > trivial[task.score] + 0.1
    assert actual["images"] == len(table.rows) == 4
    path = prediction.files[task.picture]
    with Image.open(path) as picture:
        assert picture.size == (SIDE, SIDE)
    # What is drawn is coded as what was learned from.
    assert targets.reader.read(path).shape == targets.whole(0).shape
