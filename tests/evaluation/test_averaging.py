"""Predictions and metrics that are averaged over views, beside those computed by hand."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tl_toolkit.evaluation.splits import evaluate_views
from tl_toolkit.images.manifest import Example
from tl_toolkit.images.pipeline import Images, resize_pixels
from tl_toolkit.images.tta import find_sizes, list_views
from tl_toolkit.sources.builtin import BUILTIN, load_builtin_image
from tl_toolkit.tasks.classification.task import Classification
from tl_toolkit.tasks.types import PredictionOptions

SIZE = (7, 7)
NAMES = [f"{BUILTIN}digits/{number}" for number in range(5)]
TARGETS = np.array([0, 1, 1, 0, 1], np.int32)


@pytest.fixture(scope="module")
def model():
    """Each pixel has a weight of its own, so that every view has other outputs."""
    keras.utils.set_random_seed(0)
    image = keras.Input((*SIZE, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 100)(image))
    return keras.Model(image, keras.layers.Dense(2, "softmax")(x))


def expect(model, words):
    """The mean over the views of `words`, float64 (images, 2)."""
    seen = []
    for name in NAMES:
        pixels = np.asarray(load_builtin_image(name))
        views = [resize_pixels(pixels, SIZE, "stretch")]
        if "crops" in words:
            large = resize_pixels(pixels, (8, 8), "stretch")
            views += [large[:7, :7], large[:7, 1:], large[1:, :7], large[1:, 1:], large[:7, :7]]
        if "flip" in words:
            views += [view[:, ::-1] for view in views]
        seen.append(views)
    count = len(seen[0])
    images = np.array(seen, np.float32).reshape(-1, *SIZE, 3)
    outputs = model.predict(images, verbose=0).reshape(len(NAMES), count, 2)
    assert np.ptp(outputs[:, :, 0], axis=1).min() > 1e-3  # a mean of equal outputs tells nothing
    return outputs.mean(axis=1, dtype=np.float64)


@pytest.mark.parametrize("words", [("flip",), ("flip", "crops")])
def test_predictions_are_the_mean_over_the_views(model, words):
    options = PredictionOptions(
        SIZE,
        read=lambda path: np.asarray(load_builtin_image(str(path))),
        views=list_views(words),
    )

    predictions = Classification(("a", "b")).predict(model, [Path(name) for name in NAMES], options)

    found = [list(prediction.probabilities.values()) for prediction in predictions]
    np.testing.assert_allclose(found, expect(model, words), rtol=1e-5)


def test_metrics_are_those_of_the_averaged_outputs(model):
    words = ("flip", "crops")
    examples = [
        Example(name, f"{number:064}", "test", ("ab"[TARGETS[number]],), "good", "")
        for number, name in enumerate(NAMES)
    ]
    views = list_views(words)
    images = {
        size: Images(examples, image_size=size, targets=TARGETS) for size in find_sizes(SIZE, views)
    }

    evaluation = evaluate_views(model, Classification(("a", "b")), images, views)

    expected = expect(model, words)
    likelihoods = expected[np.arange(5), TARGETS]
    assert evaluation.metrics["loss"] == pytest.approx(-np.log(likelihoods).mean(), rel=1e-5)
    assert evaluation.metrics["accuracy"] == (expected.argmax(axis=1) == TARGETS).mean()
    rows = np.array([row[-2:] for row in evaluation.predictions.rows], float)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
