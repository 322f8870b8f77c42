import keras
import numpy as np
import pytest
import tensorflow as tf

from tl_toolkit.architectures.sampling import PixelSample, sample_axis, sample_pixels

STRIDES = [1, 2, 4, 8, 16, 32]


def draw_map(height=3, width=5, channels=4, *, count=2):
    shape = (count, height, width, channels)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def grid(height, width, *, count=2):
    """All pixels of an image, row by row, for each of some images."""
    places = np.stack(np.mgrid[:height, :width], axis=-1).reshape(1, -1, 2)
    return np.repeat(places, count, axis=0).astype("float32")


def sample(feature_map, pixels, stride):
    return keras.ops.convert_to_numpy(sample_pixels(feature_map, pixels, stride))


def build_layer(stride=2, **arguments):
    maps, pixels = keras.Input((3, 5, 4)), keras.Input((None, 2))
    return keras.Model([maps, pixels], PixelSample(stride, **arguments)(maps, pixels))


@pytest.mark.parametrize("stride", [*STRIDES, 3])
def test_all_pixels_are_what_a_bilinear_resize_has_there(stride):
    maps = draw_map()
    height, width = 3 * stride, 5 * stride
    resized = keras.ops.image.resize(
        maps, (height, width), "bilinear", antialias=False, data_format="channels_last"
    )

    found = sample(maps, grid(height, width), stride)
    rows = sample_axis(maps, np.arange(height), stride, axis=1)
    both = sample_axis(rows, np.arange(width), stride, axis=2)

    expected = keras.ops.convert_to_numpy(resized)
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=1e-6)
    np.testing.assert_allclose(both, expected, rtol=0, atol=1e-6)


def test_the_resize_of_keras_is_the_formula_of_the_paper():
    maps = draw_map(4, 4, count=1)
    y, x, stride = 13, 18, 8

    down, along = (y - 3.5) / stride, (x - 3.5) / stride  # 1.1875 and 1.8125
    expected = (
        maps[0, 1, 1] * (2 - down) * (2 - along)
        + maps[0, 1, 2] * (2 - down) * (along - 1)
        + maps[0, 2, 1] * (down - 1) * (2 - along)
        + maps[0, 2, 2] * (down - 1) * (along - 1)
    )
    found = sample(maps, np.array([[[y, x]]], "float32"), stride)[0, 0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stride", STRIDES)
def test_corners_and_far_edges_have_the_values_of_the_outermost_cells(stride):
    maps = draw_map()
    bottom, right = 3 * stride - 1, 5 * stride - 1
    middle = (stride - 1) / 2 + stride  # the centre of the cells of the second row and column
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    beyond = [(-9, -9), (-9, right + 9), (bottom + 9, -9), (bottom + 9, right + 9)]
    edges = [(middle, right), (middle, right + 9), (bottom, middle), (bottom + 9, middle)]
    pixels = np.repeat(np.array([corners + beyond + edges], "float32"), 2, axis=0)

    found = sample(maps, pixels, stride)

    cells = [(0, 0), (0, 4), (2, 0), (2, 4)] * 2 + [(1, 4)] * 2 + [(2, 1)] * 2
    expected = np.stack([maps[:, y, x] for y, x in cells], axis=1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stride", STRIDES)
def test_a_constant_map_is_constant(stride):
    maps = np.full((1, 3, 5, 2), 0.7, "float32")

    found = sample(maps, grid(3 * stride, 5 * stride, count=1), stride)

    np.testing.assert_allclose(found, 0.7, rtol=0, atol=1e-7)


@pytest.mark.parametrize("stride", STRIDES)
def test_a_ramp_is_exact_away_from_the_edges(stride):
    ys, xs = (np.arange(n) * stride + (stride - 1) / 2 for n in (4, 6))  # centres of the cells
    ramp = (2 * ys[:, None] - 3 * xs[None, :]).astype("float32")[None, :, :, None]
    pixels = grid(4 * stride, 6 * stride, count=1)
    inside = (pixels >= (stride - 1) / 2) & (pixels <= np.array([ys[-1], xs[-1]]))
    pixels = pixels[:, inside.all(axis=(0, 2))] + 0.25 * (stride > 1)  # need not be whole
    pixels = pixels[:, (pixels <= np.array([ys[-1], xs[-1]])).all(axis=(0, 2))]

    found = sample(ramp, pixels, stride)[0, :, 0]

    np.testing.assert_allclose(found, 2 * pixels[0, :, 0] - 3 * pixels[0, :, 1], atol=1e-4, rtol=0)
    assert len(found) >= 9 * stride**2 or stride == 1


def test_between_two_pixels_the_finest_map_is_interpolated_too():
    maps = draw_map(2, 2, count=1)

    found = sample(maps, np.array([[[0.5, 0.25]]], "float32"), 1)[0, 0]

    upper, lower = (0.75 * row[0] + 0.25 * row[1] for row in maps[0])
    np.testing.assert_allclose(found, (upper + lower) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stride", STRIDES)
def test_each_image_is_read_at_its_own_pixels(stride):
    maps = draw_map()
    random = np.random.default_rng(1)
    pixels = random.uniform(0, 3 * stride - 1, (2, 11, 2)).astype("float32")

    both = sample(maps, pixels, stride)
    alone = [sample(maps[i : i + 1], pixels[i : i + 1], stride)[0] for i in range(2)]

    np.testing.assert_array_equal(both, np.stack(alone))


@pytest.mark.parametrize("stride", [1, 2, 32])
def test_gradients_of_a_pixel_that_is_read_three_times_add_up(stride):
    maps = tf.constant(draw_map(count=1))
    once = np.array([[[1, stride + 1]]], "float32")

    def gradient(pixels):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            value = tf.reduce_sum(sample_pixels(maps, pixels, stride))
        return tf.convert_to_tensor(tape.gradient(value, maps)).numpy()

    found = gradient(np.repeat(once, 3, axis=1))

    np.testing.assert_allclose(found, 3 * gradient(once), rtol=0, atol=1e-6)
    # All weights of a pixel add up to 1.
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 3, rtol=0, atol=1e-6)


def test_the_layer_is_saved_and_loaded_with_its_stride(tmp_path):
    model = build_layer(16)
    inputs = [draw_map(), grid(48, 80)]

    model.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")

    assert loaded.layers[-1].stride == 16
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_its_symbolic_shape_is_the_one_it_gives():
    model = build_layer()

    assert model.output.shape == (None, None, 4)
    assert model([draw_map(), grid(6, 10)]).shape == (2, 60, 4)


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "mixed_bfloat16"])
def test_a_half_precision_policy_leaves_coordinates_in_float32(policy):
    wide = np.arange(4096, dtype="float32").reshape(1, 1, -1, 1) % 7
    pixels = np.array([[[0, 2049], [0, 4095]]], "float32")
    maps, places = keras.Input((1, 4096, 1)), keras.Input((None, 2), dtype="float32")
    layer = PixelSample(1, dtype=policy)
    model = keras.Model([maps, places], layer(maps, places))

    found = keras.ops.convert_to_numpy(model([wide, pixels]))[0, :, 0]

    assert found.tolist() == [2049 % 7, 4095 % 7]


def test_a_half_precision_map_keeps_its_type():
    found = sample_pixels(tf.cast(draw_map(), tf.float16), grid(6, 10), 2)

    assert found.dtype == tf.float16
    np.testing.assert_allclose(found, sample(draw_map(), grid(6, 10), 2), rtol=0, atol=5e-3)
