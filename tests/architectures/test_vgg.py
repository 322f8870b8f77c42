import keras
import pytest

from tests.architectures.networks import (
    assert_equal_outputs,
    build_model,
    copy_by_name,
    count,
    draw_images,
    run,
)
from tl_toolkit.architectures.vgg import build_vgg, build_vgg_tiny


def build(size=64, builder=build_vgg, channels=3, **arguments):
    return build_model(builder, size, channels=channels, **arguments)


def build_with_top(num_classes, **arguments):
    """The paper's network: 7 x 7 x 512 maps, two dense layers of 4096, the classifier."""
    base = build(224, **arguments)
    x = keras.layers.Flatten()(base.output)
    for units in (4096, 4096, num_classes):
        x = keras.layers.Dense(units)(x)
    return keras.Model(base.input, x)


def shapes(model):
    return {layer.name: layer.output.shape[1:] for layer in model.layers}


# Depth, batch norm: features, with a top of 1000 classes, not trainable (the moving statistics).
COUNTS = {
    (11, False): (9_220_480, 132_863_336, 0),
    (13, False): (9_404_992, 133_047_848, 0),
    (16, False): (14_714_688, 138_357_544, 0),
    (19, False): (20_024_384, 143_667_240, 0),
    (11, True): (9_231_488, 132_874_344, 5_504),
    (13, True): (9_416_768, 133_059_624, 5_888),
    (16, True): (14_731_584, 138_374_440, 8_448),
    (19, True): (20_046_400, 143_689_256, 11_008),
}


@pytest.mark.parametrize(
    ("depth", "batch_norm"),
    [
        pytest.param(*case, marks=[] if case in [(11, True), (16, False)] else pytest.mark.slow)
        for case in COUNTS
    ],
)
@pytest.mark.usefixtures("blank")
def test_it_has_the_parameters_of_the_reference(depth, batch_norm):
    features, with_top, frozen = COUNTS[depth, batch_norm]
    arguments = {"depth": depth, "batch_norm": batch_norm}

    assert count(build(**arguments)) == (features, features - frozen)
    assert count(build_with_top(1000, **arguments)) == (with_top, with_top - frozen)
    # 990 classes fewer, each with 4096 weights and a bias.
    ten = with_top - 990 * 4097
    assert count(build_with_top(10, **arguments)) == (ten, ten - frozen)


@pytest.mark.parametrize(
    ("batch_norm", "size", "sides"),
    [
        pytest.param(norm, *sizes, marks=[] if norm and sizes[0] == 193 else pytest.mark.slow)
        for norm in (False, True)
        for sizes in [(224, (224, 112, 56, 28, 14, 7)), (193, (193, 96, 48, 24, 12, 6))]
    ],
)
@pytest.mark.usefixtures("blank")
def test_each_block_halves_its_maps(size, sides, batch_norm):
    found = shapes(build(size, batch_norm=batch_norm))

    for block, maps in enumerate((64, 128, 256, 512, 512), start=1):
        before, after = sides[block - 1 : block + 1]
        assert found[f"block{block}_conv1"] == (before, before, maps)
        assert found[f"block{block}_pool"] == (after, after, maps)


@pytest.mark.parametrize(
    ("depth", "per_block"),
    [
        (11, (1, 1, 2, 2, 2)),
        (16, (2, 2, 3, 3, 3)),
        pytest.param(13, (2,) * 5, marks=pytest.mark.slow),
        pytest.param(19, (2, 2, 4, 4, 4), marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("blank")
def test_its_convolutions_and_the_three_dense_layers_make_its_depth(depth, per_block):
    names = [layer.name for layer in build(32, depth=depth).layers]

    found = [sum(name.startswith(f"block{block}_conv") for name in names) for block in range(1, 6)]

    assert tuple(found) == per_block
    assert sum(found) + 3 == depth


@pytest.mark.parametrize("depth", [16, pytest.param(19, marks=pytest.mark.slow)])
def test_with_its_weights_it_is_the_network_of_keras_applications(depth):
    keras.utils.set_random_seed(0)
    twin = getattr(keras.applications, f"VGG{depth}")(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    ours = build(depth=depth)
    copy_by_name(twin, ours)

    expected = run(twin, draw_images())
    found = run(ours, draw_images())

    assert_equal_outputs(found, expected)
    assert [layer.name for layer in ours.layers[1:]] == [layer.name for layer in twin.layers[1:]]


@pytest.mark.usefixtures("blank")
def test_batch_norm_stands_between_a_convolution_and_its_relu():
    names = [layer.name for layer in build(32, depth=11, batch_norm=True).layers]

    assert names[1:5] == ["block1_conv1", "block1_conv1_bn", "block1_conv1_relu", "block1_pool"]


@pytest.mark.usefixtures("blank")
def test_batch_norm_leaves_no_activation_in_the_convolutions():
    model = build(32, batch_norm=True)

    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]

    assert {layer.activation.__name__ for layer in convolutions} == {"linear"}
    assert all(layer.use_bias for layer in convolutions)


@pytest.mark.usefixtures("blank")
def test_32_pixels_are_the_smallest_image():
    assert build(32).output.shape == (None, 1, 1, 512)
    with pytest.raises(ValueError, match="size would be zero or negative"):
        build(31)


@pytest.mark.parametrize(
    "arguments",
    [{"depth": 11}, pytest.param({"depth": 19, "batch_norm": True}, marks=pytest.mark.slow)],
)
@pytest.mark.usefixtures("blank")
def test_a_second_build_has_the_same_names(arguments):
    first, second = build(32, **arguments), build(32, **arguments)

    assert [op.name for op in first.operations] == [op.name for op in second.operations]


def test_the_tiny_one_has_its_parameters_in_grey():
    model = build(32, build_vgg_tiny, channels=1)

    assert model.count_params() == 83_496
    assert model.output.shape == (None, 4, 4, 96)
