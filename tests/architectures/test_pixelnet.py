import keras
import numpy as np
import pytest

from tests.architectures.networks import assert_equal_outputs, build_model, count, fill, run
from tests.models import build_transfer, layers_of
from tl_toolkit.architectures.graph import build_base
from tl_toolkit.architectures.pixelnet import build_pixelnet
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.architectures.taps import find_stride, find_taps
from tl_toolkit.architectures.vgg import build_vgg
from tl_toolkit.catalog.lookup import check_image_size, find_architecture, read_variants
from tl_toolkit.tasks.dense.heads import build_pixel_head
from tl_toolkit.tasks.dense.settings import PixelSettings
from tl_toolkit.tasks.segmentation.task import Segmentation

SLOW = pytest.mark.slow
CONV6, CONV7 = 102_764_544, 16_781_312
MLP = layers_of(find_architecture("pixelnet").head)


def build(size=224, **arguments):
    return build_model(build_pixelnet, size, **arguments)


def taps_of(name, base):
    return find_taps(find_architecture(name), base.input, base.output)


def build_whole(name, *, head, units, size=224, normalize=False, **arguments):
    """The base with its hypercolumn and predictor."""
    base = build(size, conv7=name == "pixelnet", **arguments)
    pixels = keras.Input((None, 2))
    outputs = build_pixel_head(
        taps_of(name, base), base.input, pixels, head, units=units, activation="softmax",
        normalize=normalize,
    )  # fmt: skip
    return keras.Model([base.input, pixels], outputs)


def normalizations(model):
    kind = keras.layers.BatchNormalization
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    ("units", "parameters"),
    [
        (21, 173_938_517),
        *(
            pytest.param(*case, marks=SLOW)
            for case in [(3, 173_864_771), (1, 173_856_577), (60, 174_098_300)]
        ),
    ],
)
@pytest.mark.usefixtures("blank")
def test_with_its_predictor_it_has_the_parameters_of_the_reference(units, parameters):
    model = build_whole("pixelnet", head=MLP, units=units)

    assert count(model) == (parameters, parameters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [pytest.param("pixelnet", 116_949, marks=SLOW), ("pixelnet_c12345", 30_933)],
)
@pytest.mark.usefixtures("blank")
def test_a_head_without_hidden_layers_is_the_linear_predictor(name, parameters):
    model = build_whole(name, head=layers_of(), units=21)

    assert model.get_layer("predictions").count_params() == parameters
    base = find_architecture(name).parameters
    assert count(model) == (base + parameters, base + parameters)


@pytest.mark.parametrize(
    ("name", "channels"),
    [pytest.param("pixelnet", 5_568, marks=SLOW), ("pixelnet_c12345", 1_472)],
)
@pytest.mark.usefixtures("blank")
def test_the_linear_predictor_may_normalize_each_map_without_scale_and_shift(name, channels):
    model = build_whole(name, head=layers_of(), units=21, normalize=True)

    found = normalizations(model)
    weights = [weight.name for layer in found for weight in layer.weights]
    assert len(found) == len(find_architecture(name).tap_units)
    assert set(weights) == {"moving_mean", "moving_variance"}
    assert sum(layer.count_params() for layer in found) == 2 * channels


@pytest.mark.usefixtures("blank")
def test_it_is_vgg16s_convolutions_with_conv6_and_conv7_behind_them():
    base = build()

    assert base.get_layer("fc1").count_params() == CONV6
    assert base.get_layer("fc2").count_params() == CONV7
    assert count(base) == (14_714_688 + CONV6 + CONV7,) * 2
    assert count(build(conv7=False)) == (14_714_688,) * 2
    vgg = build_model(build_vgg, 224)
    assert [layer.name for layer in base.layers] == [layer.name for layer in vgg.layers] + [
        "fc1", "fc2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "channels", "batch_norm"),
    [
        ("pixelnet", (64, 128, 256, 512, 512, 4096), False),
        pytest.param("pixelnet", (64, 128, 256, 512, 512, 4096), True, marks=SLOW),
        pytest.param("pixelnet_c12345", (64, 128, 256, 512, 512), False, marks=SLOW),
        ("pixelnet_c12345", (64, 128, 256, 512, 512), True),
    ],
)
@pytest.mark.usefixtures("blank")
def test_its_hypercolumn_is_the_maps_of_the_paper(name, channels, batch_norm):
    base = build(conv7=name == "pixelnet", batch_norm=batch_norm)

    taps = taps_of(name, base)

    assert tuple(tap.shape[-1] for tap in taps) == channels
    assert sum(channels) == {"pixelnet": 5_568, "pixelnet_c12345": 1_472}[name]
    strides = [find_stride(base.input, tap) for tap in taps]
    assert strides == [1, 2, 4, 8, 16, 32][: len(taps)]
    layers = ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3", "fc2"]
    ends = [f"{layer}_relu" if batch_norm else layer for layer in layers]
    found = [tap._keras_history.operation.name for tap in taps]
    assert found == ends[: len(taps)]
    if not batch_norm:
        assert tuple(found) == find_architecture(name).taps


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
def test_what_is_read_has_gone_through_the_relu(batch_norm):
    base = build(32, conv7=False, batch_norm=batch_norm)
    fill(base)
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")

    taps = keras.Model(base.input, taps_of("pixelnet_c12345", base))(image, training=False)

    for tap in map(keras.ops.convert_to_numpy, taps):
        assert tap.min() == 0
        assert 0.05 < (tap > 0).mean() < 0.95


