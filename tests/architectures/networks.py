"""What tests of single papers do with a network: draw, count, fill, copy, run, compare."""

from functools import cache

import keras
import numpy as np

from tests.architectures.conftest import without_values


def build_model(builder, size, *, channels=3, **arguments):
    """Draws a base on images of a size."""
    inputs = keras.Input((size, size, channels), name="image")
    return keras.Model(inputs, builder(inputs, **arguments))


@cache
def build_outline(builder, size, **arguments):
    """A base without values of its weights, drawn once for the tests that only look at it."""
    with without_values():
        return build_model(builder, size, **arguments)


def add_top(base, num_classes):
    """Puts average pooling and a dense layer on it, without an activation."""
    x = keras.layers.GlobalAveragePooling2D()(base.output)
    return keras.Model(base.input, keras.layers.Dense(num_classes)(x))


def count(model):
    """Returns (total, trainable) parameters."""
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return model.count_params(), trainable


def fill(model, seed=0):
    """Sets weights that leave no normalization idle, with maps of about the same size throughout.

    New moving statistics are 0 and 1, which would hide a wrong epsilon and a mixed-up order.
    """
    random = np.random.default_rng(seed)
    for weight in model.weights:
        shape = weight.shape
        if weight.name == "kernel":
            value = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        elif weight.name in ("gamma", "moving_variance"):
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(size=shape) * 0.1
        weight.assign(value)


def copy_by_name(source, target):
    """Gives every layer of the target that bears the name of one of the source its weights."""
    for layer in source.layers:
        if layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())


def draw_images(size=64):
    """Draws two images of noise."""
    return np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")


def run(model, images):
    """Returns the outputs in inference mode."""
    return keras.ops.convert_to_numpy(model(images, training=False))


def assert_equal_outputs(found, expected):
    """Allows for another order of summing."""
    assert expected.std() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
