"""What a graph costs: against figures of the papers, hand counts, and gradients."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tl_toolkit.architectures.costs import measure_graph


def costs_of(draw, shape=(32, 32, 3)):
    """Measures a small graph; returns its costs and its output."""
    image = keras.Input(shape)
    outputs = draw(image)
    return measure_graph(image, outputs), outputs


def test_vgg16_has_the_known_multiply_accumulates_and_receptive_field():
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(224, 224, 3))

    costs = measure_graph(model.input, model.output)

    # 9 weights x c x f x positions, summed over the paper's 13 convolutions.
    assert sum(one.multiply_accumulates for one in costs.layers) == 15_346_630_656
    assert sum(one.parameters for one in costs.layers) == model.count_params()
    fields = {one.name: one.receptive_field for one in costs.layers}
    # 196 before the last pooling, whose second pixel lies 16 further: 212.
    assert fields["block5_conv3"] == (196, 196)
    assert fields["block5_pool"] == (212, 212)


def test_mobilenet_has_the_papers_569_million_multiply_accumulates():
    model = keras.applications.MobileNet(weights=None, input_shape=(224, 224, 3))

    costs = measure_graph(model.input, model.output)

    assert sum(one.multiply_accumulates for one in costs.layers) == pytest.approx(569e6, rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Conv2D(8, 3, padding="same"), 32 * 32 * 9 * 4 * 8),
        (layers.Conv2D(8, 3, padding="same", groups=2), 32 * 32 * 9 * 2 * 8),
        (layers.Conv2D(8, 3, strides=2), 15 * 15 * 9 * 4 * 8),
        (layers.DepthwiseConv2D(5, depth_multiplier=2), 28 * 28 * 25 * 4 * 2),
        (layers.SeparableConv2D(8, 3, padding="same"), 32 * 32 * (9 * 4 + 4 * 8)),
        (layers.Conv2DTranspose(8, 2, strides=2), 32 * 32 * 4 * 4 * 8),
        (layers.Dense(8), 32 * 32 * 4 * 8),
        (layers.BatchNormalization(), 0),
        (layers.MaxPooling2D(2), 0),
        (layers.Rescaling(2.0), 0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_layer_uses_each_weight_of_its_kernel_once_at_each_position(layer, expected):
    costs, _ = costs_of(layer, (32, 32, 4))

    assert costs.layers[-1].multiply_accumulates == expected


def test_an_unknown_layer_with_a_kernel_is_counted_and_one_without_is_not():
    class Mix(layers.Layer):
        def build(self, shape):
            self.mixer = self.add_weight(shape=(shape[-1], 5), name="mixer")

        def call(self, x):
            return x @ self.mixer

    class Shift(layers.Layer):
        def build(self, shape):
            self.offset = self.add_weight(shape=(shape[-1],), name="offset")

        def call(self, x):
            return x + self.offset

    costs, _ = costs_of(lambda x: Shift()(Mix()(x)))

    assert [one.multiply_accumulates for one in costs.layers] == [32 * 32 * 3 * 5, 0]


@pytest.mark.parametrize(
    ("draw", "formula"),
    [
        (
            lambda x: layers.Conv2D(4, 7, strides=2)(layers.ZeroPadding2D(3)(x)),
            "floor((32 + 2*3 - 7)/2) + 1 = 16",
        ),
        (
            lambda x: layers.Conv2D(4, 3, strides=2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(x)),
            "floor((32 + 0 + 1 - 3)/2) + 1 = 16",
        ),
        (layers.Conv2D(4, 5), "floor((32 - 5)/1) + 1 = 28"),
        (layers.Conv2D(4, 3, dilation_rate=2), "floor((32 - ((3 - 1)*2 + 1))/1) + 1 = 28"),
        (layers.Conv2D(4, 3, strides=2, padding="same"), "ceil(32/2) = 16"),
        (layers.Conv2D(4, (1, 7)), "floor((32 - 1)/1) + 1 = 32 x floor((32 - 7)/1) + 1 = 26"),
        (layers.Conv2DTranspose(4, 2, strides=2), "(32 - 1)*2 + 2 = 64"),
        (layers.Conv2DTranspose(4, 3, strides=2, padding="same"), "32*2 = 64"),
        (layers.ReLU(), ""),
    ],
)
def test_the_output_size_is_written_as_a_formula_with_its_numbers(draw, formula):
    costs, outputs = costs_of(draw)

    assert costs.layers[-1].formula == formula
    assert formula == "" or formula.endswith(f"= {outputs.shape[2]}")


def test_each_weight_of_a_convolution_is_shared_by_all_positions_of_its_output():
    costs, _ = costs_of(
        lambda x: layers.Dense(5)(layers.Flatten()(layers.Conv2D(4, 7, strides=2)(x)))
    )

    convolution, _, dense = costs.layers
    assert convolution.connections_per_weight == 13 * 13
    assert dense.connections_per_weight == 1


def chain(x):
    x = layers.Conv2D(2, 5, padding="same", strides=2)(x)
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    return layers.Conv2D(2, 3, dilation_rate=2)(x)


def fork(x):
    x = layers.Conv2D(2, 3)(x)
    wide = layers.Conv2D(2, 5, padding="same")(x)
    return layers.Concatenate()([wide, layers.Conv2D(2, 1)(x)])


def cropped(x):
    x = layers.Cropping2D(((1, 0), (1, 0)))(x)
    return layers.AveragePooling2D(2, strides=2)(x)


@pytest.mark.parametrize(("draw", "size"), [(chain, 5 + 2 * 2 + 4 * 4), (fork, 7), (cropped, 2)])
def test_the_field_is_where_the_gradient_is_not_zero(draw, size):
    image = keras.Input((64, 64, 1))
    outputs = draw(image)
    axis = measure_graph(image, outputs).field(outputs).axes[0]
    model = keras.Model(image, outputs)
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 0.1))
    # Rising to the right and down, so that a max pooling takes its last pixel; averages see all.
    noise = tf.random.stateless_uniform((40, 64, 64, 1), (1, 2))

    with tf.GradientTape() as tape:
        tape.watch(noise)
        middle = outputs.shape[1] // 2
        value = tf.reduce_sum(model(noise)[:, middle, middle])
    seen = np.abs(tape.gradient(value, noise)).max(axis=(0, 2, 3)).nonzero()[0]

    first, last = middle * axis.step + axis.low, middle * axis.step + axis.high
    assert (seen.min(), seen.max()) == (first, last)
    assert axis.size == size == last - first + 1


def test_transposed_and_up_sampled_maps_have_smaller_steps_and_keep_the_period():
    def draw(x):
        x = layers.MaxPooling2D(4)(x)
        return layers.UpSampling2D(2)(layers.Conv2DTranspose(2, 2, strides=2)(x))

    costs, outputs = costs_of(draw)

    axis = costs.field(outputs).axes[0]
    assert (axis.size, axis.step, axis.period) == (4, 1, 4)


def test_a_squeeze_and_excitation_leaves_the_field_of_the_convolutions():
    def draw(x):
        x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
        gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
        gate = layers.Conv2D(4, 1, activation="sigmoid", name="excite")(gate)
        return layers.Multiply(name="scale")([x, gate])

    costs, outputs = costs_of(draw)

    fields = {one.name: one.receptive_field for one in costs.layers}
    assert fields == {"conv": (3, 3), "squeeze": None, "excite": None, "scale": (3, 3)}
    assert costs.field(outputs).reads_whole


def test_a_nested_model_counts_what_is_in_it():
    inner = keras.Sequential([layers.Conv2D(4, 4, strides=4), layers.LayerNormalization()])

    costs, outputs = costs_of(lambda x: inner(x))

    (row,) = costs.layers
    assert row.multiply_accumulates == 8 * 8 * 16 * 3 * 4
    assert row.activation_bytes == 2 * 8 * 8 * 4 * 4
    assert row.parameters == inner.count_params()
    assert row.receptive_field == (4, 4) and costs.field(outputs).axes[0].step == 4


def test_a_layer_that_is_called_twice_counts_its_weights_once():
    layer = layers.Conv2D(3, 3, padding="same")

    costs, _ = costs_of(lambda x: layer(layer(x)))

    (row,) = costs.layers
    assert row.parameters == layer.count_params()
    assert row.multiply_accumulates == 2 * 32 * 32 * 9 * 9
    assert row.receptive_field == (5, 5)


def test_a_nested_model_for_any_size_is_measured_at_the_size_of_its_input():
    def measure(*size):
        inner = keras.Sequential(
            [keras.Input((*size, 3)), keras.layers.Conv2D(4, 3, strides=2, padding="same")]
        )
        image = keras.Input((16, 16, 3))
        (cost,) = measure_graph(image, inner(image)).layers
        return replace(cost, name="")

    assert measure(None, None) == measure(16, 16)