@pytest.mark.parametrize(("conv7", "normalized"), [(True, 15), pytest.param(False, 13, marks=SLOW)])
@pytest.mark.usefixtures("blank")
def test_the_form_trained_from_scratch_normalizes_each_convolution_without_scale_and_shift(
    conv7, normalized
):
    base = build(conv7=conv7, batch_norm=True)

    found = normalizations(base)

    assert len(found) == normalized
    assert {weight.name for layer in found for weight in layer.weights} == {
        "moving_mean",
        "moving_variance",
    }
    maps = 4_224 + (8_192 if conv7 else 0)
    plain = count(build(conv7=conv7))[0]
    assert count(base) == (plain + 2 * maps, plain)


@pytest.mark.usefixtures("blank")
def test_batch_norm_stands_between_a_convolution_and_its_relu():
    model = build(batch_norm=True)

    names = [layer.name for layer in model.layers]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]

    assert names[-6:] == ["fc1", "fc1_bn", "fc1_relu", "fc2", "fc2_bn", "fc2_relu"]
    assert {layer.activation.__name__ for layer in convolutions} == {"linear"}


@pytest.mark.usefixtures("blank")
def test_dropout_falls_on_conv6_and_on_the_conv7_that_is_read():
    base = build(dropout=0.95)

    names = [layer.name for layer in base.layers[-4:]]

    assert names == ["fc1", "fc1_drop", "fc2", "fc2_drop"]
    assert base.get_layer("fc2_drop").rate == 0.95
    assert taps_of("pixelnet", base)[-1] is base.output


def test_with_the_weights_of_vgg16_its_maps_are_those_of_vgg16():
    keras.utils.set_random_seed(0)
    vgg = build_model(build_vgg, 64)
    ours = build(64, conv7=False)
    for layer in ours.layers:
        layer.set_weights(vgg.get_layer(layer.name).get_weights())
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")

    before_pooling = keras.Model(vgg.input, vgg.get_layer("block5_conv3").output)

    assert_equal_outputs(run(ours, image), run(before_pooling, image))


def assemble_pixels(base, head, *, normalize=False, **arguments):
    classes = [f"class{n}" for n in range(21)]
    task = Segmentation(classes, PixelSettings(normalize=normalize), head=head)
    return build_transfer(base, task=task, arguments=arguments)


@pytest.mark.slow
def test_a_recipe_reaches_the_linear_model_from_scratch_without_conv7():
    transfer = assemble_pixels("pixelnet_c12345", layers_of(), batch_norm=True)

    assert len(normalizations(transfer.model)) == 13
    assert transfer.model.count_params() == 14_714_688 + 2 * 4_224 + 30_933
    image, pixels = np.zeros((1, 32, 32, 3), "float32"), np.zeros((1, 7, 2), "float32")
    assert transfer.model([image, pixels]).shape == (1, 7, 21)


@pytest.mark.slow
def test_a_recipe_reaches_the_linear_model_that_normalizes_its_maps():
    transfer = assemble_pixels("pixelnet_c12345", layers_of(), normalize=True)

    assert len(normalizations(transfer.model)) == 5
    assert transfer.model.count_params() == 14_714_688 + 2 * 1_472 + 30_933


@pytest.mark.slow  # draws 700 MB of weights
def test_a_recipe_reaches_the_whole_model_of_the_paper():
    transfer = assemble_pixels("pixelnet", MLP)

    assert transfer.model.count_params() == 173_938_517
    dropouts = [layer.rate for layer in transfer.parts[-1].layers if hasattr(layer, "rate")]
    assert dropouts == [0.5, 0.5]
    assert [part.name for part in transfer.parts[-3:]] == ["conv6", "conv7", "head"]


@pytest.mark.parametrize("name", ["pixelnet", "pixelnet_c12345"])
def test_the_catalog_knows_its_form_from_scratch(name):
    (_, plain), (arguments, normalized) = read_variants(name)

    assert arguments == {"batch_norm": True}
    added = normalized.keys() - plain.keys()
    assert added == {f"{layer}_bn" for layer in plain}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=[] if (name, size) == ("lenet5", 96) else SLOW)
        for name in ("lenet5", "inception_v3", "inception_resnet_v2")
        for size in (96, 160, 320)
    ],
)
@pytest.mark.usefixtures("blank")
def test_maps_without_padding_are_not_read_even_where_sizes_divide(name, size):
    architecture = find_architecture(name)
    assert not architecture.taps
    assert not check_image_size(architecture, (size, size))
    image = keras.Input((size, size, 3))
    features = build_base(architecture, apply_pixel_rule(image, architecture.pixels), {})

    assert find_taps(architecture, image, features) == ()
