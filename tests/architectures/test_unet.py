import keras
import numpy as np
import pytest

from tests.architectures.networks import (
    assert_equal_outputs,
    build_model,
    build_outline,
    count,
    run,
)
from tl_toolkit.architectures.unet import build_unet


def build(size=64, channels=1, **arguments):
    return build_model(build_unet, size, channels=channels, **arguments)


def add_classifier(base, num_classes):
    outputs = keras.layers.Conv2D(num_classes, 1)(base.output)
    return keras.Model(base.input, outputs)


COUNTS = {
    (1, 2): 31_030_658,
    (3, 2): 31_031_810,
    (1, 1): 31_030_593,
    (3, 1): 31_031_745,
    (3, 21): 31_033_045,
}
QUICK = {("same", 1, 2), ("valid", 3, 21)}


@pytest.mark.parametrize(
    ("channels", "classes", "parameters", "padding", "size"),
    [
        pytest.param(
            *which, total, padding, size,
            marks=[] if (padding, *which) in QUICK else pytest.mark.slow,
        )
        for which, total in COUNTS.items()
        for padding, size in [("same", 64), ("valid", 188)]
    ],
)  # fmt: skip
@pytest.mark.usefixtures("blank")
def test_with_a_classifier_it_has_the_parameters_of_the_reference(
    channels, classes, parameters, padding, size
):
    base = build(size, channels, padding=padding)

    model = add_classifier(base, classes)

    assert count(model) == (parameters, parameters)
    without = parameters - 65 * classes
    assert count(base) == (without, without)


@pytest.mark.usefixtures("blank")
def test_batch_norm_adds_four_weights_a_map_of_which_half_are_trained():
    plain, normalized = count(build()), count(build(batch_norm=True))

    assert (normalized[0] - plain[0], normalized[1] - plain[1]) == (23_552, 11_776)


@pytest.mark.usefixtures("blank")
def test_it_has_23_convolutions_with_the_classifier():
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)

    names = [layer.name for layer in build().layers if isinstance(layer, kinds)]

    assert len(names) + 1 == 23
    assert sum(name.endswith("_conv") for name in names) == 4


# Level: sides after its two convolutions going down, cut from each side of the skip, side and maps
# after joining it, sides after the two convolutions going up; its maps.
PAPER = {
    1: ((570, 568), 88, (392, 128), (390, 388), 64),
    2: ((282, 280), 40, (200, 256), (198, 196), 128),
    3: ((138, 136), 16, (104, 512), (102, 100), 256),
    4: ((66, 64), 4, (56, 1024), (54, 52), 512),
}


@pytest.mark.parametrize("level", PAPER)
def test_572_pixels_give_the_maps_of_the_paper(level):
    down, cut, joined, up, maps = PAPER[level]
    model = build_outline(build_unet, 572, channels=1, padding="valid")

    def shape(name):
        return model.get_layer(name).output.shape[2:]

    assert [shape(f"down{level}_conv{index}_relu") for index in (1, 2)] == [
        (side, maps) for side in down
    ]
    assert model.get_layer(f"up{level}_crop").cropping == ((cut, cut), (cut, cut))
    assert shape(f"up{level}_conv") == (joined[0], maps)
    assert shape(f"up{level}_concat") == joined
    assert [shape(f"up{level}_conv{index}_relu") for index in (1, 2)] == [
        (side, maps) for side in up
    ]
    assert [shape(f"bottom_conv{index}") for index in (1, 2)] == [(30, 1024), (28, 1024)]
    assert model.output.shape == (None, 388, 388, 64)


@pytest.mark.parametrize("size", [16, 64, 208])
@pytest.mark.usefixtures("blank")
def test_same_padding_keeps_the_size_and_cuts_nothing(size):
    model = build(size, filters=4)

    assert model.output.shape == (None, size, size, 4)
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Cropping2D)]


@pytest.mark.usefixtures("blank")
def test_sides_may_differ():
    inputs = keras.Input((32, 64, 3))

    assert build_unet(inputs, filters=2).shape == (None, 32, 64, 2)


@pytest.mark.usefixtures("blank")
def test_188_pixels_are_the_smallest_image_without_padding():
    assert build(188, padding="valid", filters=2).output.shape == (None, 4, 4, 2)
    with pytest.raises(ValueError, match="size would be zero or negative"):
        build(172, padding="valid", filters=2)


