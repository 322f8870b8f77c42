"""A temperature inside the graph that every format of an export is made of."""

import keras
import numpy as np
import pytest

from tests.tasks.dense.test_dense import assemble_pixels, draw_image
from tl_toolkit.tasks.last_layer import scale_last_layer
from tl_toolkit.tasks.multilabel.task import Multilabel
from tl_toolkit.tasks.segmentation.task import Segmentation
from tl_toolkit.tasks.temperature import scale

TEMPERATURE = 2.5


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3, "sigmoid", bias_initializer="random_normal")(inputs)
    return keras.Model(inputs, outputs)


def sample_inputs():
    return np.random.default_rng(0).normal(0, 3, (8, 4)).astype(np.float32)


def test_labels_of_a_graph_have_the_logits_of_the_model_over_the_temperature(model):
    task = Multilabel(("a", "b", "c"), calibrate=True)
    task.restore({"thresholds": dict.fromkeys("abc", 0.5), "temperature": TEMPERATURE})
    plain = model.predict(sample_inputs(), verbose=0)

    scaled = task.build_graph(model).predict(sample_inputs(), verbose=0)

    logits = np.log(plain.astype(np.float64)) - np.log1p(-plain.astype(np.float64))
    np.testing.assert_allclose(scaled, 1 / (1 + np.exp(-logits / TEMPERATURE)), atol=1e-6)
    np.testing.assert_allclose(scaled, task.read_outputs(plain), atol=1e-6)
    assert np.abs(scaled - plain).max() > 0.05
    assert np.array_equal(model.predict(sample_inputs(), verbose=0), plain)


def test_outputs_of_a_graph_are_not_scaled_once_more_when_they_are_measured(model):
    task = Multilabel(("a", "b", "c"), calibrate=True)
    task.restore({"thresholds": dict.fromkeys("abc", 0.5), "temperature": TEMPERATURE})
    targets = np.random.default_rng(1).integers(0, 2, (8, 3)).astype(np.int32)
    plain = model.predict(sample_inputs(), verbose=0)
    scaled = task.build_graph(model).predict(sample_inputs(), verbose=0)

    by_graph = task.measure_graph(scaled, targets)

    by_model = task.measure(plain, targets)[0]
    assert by_graph["loss"] == pytest.approx(by_model["loss"], abs=1e-6)
    assert task.measure(scaled, targets)[0]["loss"] != pytest.approx(by_model["loss"], abs=1e-3)


@pytest.mark.slow
def test_pixels_of_a_graph_have_the_logits_of_the_model_over_the_temperature():
    transfer = assemble_pixels()
    plain = Segmentation(("sky", "tree", "road")).build_graph(transfer.model)
    task = Segmentation(("sky", "tree", "road"), calibrate=True)
    task.restore({"temperature": TEMPERATURE})

    scaled = task.build_graph(transfer.model).predict(draw_image(), verbose=0)

    outputs = plain.predict(draw_image(), verbose=0)
    expected = scale(outputs.reshape(-1, 3), TEMPERATURE).reshape(outputs.shape)
    np.testing.assert_allclose(scaled, expected, atol=1e-5)
    assert np.abs(scaled - outputs).max() > 0.01


def test_a_temperature_of_one_leaves_the_model_as_it_is(model):
    assert scale_last_layer(model, 1.0) is model
