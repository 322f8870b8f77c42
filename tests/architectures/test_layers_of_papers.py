"""The layers that Keras does not have: each against its formula, and through a saved model."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tl_toolkit.architectures.layers import (
    EDGE_KINDS,
    EdgeFilter,
    FanInUniform,
    LocalResponseNormalization,
    SumPooling2D,
    TableConv2D,
    edge_kernels,
    scaled_tanh,
)

# Row and column towards which each of the eight compass directions points: N, NE, E, ... NW.
COMPASS = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
TABLE = [[0], [0, 2], [1, 2, 3]]


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def fill(layer):
    """Gives every weight a value of its own, so that none can be lost unnoticed."""
    layer.set_weights([draw(*weight.shape, seed=1) for weight in layer.weights])


# ------------------------------------------------------------------ local response normalization


def test_response_normalization_follows_the_formula_of_the_paper():
    image = draw(2, 3, 3, 7) * 50
    expected = np.empty_like(image)
    for channel in range(7):
        near = image[..., max(0, channel - 2) : channel + 3].astype("float64")
        energy = 2 + 1e-4 * (near**2).sum(axis=-1)
        expected[..., channel] = image[..., channel] / energy**0.75

    found = LocalResponseNormalization()(image)

    np.testing.assert_allclose(found, expected, rtol=1e-5)  # rounding of float32


def test_response_normalization_equals_that_of_tensorflow():
    image = draw(2, 3, 3, 7) * 50
    arguments = {"depth_radius": 1, "bias": 1.5, "alpha": 0.01, "beta": 0.6}

    found = LocalResponseNormalization(**arguments)(image)

    expected = tf.nn.local_response_normalization(image, **arguments)
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # rounding of float32


def test_response_normalization_maps_zero_to_zero():
    found = LocalResponseNormalization()(np.zeros((1, 2, 2, 3), "float32"))

    assert not np.any(found)


def test_response_normalization_survives_large_activations_in_half_precision():
    image = np.full((1, 1, 1, 5), 300, "float32")  # 300 squared is beyond float16

    found = LocalResponseNormalization(dtype="mixed_float16")(image)

    assert found.dtype == tf.float16
    np.testing.assert_allclose(found, LocalResponseNormalization()(image), rtol=1e-3)  # of float16


# ------------------------------------------------------------------------------------ sum pooling


def test_sum_pooling_is_the_sum_times_a_coefficient_plus_a_bias_of_each_channel():
    image = np.stack([np.arange(16).reshape(4, 4), np.ones((4, 4))], axis=-1)[None]
    layer = SumPooling2D(2)
    layer.build(image.shape)
    layer.set_weights([np.array([3, 10]), np.array([0.5, -1])])

    found = layer(image.astype("float32"))

    sums = np.array([[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]])
    np.testing.assert_array_equal(found[0, ..., 0], 3 * sums + 0.5)
    np.testing.assert_array_equal(found[0, ..., 1], np.full((2, 2), 39))


def test_sum_pooling_begins_as_the_average():
    image = draw(2, 7, 6, 3)

    found = SumPooling2D(3)(image)

    expected = keras.layers.AveragePooling2D(3)(image)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)  # rounding of float32


def test_sum_pooling_has_two_trainable_weights_a_channel():
    layer = SumPooling2D()
    layer.build((None, 8, 8, 6))

    assert layer.count_params() == 12
    assert len(layer.trainable_weights) == 2


# ------------------------------------------------------------------------------ table convolution


def test_table_convolution_has_weights_for_its_links_only():
    layer = TableConv2D(3, 5, TABLE)
    layer.build((None, 9, 9, 4))

    assert layer.kernel.shape == (5, 5, 6)
    assert layer.count_params() == 25 * 6 + 3


def test_table_convolution_equals_a_masked_dense_one():
    image = draw(2, 6, 7, 4)
    layer = TableConv2D(3, 3, TABLE, activation="tanh")
    layer.build(image.shape)
    fill(layer)
    dense = np.zeros((3, 3, 4, 3), "float32")
    links = [(source, output) for output, row in enumerate(TABLE) for source in row]
    for index, (source, output) in enumerate(links):
        dense[:, :, source, output] = layer.kernel.numpy()[:, :, index]

    found = layer(image)

    expected = keras.ops.tanh(keras.ops.conv(image, dense) + layer.bias)
    np.testing.assert_allclose(found, expected, atol=1e-6)  # rounding of float32


def test_a_map_of_a_table_convolution_sees_its_row_of_the_table_only():
    layer = TableConv2D(3, 3, TABLE)
    image = tf.constant(draw(1, 5, 5, 4))

    for output, row in enumerate(TABLE):
        with tf.GradientTape() as tape:
            tape.watch(image)
            one = layer(image)[..., output]
        slope = np.abs(tape.gradient(one, image)).sum(axis=(0, 1, 2))

        assert np.flatnonzero(slope).tolist() == row


def test_the_gradient_reaches_every_weight_of_a_table_convolution():
    layer = TableConv2D(3, 3, TABLE)

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(draw(1, 5, 5, 4)) ** 2)
    slopes = tape.gradient(loss, layer.trainable_variables)

    assert [slope.shape for slope in slopes] == [(3, 3, 6), (3,)]
    assert all(np.all(slope.numpy() != 0) for slope in slopes)


def test_a_table_convolution_starts_as_links_of_the_dense_kernel():
    start = keras.initializers.GlorotUniform(seed=3)
    layer = TableConv2D(3, 3, TABLE, kernel_initializer=start)
    layer.build((None, 5, 5, 4))

    dense = keras.initializers.GlorotUniform(seed=3)((3, 3, 4, 3)).numpy()
    expected = [dense[:, :, source, output] for output, row in enumerate(TABLE) for source in row]
    np.testing.assert_array_equal(layer.kernel, np.stack(expected, axis=-1))


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="table: expected 4 rows, one a filter, got 3"):
        TableConv2D(4, 3, TABLE)
    with pytest.raises(ValueError, match=r"table: expected different maps in each row, got \(1, 1"):
        TableConv2D(1, 3, [[1, 1]])
    with pytest.raises(ValueError, match=r"table: expected maps from 0 to 2, got \[0, 1, 2, 3\]"):
        TableConv2D(3, 3, TABLE).build((None, 9, 9, 3))


# -------------------------------------------------------------------- initial weights, activation


def test_fan_in_uniform_fills_its_limits_and_no_more():
    weights = FanInUniform(2.4, seed=0)((5, 5, 4, 50)).numpy()

    # 5,000 draws: the largest is within 1 % of the limit but for one chance in e ** 50.
    assert 0.99 * 2.4 / 100 < np.abs(weights).max() <= 2.4 / 100
    assert abs(weights.mean()) < 0.05 * 2.4 / 100


def test_fan_in_uniform_takes_a_fan_in_for_each_output():
    weights = FanInUniform(1.0, fan_in=[10, 100], seed=0)((5, 5, 40, 2)).numpy()

    largest = np.abs(weights).max(axis=(0, 1, 2))
    np.testing.assert_allclose(largest, [0.1, 0.01], rtol=0.03)


def test_two_layers_of_one_fan_in_uniform_start_differently():
    start = FanInUniform()

    assert np.any(start((4, 4)) != start((4, 4)))


def test_fan_in_uniform_comes_back_from_its_config_with_the_same_weights():
    start = FanInUniform(1.5, fan_in=[10, 100], seed=0)

    again = keras.initializers.deserialize(keras.initializers.serialize(start))

    np.testing.assert_array_equal(again((3, 4, 2)), start((3, 4, 2)))


def test_scaled_tanh_is_the_function_of_the_paper():
    values = np.linspace(-3, 3, 13).astype("float32")

    found = scaled_tanh(values)

    np.testing.assert_allclose(found, 1.7159 * np.tanh(2 * values / 3), rtol=1e-6)
    assert float(scaled_tanh(np.float32(1))) == pytest.approx(1, abs=1e-4)


# ----------------------------------------------------------------------------------- edge filters


def step_edge(direction, size=9):
    """Draws 0 and, beyond a line just past the centre, 3: brighter towards the direction."""
    row, column = COMPASS[direction]
    down, across = np.mgrid[:size, :size] - size // 2
    return 3 * (row * down + column * across > 0).astype("float32")[None, :, :, None]


@pytest.mark.parametrize("kind", EDGE_KINDS)
def test_the_kernels_of_an_edge_filter_sum_to_zero(kind):
    kernels = edge_kernels(kind)

    assert kernels.shape[1:] == (3, 3)
    assert not kernels.sum(axis=(1, 2)).any()
    assert kernels.any(axis=(1, 2)).all()


def test_the_kernels_are_those_of_the_reference():
    prewitt_x, sobel_x = [[-1, 0, 1]] * 3, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]

    assert edge_kernels("prewitt_x").tolist() == [prewitt_x]
    assert edge_kernels("sobel_x").tolist() == [sobel_x]
    assert edge_kernels("prewitt_y").tolist() == [np.transpose(prewitt_x).tolist()]
    assert edge_kernels("sobel_y").tolist() == [np.transpose(sobel_x).tolist()]
    assert edge_kernels("prewitt").tolist() == [prewitt_x, np.transpose(prewitt_x).tolist()]
    assert edge_kernels("sobel").tolist() == [sobel_x, np.transpose(sobel_x).tolist()]
    assert edge_kernels("laplacian4").tolist() == [[[0, 1, 0], [1, -4, 1], [0, 1, 0]]]
    assert edge_kernels("laplacian8").tolist() == [[[1, 1, 1], [1, -8, 1], [1, 1, 1]]]
    assert edge_kernels("robinson")[2].tolist() == sobel_x
    assert edge_kernels("kirsch")[0].tolist() == [[5, 5, 5], [-3, 0, -3], [-3, -3, -3]]


@pytest.mark.parametrize("kind", ["robinson", "kirsch"])
def test_a_compass_has_eight_different_masks_turned_clockwise(kind):
    masks = edge_kernels(kind)
    ring = [(row + 1, column + 1) for row, column in COMPASS]
    values = np.array([[mask[place] for place in ring] for mask in masks])

    assert len(np.unique(values, axis=0)) == 8
    for step in range(8):
        np.testing.assert_array_equal(values[step], np.roll(values[0], step))


def test_robinsons_opposite_masks_are_negatives_and_kirschs_are_not():
    robinson, kirsch = edge_kernels("robinson"), edge_kernels("kirsch")

    np.testing.assert_array_equal(robinson[:4], -robinson[4:])
    assert np.any(kirsch[:4] != -kirsch[4:])


@pytest.mark.parametrize("kind", EDGE_KINDS)
@pytest.mark.parametrize("value", [0.1, 1 / 3, 123.4])  # no sums of these are exact in float32
def test_a_constant_image_has_no_edges_at_all(kind, value):
    image = np.full((1, 6, 7, 2), value, "float32")

    assert not np.any(EdgeFilter(kind)(image))


@pytest.mark.parametrize("kind", EDGE_KINDS)
def test_edge_filters_equal_the_correlation_of_scipy(kind):
    image = draw(2, 7, 8, 3)
    by_mask = np.stack(
        [
            ndimage.correlate(image.astype("float64"), mask[None, :, :, None], mode="nearest")
            for mask in edge_kernels(kind)
        ]
    )

    found = EdgeFilter(kind)(image)

    expected = np.hypot(*by_mask) if kind in ("prewitt", "sobel") else by_mask.max(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # rounding of float32


@pytest.mark.parametrize("direction", range(8))
@pytest.mark.parametrize(("kind", "weight"), [("robinson", 1 + 2 + 1), ("kirsch", 5 + 5 + 5)])
def test_a_compass_names_the_side_on_which_a_step_is_brighter(kind, weight, direction):
    response, found = EdgeFilter(kind, return_direction=True)(step_edge(direction))

    assert found.dtype == tf.int32
    assert found[0, 4, 4, 0] == direction
    assert response[0, 4, 4, 0] == 3 * weight


@pytest.mark.parametrize(("kind", "weight"), [("prewitt", 3), ("sobel", 4)])
@pytest.mark.parametrize("direction", [0, 2, 4, 6])
def test_the_gradient_of_a_step_is_its_height_times_the_weight_of_a_side(kind, weight, direction):
    image = step_edge(direction)

    size = EdgeFilter(kind)(image)[0, 4, 4, 0]
    along_x = EdgeFilter(f"{kind}_x")(image)[0, 4, 4, 0]
    along_y = EdgeFilter(f"{kind}_y")(image)[0, 4, 4, 0]

    row, column = COMPASS[direction]
    assert size == 3 * weight
    assert (along_y, along_x) == (row * 3 * weight, column * 3 * weight)


def test_sobel_measures_a_ramp():
    ramp = np.tile(np.arange(6, dtype="float32") * 3, (6, 1))[None, :, :, None]

    np.testing.assert_array_equal(EdgeFilter("sobel_x")(ramp)[0, :, 1:-1, 0], 24)
    np.testing.assert_array_equal(EdgeFilter("sobel_y")(ramp), 0)


@pytest.mark.parametrize("kind", ["prewitt", "sobel"])
def test_the_gradient_through_a_flat_image_is_finite(kind):
    image = tf.zeros((1, 5, 5, 1))

    with tf.GradientTape() as tape:
        tape.watch(image)
        response = EdgeFilter(kind)(image)

    assert np.all(np.isfinite(tape.gradient(response, image)))


def test_edge_filters_take_pixels_of_one_byte():
    image = np.array([[0, 0, 200, 200]] * 4, "uint8")[None, :, :, None]

    found = EdgeFilter("sobel")(image)

    np.testing.assert_array_equal(found[0, 1, :, 0], [0, 800, 800, 0])


def test_edge_filters_survive_bright_pixels_in_half_precision():
    image = np.array([[0, 0, 255, 255]] * 4, "float32")[None, :, :, None]

    found = EdgeFilter("sobel", dtype="mixed_float16")(image)

    assert found.dtype == tf.float16
    np.testing.assert_array_equal(found[0, 1, :, 0], [0, 1020, 1020, 0])


def test_an_edge_filter_has_no_weights():
    layer = EdgeFilter("kirsch")
    layer(draw(1, 4, 4, 1))

    assert layer.weights == []


def test_an_unknown_kind_and_a_direction_that_does_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"Expected one of prewitt, .*kirsch, got 'krisch'"):
        EdgeFilter("krisch")
    with pytest.raises(ValueError, match="Only kirsch and robinson have directions, not 'sobel'"):
        EdgeFilter("sobel", return_direction=True)


def test_every_word_of_recipes_has_kernels_of_its_own():
    kernels = {edge_kernels(kind).tobytes() for kind in EDGE_KINDS}

    assert len(kernels) == len(EDGE_KINDS) and "sobel" in EDGE_KINDS


# ------------------------------------------------------------------------------------- in a model

LAYERS = {
    "normalization": lambda: LocalResponseNormalization(1, bias=1.5, alpha=0.1, beta=0.5),
    "pooling": lambda: SumPooling2D(3),
    "table": lambda: TableConv2D(
        3, 3, TABLE, activation=scaled_tanh, kernel_initializer=FanInUniform(fan_in=[9, 18, 27])
    ),
    "edges": lambda: EdgeFilter("laplacian8"),
    "directions": lambda: EdgeFilter("robinson", return_direction=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_comes_back_from_a_file_with_the_same_outputs(name, tmp_path):
    inputs = keras.Input((9, 9, 4))
    model = keras.Model(inputs, LAYERS[name]()(inputs))
    fill(model)
    model.save(tmp_path / "model.keras")
    image = draw(2, 9, 9, 4)

    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert loaded.layers[1].get_config() == model.layers[1].get_config()
    pairs = zip(keras.tree.flatten(loaded(image)), keras.tree.flatten(model(image)), strict=True)
    for found, expected in pairs:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_declares_the_shapes_and_types_that_it_gives(name):
    free = keras.Input((None, None, 4))
    layer = LAYERS[name]()
    anywhere = keras.Model(free, layer(free))

    assert {one.shape[:3] for one in keras.tree.flatten(anywhere.output)} == {(None, None, None)}
    for size in [(9, 9), (11, 8)]:
        fixed = keras.tree.flatten(layer(keras.Input((*size, 4))))
        found = keras.tree.flatten(anywhere(draw(2, *size, 4)))

        assert [one.shape[1:] for one in fixed] == [tuple(one.shape[1:]) for one in found]
        assert [one.dtype for one in fixed] == [one.dtype.name for one in found]
        shapes = keras.tree.flatten(layer.compute_output_shape((2, *size, 4)))
        assert shapes == list(itertools.chain.from_iterable(one.shape for one in found))
