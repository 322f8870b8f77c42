"""AlexNet: the table of shapes, both counts, and what groups mean."""

import keras
import numpy as np
import pytest

from tests.architectures.networks import build_outline
from tl_toolkit.architectures.alexnet import build_alexnet
from tl_toolkit.architectures.layers import LocalResponseNormalization


def build(size=67, **arguments):
    inputs = keras.Input((size, size, 3))
    return keras.Model(inputs, build_alexnet(inputs, **arguments))


def outline(size=67, **arguments):
    return build_outline(build_alexnet, size, **arguments)


def with_dense_layers(base):
    """Adds fc6, fc7 and fc8; of zeros, for only their number matters here."""
    x = keras.layers.Flatten()(base.output)
    for units in (4096, 4096, 1000):
        x = keras.layers.Dense(units, kernel_initializer="zeros")(x)
    return keras.Model(base.input, x)


def test_its_maps_have_the_sizes_of_the_paper():
    shapes = {layer.name: layer.output.shape[1:] for layer in outline(227).layers[1:]}

    assert shapes == {
        "conv1_conv": (55, 55, 96),
        "conv1_relu": (55, 55, 96),
        "conv1_norm": (55, 55, 96),
        "conv1_pool": (27, 27, 96),
        "conv2_conv": (27, 27, 256),
        "conv2_relu": (27, 27, 256),
        "conv2_norm": (27, 27, 256),
        "conv2_pool": (13, 13, 256),
        "conv3_conv": (13, 13, 384),
        "conv3_relu": (13, 13, 384),
        "conv4_conv": (13, 13, 384),
        "conv4_relu": (13, 13, 384),
        "conv5_conv": (13, 13, 256),
        "conv5_relu": (13, 13, 256),
        "conv5_pool": (6, 6, 256),
    }


def test_it_convolves_rectifies_normalizes_and_pools_in_this_order():
    kinds = [type(layer) for layer in outline().layers[1:9]]

    assert kinds == 2 * [
        keras.layers.Conv2D,
        keras.layers.ReLU,
        LocalResponseNormalization,
        keras.layers.MaxPooling2D,
    ]


def test_its_pools_overlap():
    pools = [layer for layer in outline().layers if layer.name.endswith("_pool")]

    assert [(pool.pool_size, pool.strides) for pool in pools] == 3 * [((3, 3), (2, 2))]


@pytest.mark.parametrize(
    ("groups", "counts", "total"),
    [
        (1, [34_944, 614_656, 885_120, 1_327_488, 884_992], 3_747_200),
        (2, [34_944, 307_456, 885_120, 663_936, 442_624], 2_334_080),
    ],
)
def test_its_convolutions_have_the_parameters_of_the_reference(groups, counts, total):
    model = outline(groups=groups)

    assert [layer.count_params() for layer in model.layers if layer.weights] == counts
    assert model.count_params() == total


@pytest.mark.parametrize(("groups", "total"), [(1, 62_378_344), (2, 60_965_224)])
def test_with_its_dense_layers_it_has_the_parameters_of_the_reference(groups, total):
    assert with_dense_layers(outline(227, groups=groups)).count_params() == total


@pytest.mark.parametrize(
    "name",
    [
        "conv2_conv",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("conv4_conv", "conv5_conv")),
    ],
)
def test_a_grouped_convolution_equals_two_towers_side_by_side(name):
    layer = build(groups=2).get_layer(name)
    maps = np.random.default_rng(0).normal(size=(2, *layer.input.shape[1:])).astype("float32")

    found = layer(maps)

    halves = zip(
        np.split(maps, 2, axis=-1), np.split(layer.kernel.numpy(), 2, axis=-1), strict=True
    )
    towers = [keras.ops.conv(half, kernel, padding="same") for half, kernel in halves]
    expected = np.concatenate(towers, axis=-1) + layer.bias
    np.testing.assert_allclose(found, expected, atol=1e-5)  # order of summing


def test_in_two_towers_conv1_and_conv3_see_all_maps():
    model = outline(groups=2)

    assert {layer.name: layer.groups for layer in model.layers if layer.weights} == {
        "conv1_conv": 1,
        "conv2_conv": 2,
        "conv3_conv": 1,
        "conv4_conv": 2,
        "conv5_conv": 2,
    }


def test_it_normalizes_with_the_constants_of_the_paper():
    layer = outline().get_layer("conv2_norm")

    found = (layer.bias, 2 * layer.depth_radius + 1, layer.alpha, layer.beta)
    assert found == (2, 5, 1e-4, 0.75)  # k, n, alpha, beta


def test_without_normalization_it_has_the_same_weights():
    model = outline(normalization="none")

    assert not any(isinstance(layer, LocalResponseNormalization) for layer in model.layers)
    assert [w.path for w in model.weights] == [w.path for w in outline().weights]


def test_it_starts_from_the_weights_of_the_paper():
    keras.utils.set_random_seed(0)
    convolutions = [layer for layer in build().layers if layer.weights]

    for layer in convolutions:
        kernel = layer.kernel.numpy()
        assert kernel.std() == pytest.approx(0.01, rel=0.02)  # 34,848 draws: 0.4 % is usual
        assert abs(kernel.mean()) < 5e-4
    biases = [np.unique(layer.bias).tolist() for layer in convolutions]
    assert biases == [[0], [1], [0], [1], [1]]


def test_67_pixels_are_the_least():
    assert outline(67).output.shape == (None, 1, 1, 256)
    with pytest.raises(ValueError, match="output size would be zero or negative"):
        build(66)


@pytest.mark.parametrize("groups", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_it_comes_back_from_a_file_with_the_same_outputs(groups, tmp_path):
    model = build(groups=groups)
    model.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).normal(size=(1, 67, 67, 3)).astype("float32")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    np.testing.assert_array_equal(loaded(image), model(image))


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="normalization: expected 'lrn' or 'none', got 'batch'"):
        build(normalization="batch")
