"""Small Keras models of a user's own, for tests."""

import keras
from keras import layers


def build_toy(*, size=32, dilation=1, activation="relu", outputs=None):
    """A residual network with BatchNormalization, a nested model and one ReLU called three times.

    Units, input to output: conv1 (with pixels_scale, bn1, relu, pool), add (conv2 and conv3), head,
    inner (nested), conv5.
    """
    image = keras.Input((size, size, 3), name="image")
    relu = layers.ReLU(name="relu")
    x = layers.Rescaling(1 / 255, name="pixels_scale")(image)
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(x)
    x = relu(layers.BatchNormalization(name="bn1")(x))
    x = layers.MaxPooling2D(name="pool")(x)
    y = layers.Conv2D(4, 3, padding="same", dilation_rate=dilation, name="conv2")(x)
    y = relu(layers.BatchNormalization(name="bn2")(y))
    y = layers.Conv2D(4, 3, padding="same", name="conv3")(y)
    x = relu(layers.Add(name="add")([x, y]))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="head")(x)
    x = build_inner(activation)(x)
    x = layers.Conv2D(8, 3, padding="same", name="conv5")(x)
    if outputs is not None:
        x = layers.GlobalAveragePooling2D(name="head_pool")(x)
        x = layers.Dense(outputs, name="predictions")(x)
    return keras.Model(image, x, name="toy")


def build_inner(activation="relu"):
    """A model that is one layer of another: the toy cannot be cut inside."""
    return keras.Sequential(
        [
            keras.Input((None, None, 8)),
            layers.Conv2D(8, 1, name="inner_conv"),
            layers.BatchNormalization(name="inner_bn"),
            layers.Activation(activation, name="inner_act"),
        ],
        name="inner",
    )


def build_crossing(size=32):
    """Two branches from the image to the end: nowhere does one tensor carry everything."""
    image = keras.Input((size, size, 3))
    a = layers.Conv2D(4, 3, padding="same", name="a1")(image)
    b = layers.Conv2D(4, 3, padding="same", name="b1")(image)
    a, b = layers.Add(name="a2")([a, b]), layers.Multiply(name="b2")([a, b])
    a = layers.Conv2D(4, 3, padding="same", name="a3")(a)
    return keras.Model(image, layers.Concatenate(name="end")([a, b]), name="crossing")


def randomize(model, seed=0):
    """Gives a model weights that differ from those that it begins with, BatchNormalization too."""
    import numpy as np

    random = np.random.default_rng(seed)
    for variable in model.weights:
        values = random.uniform(0.5, 1.5, variable.shape)
        variable.assign(values if "variance" in variable.path else 0.3 * (values - 0.9))
    return model
