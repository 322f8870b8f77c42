"""Whole maps averaged over mirror images, beside means of what the model says of single pixels."""

from pathlib import Path

import numpy as np
import pytest

from tests.architectures.networks import fill
from tests.models import build_transfer
from tests.tasks.dense.test_dense import ask_all, assemble_pixels, draw_image
from tl_toolkit.images.tta import build_views, list_views
from tl_toolkit.tasks.dense.evaluation import predict_maps
from tl_toolkit.tasks.dense.mirrors import MirrorPredictor
from tl_toolkit.tasks.dense.predictor import DensePredictor
from tl_toolkit.tasks.normals.task import Normals
from tl_toolkit.tasks.segmentation.task import Segmentation
from tl_toolkit.tasks.types import PredictionOptions

SIZE = (32, 32)
BOTH = ("flip", "flip_vertical")


def predict(transfer, task, words, **settings):
    """All pixels of the drawn image in the views that words ask for."""
    views = list_views(words)
    predictor = MirrorPredictor(DensePredictor(transfer.model), task, views, **settings)
    maps = predictor.read_maps(build_views({SIZE: draw_image()}, SIZE, views))
    places = np.arange(32, dtype="float32")
    return predictor.predict([[tensor[0] for tensor in one] for one in maps], places, places)


def expect(transfer, words, signs=None):
    """The mean of the outputs of every view, each mirrored back by hand."""
    outputs = []
    for view in list_views(words):
        axes = tuple(axis + 1 for axis in view.axes)
        seen = np.ascontiguousarray(np.flip(draw_image(), axes))
        back = np.flip(ask_all(transfer, seen), view.axes)
        outputs.append(back if signs is None else back * signs[view.axes])
    assert np.ptp(outputs, axis=0).max() > 1e-3  # a mean of equal outputs tells nothing
    return np.mean(outputs, axis=0, dtype=np.float64)


@pytest.mark.parametrize("words", [("flip",), pytest.param(BOTH, marks=pytest.mark.slow)])
def test_probabilities_are_the_mean_over_the_mirror_images(words):
    transfer = assemble_pixels()
    expected = expect(transfer, words)

    maps = predict(transfer, Segmentation(("sky", "tree", "road")), words)

    np.testing.assert_allclose(maps["probability"], expected.max(axis=-1), atol=1e-6)
    clear = np.diff(np.sort(expected, axis=-1)[..., -2:])[..., 0] > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(maps["mask"][clear], expected.argmax(axis=-1)[clear])


@pytest.mark.slow
def test_bands_of_rows_change_nothing():
    transfer, task = assemble_pixels(), Segmentation(("sky", "tree", "road"))

    whole = predict(transfer, task, ("flip",))
    bands = predict(transfer, task, ("flip",), band_bytes=5 * 32 * 3 * 4)

    np.testing.assert_allclose(bands["probability"], whole["probability"], atol=1e-6)
    np.testing.assert_array_equal(bands["mask"].shape, whole["mask"].shape)


@pytest.mark.slow
def test_directions_are_turned_back():
    task = Normals()
    transfer = build_transfer("vgg_tiny", task=task, size=SIZE)
    fill(transfer.model)
    # x points to the right, y up.
    signs = {(): (1, 1, 1), (1,): (-1, 1, 1), (0,): (1, -1, 1), (0, 1): (-1, -1, 1)}
    expected = expect(transfer, BOTH, {axes: np.array(sign) for axes, sign in signs.items()})

    maps = predict(transfer, task, BOTH)

    lengths = np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(maps["normal"], expected / lengths, atol=1e-5)


@pytest.mark.slow
def test_files_are_predicted_in_all_views():
    transfer, task = assemble_pixels(), Segmentation(("sky", "tree", "road"))
    image = draw_image()[0].astype("uint8")
    options = PredictionOptions(SIZE, read=lambda path: image, views=list_views(("flip",)))

    (prediction,) = predict_maps(transfer.model, [Path("drawn.png")], task, options)

    expected = expect(transfer, ("flip",))
    # The drawn image loses its fractions in uint8.
    np.testing.assert_allclose(prediction.maps["probability"], expected.max(axis=-1), atol=0.01)
    alone = ask_all(transfer, draw_image()).max(axis=-1)
    assert np.abs(prediction.maps["probability"] - alone).max() > 0.02
