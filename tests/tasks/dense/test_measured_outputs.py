"""Outputs of whole images, as formats give them, are measured by the metric of their task."""

import numpy as np
import pytest
from PIL import Image

from tl_toolkit.images.manifest import Example
from tl_toolkit.tasks.edges.task import Edges
from tl_toolkit.tasks.normals.task import Normals
from tl_toolkit.tasks.segmentation.task import Segmentation

SIZE = (8, 8)


def load_targets(task, folder, *masks, size=SIZE):
    examples = []
    for number, mask in enumerate(masks):
        path = folder / f"{number}.png"
        Image.fromarray(mask).save(path)
        examples.append(Example("", "", "validation", (str(path), "")))
    return task.load_targets(examples, size, "stretch")


def test_masks_are_compared_at_their_own_size(tmp_path):
    task = Segmentation(("sky", "tree"))
    mask = np.repeat(np.array([[0, 1]], np.uint8), 16, axis=0).repeat(8, axis=1)  # half and half
    targets = load_targets(task, tmp_path, mask)
    outputs = np.zeros((1, *SIZE, 2), np.float32)
    outputs[0, :, :4, 0] = outputs[0, :, 4:, 1] = 1

    right = task.measure_graph(outputs, targets)
    outputs[0, 4:, :4] = [0, 1]  # a quarter of the image is of the other class now
    wrong = task.measure_graph(outputs, targets)

    assert right["mean_iou"] == 1.0
    assert wrong["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_edges_are_scored_at_the_best_threshold(tmp_path):
    task = Edges()
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16] = 255
    targets = load_targets(task, tmp_path, mask, size=(32, 32))
    outputs = np.where(mask[np.newaxis, ..., np.newaxis] > 0, 0.9, 0.1).astype(np.float32)

    assert task.measure_graph(outputs, targets)["ods"] == pytest.approx(1.0)
    assert task.measure_graph(np.flip(outputs, 2) * 0, targets)["ods"] < 0.5


def test_normals_are_apart_by_an_angle(tmp_path):
    task = Normals()
    mask = np.zeros((16, 16, 3), np.uint8)
    mask[..., 2] = 255  # towards the camera, but for the roundings of a file
    mask[..., :2] = 128
    outputs = np.zeros((1, *SIZE, 3), np.float32)
    outputs[..., 0] = outputs[..., 2] = 1  # 45 degrees to the right

    measured = task.measure_graph(outputs, load_targets(task, tmp_path, mask))

    assert measured["mean_angle"] == pytest.approx(45, abs=0.5)
    assert measured["within_22_5"] == 0
