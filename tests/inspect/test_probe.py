"""The experiments: what moves with the image, and which channels stay zero."""

import keras
import numpy as np
import pytest
from PIL import Image

from tl_toolkit.architectures.graph import build_base
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.catalog.lookup import find_architecture
from tl_toolkit.errors import DataError, WeightsError
from tl_toolkit.inspect.probe import probe_base, render_images
from tl_toolkit.transfer.weights import save_weights

ROUNDING = 1e-5  # float32 sums in another order


def probe(name, size, images=(), **options):
    return probe_base(find_architecture(name), {}, (size, size), images, **options)


@pytest.fixture(scope="module")
def tiny():
    return probe("vgg_tiny", 64)


@pytest.fixture(scope="module")
def small():
    return probe("vgg_tiny", 32)


def test_convolutions_are_equivariant_away_from_the_border(tiny):
    assert all(block.is_exact for block in tiny.blocks)
    assert [block.shift for block in tiny.blocks] == [2, 4, 8, 8]
    assert all(block.relative < ROUNDING for block in tiny.blocks)


def test_positions_that_padding_reaches_are_compared_but_not_called_exact(small):
    last = small.blocks[-1]

    assert not last.is_exact and "border" in last.reason
    assert last.relative > 100 * ROUNDING


def test_a_dense_block_has_nothing_to_shift():
    blocks = {block.block: block for block in probe("lenet5", 32).blocks}

    assert blocks["c1"].is_exact and blocks["c1"].relative < ROUNDING
    assert blocks["f6"].difference is None and "dense" in blocks["f6"].reason


@pytest.mark.slow  # builds and runs MobileNetV3
def test_a_squeeze_and_excitation_is_never_called_exact():
    blocks = {block.block: block for block in probe("mobilenet_v3_small", 64).blocks}

    assert blocks["block1"].is_exact
    assert not blocks["block2"].is_exact and "squeeze" in blocks["block2"].reason


def test_channels_that_a_bias_pushes_below_zero_are_counted_as_dead(tmp_path):
    record = find_architecture("vgg_tiny")
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, build_base(record, apply_pixel_rule(image, record.pixels), {}))
    for index, name in enumerate(["block1_conv1_bn", "block1_conv2_bn"]):
        beta = model.get_layer(name).beta
        bias = 1e4 ** (index + 1)  # far above what the layer before it leaves
        beta.assign(np.where(np.arange(beta.shape[0]) < 3 + index, -bias, bias))
    save_weights(model, tmp_path / "w.h5")

    blocks = probe("vgg_tiny", 32, weights=str(tmp_path / "w.h5")).blocks

    assert (blocks[0].dead, blocks[0].channels) == (3 + 4, 8 + 16)
    assert blocks[0].dead_share == pytest.approx(7 / 24)


def test_the_images_are_the_given_ones_or_said_to_be_drawn(tmp_path, tiny):
    Image.new("RGB", (40, 50), "white").save(tmp_path / "white.png")

    given = probe("lenet5", 32, [tmp_path / "white.png"])

    assert (given.images, given.num_images) == ("given", 1)
    assert (tiny.images, tiny.num_images) == ("drawn in code", 4)


def test_what_is_no_image_or_no_weight_file_is_refused(tmp_path):
    (tmp_path / "no.jpg").write_text("no image")

    with pytest.raises(DataError, match=r"no\.jpg"):
        probe("lenet5", 32, [tmp_path / "no.jpg"])
    with pytest.raises(WeightsError, match=r"no\.h5"):
        probe("lenet5", 32, weights=str(tmp_path / "no.h5"))


@pytest.mark.slow
def test_one_seed_gives_the_same_measurements_and_another_gives_others():
    first, again, other = (probe("vgg_tiny", 32, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert np.any(render_images(1, (8, 8), seed=1) != render_images(1, (8, 8), seed=2))
    assert first.blocks != other.blocks


def test_a_probe_runs_in_float32_whatever_the_callers_dtype_policy(small):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        under_policy = probe("vgg_tiny", 32)
    finally:
        keras.config.set_dtype_policy(before)

    assert any(block.difference for block in small.blocks)  # the border moves some values
    assert under_policy == small
