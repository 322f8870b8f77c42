"""Bases of other channels than RGB: widened weights, and the range that bands are brought to."""

import json

import keras
import numpy as np
import pytest

from tests.models import build_transfer
from tl_toolkit.architectures.graph import layer_variables
from tl_toolkit.catalog.bands import BandStatistics, build_band_rule
from tl_toolkit.catalog.lookup import ARCHITECTURES, PIXEL_RULES
from tl_toolkit.catalog.weight_files import inspect_weights
from tl_toolkit.catalog.weight_matching import describe_misfit
from tl_toolkit.transfer.weights import save_weights
from tl_toolkit.transfer.widening import widen_kernel

RAW = PIXEL_RULES["raw"]
SMALL = {"arguments": {"alpha": 0.25}}
MEAN, DEVIATION = (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3  # of ImageNet
FAMILIES = [
    "alexnet", "densenet121", "vgg16", "resnet50", "unet", "mobilenet_v2", "mobilenet_v3_small",
    "efficientnet_b0", "efficientnet_v2_b0", "efficientnet_v2_s", "resnet50_v2", "convnext_tiny",
    "inception_v3", "xception", "nasnet_mobile", "lenet5_1998", "densenet40",
]  # fmt: skip


def base_layers(transfer):
    return [layer for part in transfer.parts[:-1] for layer in part.layers]


def save_base(path, name="mobilenet", **settings):
    """A file of weights of RGB, and the base that it is of."""
    transfer = build_transfer(name, seed=5, **settings)
    save_weights(base_layers(transfer), path)
    return transfer


def first_convolution(transfer):
    """The first layer with weights, and what enters it: pixels as they are."""
    layer = next(layer for layer in base_layers(transfer) if layer.weights)
    return layer, keras.Model(transfer.image, layer.output)


def test_widened_kernel_is_the_mean_of_the_three_times_three_by_the_channels():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    mean = (kernel[:, :, 0] + kernel[:, :, 1] + kernel[:, :, 2]) / 3

    for channels in (1, 2, 4, 13):
        widened = widen_kernel(kernel, channels)

        assert widened.shape == (3, 3, channels, 8)
        for band in range(channels):
            np.testing.assert_allclose(widened[:, :, band], mean * 3 / channels, atol=1e-6)


@pytest.mark.slow
def test_equal_bands_get_the_response_that_grey_gets_from_the_base_of_rgb(tmp_path):
    rgb = save_base(tmp_path / "rgb.h5", **SMALL, pixels=RAW)
    grey = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 1)).astype(np.float32)
    _, respond = first_convolution(rgb)
    expected = respond(np.repeat(grey, 3, axis=-1)).numpy()

    for channels in (1, 4):
        widened = build_transfer(
            "mobilenet", **SMALL, channels=channels, pixels=RAW, weights_file=tmp_path / "rgb.h5"
        )
        _, respond = first_convolution(widened)

        assert widened.weights.widened == "conv1"
        assert np.abs(expected).max() > 0.1
        response = respond(np.repeat(grey, channels, axis=-1)).numpy()
        np.testing.assert_allclose(response, expected, atol=1e-5)
        for ours, theirs in zip(base_layers(widened)[1:], base_layers(rgb)[1:], strict=True):
            for mine, own in zip(layer_variables(ours), layer_variables(theirs), strict=True):
                np.testing.assert_array_equal(mine.variable, own.variable)


def test_weights_of_as_many_channels_are_loaded_as_they_are(tmp_path):
    own = save_base(tmp_path / "four.h5", **SMALL, channels=4, pixels=RAW)
    loaded = build_transfer(
        "mobilenet", **SMALL, channels=4, pixels=RAW, weights_file=tmp_path / "four.h5"
    )
    record, info = ARCHITECTURES["mobilenet"], inspect_weights(tmp_path / "four.h5")

    assert loaded.weights.widened == ""
    kernels = [first_convolution(it)[0].kernel.numpy() for it in (own, loaded)]
    np.testing.assert_array_equal(*kernels)
    assert describe_misfit(record, SMALL["arguments"], info, channels=4) is None
    assert "conv1" in describe_misfit(record, SMALL["arguments"], info, channels=5)
    assert "conv1" in describe_misfit(record, SMALL["arguments"], info)


@pytest.mark.parametrize(
    "name, mean, deviation",
    [
        ("mobilenet", MEAN * 2 - 1, DEVIATION * 2),
        ("resnet50", MEAN * 255 - (103.939 + 116.779 + 123.68) / 3, DEVIATION * 255),
        ("densenet121", 0.0, 1.0),
        ("efficientnet_b0", 0.0, 1.0),
        ("convnext_tiny", 0.0, 1.0),
    ],
)
def test_bands_get_the_mean_and_deviation_that_photos_have_where_they_enter(name, mean, deviation):
    statistics = BandStatistics((3000.0, 0.2), (500.0, 0.0), 10)
    record = ARCHITECTURES[name]

    rule = build_band_rule(statistics, record, is_random=False)
    plain = build_band_rule(statistics, record, is_random=True)

    def enter(rule, *bands):
        return np.array(bands) * rule.scale + np.array(rule.offset)

    np.testing.assert_allclose(enter(rule, 3000, 0.2), mean, atol=1e-9)
    np.testing.assert_allclose(enter(rule, 3500, 0.2)[0] - enter(rule, 3000, 0.2)[0], deviation)
    np.testing.assert_allclose(enter(plain, 2500, 0.2), [-1, 0], atol=1e-9)


def test_noise_of_bands_lies_within_two_deviations():
    statistics = BandStatistics((3000.0, 0.2), (500.0, 0.01), 10)
    rule = build_band_rule(statistics, ARCHITECTURES["lenet5"], is_random=True)
    transfer = build_transfer("lenet5", channels=2, pixels=rule)

    sampled = transfer.sample_images(np.random.default_rng(0), 4)

    assert sampled.dtype == np.float32
    for band, (mean, deviation) in enumerate([(3000, 500), (0.2, 0.01)]):
        away = np.abs(sampled[..., band] - mean) / deviation
        assert 1.9 < away.max() < 2.001


@pytest.mark.slow
@pytest.mark.turns
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_widened(name, tmp_path):
    record = ARCHITECTURES[name]
    side = max(record.minimum_size, 32)
    side += -(side - record.minimum_size) % record.size_step
    size = (side, side)
    save_base(tmp_path / "rgb.h5", name, size=size)

    widened = build_transfer(
        name, size=size, channels=5, pixels=RAW, weights_file=tmp_path / "rgb.h5"
    )

    layer = next(layer for layer in base_layers(widened) if layer.weights)
    assert widened.weights.widened == layer.name
    kernel = layer_variables(layer)[0].variable.numpy()
    np.testing.assert_array_equal(kernel[:, :, 0], kernel[:, :, 4])
    names = [layer.name for layer in widened.model.layers]
    assert not [it for it in names if "normalization" in it or "rescaling" in it]
    assert json.loads(widened.model.to_json())["config"]