@pytest.mark.slow
def test_tiles_predict_what_the_whole_image_does():
    keras.utils.set_random_seed(0)
    image = np.random.default_rng(0).normal(size=(1, 52, 52, 1)).astype("float32")
    # Mirrored where the image has no neighbours: 92 pixels on each side, as (572 - 388) / 2.
    wide = np.pad(image, ((0, 0), (92, 92), (92, 92), (0, 0)), mode="reflect")
    whole = build(236, padding="valid", filters=2)
    tile = build(204, padding="valid", filters=2)
    tile.set_weights(whole.get_weights())

    expected = run(whole, wide)
    # Steps of 16, the product of the poolings, keep their windows on the same pixels.
    found = np.zeros_like(expected)
    for row in range(0, 33, 16):
        for column in range(0, 33, 16):
            part = wide[:, row : row + 204, column : column + 204]
            found[:, row : row + 20, column : column + 20] = run(tile, part)

    assert expected.shape == (1, 52, 52, 2)
    assert_equal_outputs(found, expected)


def test_a_skip_is_the_centre_of_the_map_before_its_pooling():
    model = build(188, padding="valid", filters=2)
    skip, _ = model.get_layer("up1_concat").input
    views = keras.Model(model.input, [model.get_layer("down1_conv2_relu").output, skip])
    image = np.random.default_rng(0).normal(size=(1, 188, 188, 1)).astype("float32")

    before, after = map(keras.ops.convert_to_numpy, views(image))

    np.testing.assert_array_equal(after, before[:, 88:-88, 88:-88])


@pytest.mark.usefixtures("blank")
def test_dropout_stands_on_the_last_skip_and_on_the_bottom():
    model = build(16, filters=2, dropout=0.3)

    drops = {
        layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)
    }
    skip, _ = model.get_layer("up4_concat").input

    assert drops == {"down4_drop": 0.3, "bottom_drop": 0.3}
    assert model.get_layer("down4_pool").input is skip is model.get_layer("down4_drop").output
    assert model.get_layer("up4_conv").input is model.get_layer("bottom_drop").output


@pytest.mark.usefixtures("blank")
def test_each_level_keeps_the_largest_of_four_pixels():
    model = build(16, filters=2)

    pools = [model.get_layer(f"down{level}_pool") for level in (1, 2, 3, 4)]

    assert {(type(pool), pool.pool_size) for pool in pools} == {(keras.layers.MaxPooling2D, (2, 2))}


@pytest.mark.usefixtures("blank")
def test_without_dropout_there_is_no_such_layer():
    names = [layer.name for layer in build(16, filters=2, dropout=0.0).layers]

    assert not [name for name in names if "drop" in name]


@pytest.mark.usefixtures("blank")
def test_every_layer_bears_the_name_of_its_level():
    model = build(188, padding="valid", filters=2, batch_norm=True)
    levels = [f"{path}{level}" for path in ("down", "up") for level in (1, 2, 3, 4)] + ["bottom"]

    found = {layer.name.split("_")[0] for layer in model.layers[1:]}

    assert found == set(levels)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.usefixtures("blank")
def test_a_relu_ends_each_convolution_of_three_by_three(batch_norm):
    model = build(16, filters=2, batch_norm=batch_norm)
    last = "conv2_bn" if batch_norm else "conv2"

    assert model.get_layer("up1_conv2_relu").input is model.get_layer(f"up1_{last}").output
    assert sum(isinstance(layer, keras.layers.ReLU) for layer in model.layers) == 18


def test_initial_weights_deviate_by_the_root_of_two_over_fan_in():
    keras.utils.set_random_seed(0)
    model = build(16, filters=16)

    for layer in model.layers:
        if not isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose)):
            continue
        kernel = layer.kernel.numpy()
        # A pixel of an up-convolution reads one pixel, one of a convolution nine.
        is_up = isinstance(layer, keras.layers.Conv2DTranspose)
        fan_in = layer.input.shape[-1] * (1 if is_up else 9)
        # Five deviations of the estimate from so many draws.
        tolerance = 5 / np.sqrt(2 * kernel.size)
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=tolerance), layer.name


@pytest.mark.usefixtures("blank")
def test_a_second_build_has_the_same_names():
    arguments = {"padding": "valid", "filters": 2, "batch_norm": True}

    first, second = build(188, **arguments), build(188, **arguments)

    assert [op.name for op in first.operations] == [op.name for op in second.operations]
