"""Dense layers of a file that a base has as convolutions: PixelNet's conv6 and conv7."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tests.architectures.networks import assert_equal_outputs, build_model, draw_images, fill, run
from tl_toolkit.architectures.pixelnet import build_pixelnet
from tl_toolkit.catalog.lookup import ARCHITECTURES, find_weight_file, read_variants
from tl_toolkit.catalog.weight_files import SavedWeight, WeightsInfo, inspect_weights
from tl_toolkit.catalog.weight_matching import describe_misfit, match_layers
from tl_toolkit.errors import WeightsError
from tl_toolkit.transfer.weights import load_weights, save_weights

PIXELNET = ARCHITECTURES["pixelnet"]
SIDE = 3


def build_dense_net():
    """A convolution to 3 x 3 maps, two dense layers on all of them, a classifier."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="block1_conv1")(
        inputs
    )
    x = layers.Flatten()(x)
    x = layers.Dense(8, activation="relu", name="fc1")(x)
    x = layers.Dense(5, activation="relu", name="fc2")(x)
    model = keras.Model(inputs, layers.Dense(2, name="predictions")(x))
    fill(model)
    return model


def build_convolutional_net(padding="same", *, size=6, height=SIDE):
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="block1_conv1")(
        inputs
    )
    x = layers.Conv2D(8, (height, SIDE), padding=padding, activation="relu", name="fc1")(x)
    x = layers.Conv2D(5, 1, activation="relu", name="fc2")(x)
    return keras.Model(inputs, x)


@pytest.fixture
def saved(tmp_path):
    """A dense network and its file."""
    source = build_dense_net()
    save_weights(source, tmp_path / "x.h5")
    return source, tmp_path / "x.h5"


def answers_of(model, layer, images):
    return run(keras.Model(model.input, model.get_layer(layer).output), images)


def test_dense_kernels_load_into_convolutions_that_answer_alike(saved):
    source, path = saved
    images = draw_images(6)
    whole, padded = build_convolutional_net("valid"), build_convolutional_net("same")

    loaded = load_weights(whole, path)
    load_weights(padded, path)

    expected = answers_of(source, "fc2", images)
    assert_equal_outputs(run(whole, images)[:, 0, 0], expected)
    # Only in the middle does a padded convolution see the map that a dense layer sees.
    assert_equal_outputs(run(padded, images)[:, 1, 1], expected)
    assert (loaded.by, loaded.num_tensors, loaded.left_out) == ("name", 6, ("predictions",))


def test_a_saved_convolution_loads_again_as_it_is(saved, tmp_path):
    _, path = saved
    source, target = build_convolutional_net(), build_convolutional_net()
    load_weights(source, path)

    save_weights(source, tmp_path / "y.h5")
    load_weights(target, tmp_path / "y.h5")

    assert all(map(np.array_equal, target.get_weights(), source.get_weights()))


def test_a_dense_kernel_of_another_number_of_inputs_is_refused(saved):
    _, path = saved
    target = build_convolutional_net("valid", height=2)
    before = target.get_weights()

    with pytest.raises(
        WeightsError, match=r"fc1 has 2x3x4x8 \+ 8 in the network and 36x8 \+ 8 in the file"
    ):
        load_weights(target, path)

    assert all(map(np.array_equal, target.get_weights(), before))


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        ((7, 7, 512, 4096), (25088, 4096), True),
        ((1, 1, 4096, 4096), (4096, 4096), True),
        ((7, 7, 512, 4096), (25088, 4095), False),
        ((7, 7, 512, 4096), (4096, 25088), False),
        ((1, 1, 16, 8), (2, 2, 4, 8), False),  # two convolutions of as many numbers
        ((16, 8), (2, 2, 4, 8), False),  # a dense layer does not take a convolution's kernel
    ],
)
@pytest.mark.parametrize("name", ["fc1/kernel", ""])
def test_a_kernel_fits_by_its_shape_alone_or_with_its_name(name, ours, theirs, fits):
    bias = (ours[-1],)
    kernels = SavedWeight("fc1/kernel:0", theirs, "k"), SavedWeight("fc1/bias:0", bias, "b")
    network = {"fc1": [(name, ours), (name and "fc1/bias", bias)]}

    match = match_layers(network, WeightsInfo(Path("x.h5"), "layers", {"fc1": kernels}))

    assert match.fits == fits


def vgg16_file(*, top):
    """What the header of VGG16's published file tells, with its top or without."""
    _, shapes = read_variants("vgg16")[0]
    dense = {"fc1": (25088, 4096), "fc2": (4096, 4096), "predictions": (4096, 1000)} if top else {}
    shapes = shapes | {name: (shape, shape[1:]) for name, shape in dense.items()}
    saved = {
        layer: tuple(
            SavedWeight(f"{layer}/w{place}:0", shape, f"{layer}/{place}")
            for place, shape in enumerate(members)
        )
        for layer, members in shapes.items()
    }
    return WeightsInfo(Path("x.h5"), "layers", saved)


@pytest.mark.parametrize("name", ["pixelnet", "pixelnet_c12345"])
def test_the_file_of_vgg16_with_its_top_fits_by_its_header(name):
    assert describe_misfit(ARCHITECTURES[name], {}, vgg16_file(top=True)) is None


def test_without_its_top_it_fits_only_the_base_without_conv7():
    info = vgg16_file(top=False)

    assert describe_misfit(ARCHITECTURES["pixelnet_c12345"], {}, info) is None
    misfit = describe_misfit(PIXELNET, {}, info)
    assert misfit == "holds the weights of vgg16, not of pixelnet: the file has no fc1, fc2"


def test_the_published_file_is_the_one_that_has_the_layers():
    names = {
        name: find_weight_file(ARCHITECTURES[name], {}, (224, 224)).name
        for name in ("pixelnet", "pixelnet_c12345")
    }

    assert names == {
        "pixelnet": "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "pixelnet_c12345": "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    }


@pytest.mark.slow
def test_vgg16_of_keras_with_its_top_becomes_conv6_and_conv7(tmp_path):
    keras.utils.set_random_seed(0)
    source = keras.applications.VGG16(weights=None)
    images = draw_images(224)[:1]
    expected = answers_of(source, "fc2", images)
    save_weights(source, tmp_path / "x.h5")
    del source
    pixelnet = build_model(build_pixelnet, 224)

    loaded = load_weights(pixelnet, tmp_path / "x.h5")

    middle = run(pixelnet, images)[:, 3, 3]
    last = answers_of(pixelnet, "block5_pool", images)
    for name in ("fc1", "fc2"):
        layer = pixelnet.get_layer(name)
        last = keras.ops.relu(keras.ops.conv(last, layer.kernel, padding="valid") + layer.bias)
    assert last.shape == (1, 1, 1, 4096)
    assert_equal_outputs(keras.ops.convert_to_numpy(last)[:, 0, 0], expected)
    assert_equal_outputs(middle, expected)
    assert loaded.left_out == ("predictions",)
    assert describe_misfit(PIXELNET, {}, inspect_weights(loaded.path)) is None
    (tmp_path / "x.h5").unlink()  # half a gigabyte
