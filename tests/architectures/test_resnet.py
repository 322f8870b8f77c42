import sys

import keras
import numpy as np
import pytest

from tests.architectures.networks import (
    add_top,
    assert_equal_outputs,
    build_model,
    build_outline,
    copy_by_name,
    count,
    draw_images,
    fill,
    run,
)
from tl_toolkit.architectures.resnet import (
    build_cifar_resnet,
    build_resnet,
    convolution_block,
    identity_block,
)

SLOW = pytest.mark.slow


def build(size=64, builder=build_resnet, **arguments):
    return build_model(builder, size, **arguments)


def outline(size=64, builder=build_resnet, **arguments):
    return build_outline(builder, size, **arguments)


# Depth, biases: features' total and trainable, with a top of 1000 classes total and trainable.
COUNTS = {
    (18, False): (11_186_112, 11_176_512, 11_699_112, 11_689_512),
    (34, False): (21_301_696, 21_284_672, 21_814_696, 21_797_672),
    (50, False): (23_561_152, 23_508_032, 25_610_152, 25_557_032),
    (101, False): (42_605_504, 42_500_160, 44_654_504, 44_549_160),
    (152, False): (58_295_232, 58_143_808, 60_344_232, 60_192_808),
    (18, True): (11_703_912 - 513_000, 11_694_312 - 513_000, 11_703_912, 11_694_312),
    (34, True): (21_823_208 - 513_000, 21_806_184 - 513_000, 21_823_208, 21_806_184),
    (50, True): (23_587_712, 23_534_592, 25_636_712, 25_583_592),
    (101, True): (42_658_176, 42_552_832, 44_707_176, 44_601_832),
    (152, True): (58_370_944, 58_219_520, 60_419_944, 60_268_520),
}


@pytest.mark.parametrize(
    ("depth", "conv_bias"),
    [
        pytest.param(*case, marks=[] if case in [(18, False), (50, True)] else [SLOW])
        for case in COUNTS
    ],
)
def test_it_has_the_parameters_of_the_reference(depth, conv_bias):
    total, trainable, top_total, top_trainable = COUNTS[depth, conv_bias]
    base = outline(depth=depth, conv_bias=conv_bias)

    assert count(base) == (total, trainable)
    assert count(add_top(base, 1000)) == (top_total, top_trainable)
    # 990 classes fewer, each with a weight a map and a bias.
    less = 990 * (base.output.shape[-1] + 1)
    assert count(add_top(base, 10)) == (top_total - less, top_trainable - less)


@pytest.mark.parametrize(
    ("depth", "trainable"),
    [
        (20, 269_722),
        pytest.param(32, 464_154, marks=SLOW),
        pytest.param(44, 658_586, marks=SLOW),
        pytest.param(56, 853_018, marks=SLOW),
        pytest.param(110, 1_727_962, marks=SLOW),
    ],
)
@pytest.mark.usefixtures("blank")
def test_that_for_cifar_has_the_parameters_of_the_reference(depth, trainable):
    base = build(32, build_cifar_resnet, depth=depth)

    assert count(base)[1] == trainable - 650  # 64 x 10 weights and 10 biases
    assert count(add_top(base, 10))[1] == trainable
    assert count(add_top(base, 1000))[1] == trainable + 990 * 65


@SLOW
@pytest.mark.usefixtures("blank")
def test_that_of_1202_layers_has_the_parameters_of_the_reference():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # Keras walks a graph from its end, a call for each layer.
    try:
        base = build(32, build_cifar_resnet, depth=1202)

        assert count(add_top(base, 10))[1] == 19_421_274
    finally:
        sys.setrecursionlimit(before)


# The moving mean and variance of each normalization: 16 maps in the stem and 2n layers a stage.
@pytest.mark.parametrize(("depth", "n"), [(20, 3), pytest.param(56, 9, marks=SLOW)])
@pytest.mark.usefixtures("blank")
def test_that_for_cifar_keeps_its_statistics_untrained(depth, n):
    total, trainable = count(build(32, build_cifar_resnet, depth=depth))

    assert total - trainable == 2 * (16 + 2 * n * (16 + 32 + 64))


STAGES = [(18, "v1", (2, 2, 2, 2), 1), (50, "v1", (3, 4, 6, 3), 4), (50, "v1.5", (3, 4, 6, 3), 4)]


@pytest.mark.parametrize(
    ("depth", "version", "counts", "expansion", "size", "sides"),
    [
        pytest.param(*stage, size, sides, marks=[] if (stage[0], size) == (18, 193) else SLOW)
        for stage in STAGES
        for size, sides in [(224, (112, 56, 56, 28, 14, 7)), (193, (97, 49, 49, 25, 13, 7))]
    ],
)
@pytest.mark.usefixtures("blank")
def test_each_stage_has_its_size(depth, counts, expansion, version, size, sides):
    model = build(size, depth=depth, version=version)
    widths = [64, 64, *(expansion * maps for maps in (64, 128, 256, 512))]
    ends = [f"conv{stage}_block{count}_out" for stage, count in enumerate(counts, start=2)]

    found = [model.get_layer(name).output.shape[1:] for name in ("conv1_relu", "pool1_pool", *ends)]

    assert found == [(side, side, width) for side, width in zip(sides, widths, strict=True)]


@pytest.mark.parametrize(("size", "sides"), [(32, (32, 16, 8)), (33, (33, 17, 9))])
@pytest.mark.usefixtures("blank")
def test_that_for_cifar_halves_its_maps_twice(size, sides):
    model = build(size, build_cifar_resnet, depth=14)

    found = [model.get_layer(f"conv{stage}_block2_out").output.shape[1:] for stage in (2, 3, 4)]

    assert found == [(side, side, maps) for side, maps in zip(sides, (16, 32, 64), strict=True)]


# By default tests/test_bases.py compares ResNet-50, by a file of its weights.
@pytest.mark.parametrize("depth", [pytest.param(depth, marks=SLOW) for depth in (50, 101, 152)])
def test_with_its_weights_it_is_the_network_of_keras_applications(depth):
    twin = getattr(keras.applications, f"ResNet{depth}")(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    fill(twin)
    ours = build(depth=depth)
    copy_by_name(twin, ours)

    found = run(ours, draw_images())

    assert_equal_outputs(found, run(twin, draw_images()))
    assert {layer.name for layer in ours.layers[1:]} == {layer.name for layer in twin.layers[1:]}


def draw_block(inputs, **arguments):
    return convolution_block(inputs, 4, name="block", **arguments)


@pytest.mark.parametrize("builder", [draw_block, pytest.param(build_resnet, marks=SLOW)])
def test_the_versions_have_the_same_weights_and_other_outputs(builder):
    first, second = (build(32, builder, version=version) for version in ("v1", "v1.5"))
    fill(first)
    copy_by_name(first, second)

    outputs = [run(model, draw_images(32)) for model in (first, second)]

    assert count(first) == count(second)
    assert [weight.path for weight in first.weights] == [weight.path for weight in second.weights]
    assert outputs[0].shape == outputs[1].shape
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1 * np.abs(outputs[0]).max()


@pytest.mark.parametrize(
    ("version", "halves"), [pytest.param("v1", "1_conv", marks=SLOW), ("v1.5", "2_conv")]
)
@pytest.mark.usefixtures("blank")
def test_the_version_says_which_convolution_halves_the_map(version, halves):
    model = build(depth=50, version=version)

    found = {
        layer.name
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.strides != (1, 1)
    }

    openers = [f"conv{stage}_block1" for stage in (3, 4, 5)]
    expected = {f"{name}_{part}" for name in openers for part in ("0_conv", halves)}
    assert found == expected | {"conv1_conv"}


@pytest.mark.usefixtures("blank")
def test_an_unknown_version_is_not_taken_for_another():
    with pytest.raises(KeyError, match="v2"):
        build(depth=50, version="v2")


@pytest.mark.parametrize(
    ("depth", "identities", "convolutions"),
    [
        (18, 5, 3),
        (50, 12, 4),
        *(pytest.param(*case, marks=SLOW) for case in [(34, 13, 3), (101, 29, 4), (152, 46, 4)]),
    ],
)
def test_it_has_as_many_identity_and_convolution_blocks_as_the_paper(
    depth, identities, convolutions
):
    names = [layer.name for layer in outline(depth=depth, conv_bias=True).layers]

    blocks = sum(name.endswith("_out") for name in names)
    projections = sum(name.endswith("_0_conv") for name in names)

    assert (blocks - projections, projections) == (identities, convolutions)
    # The weighted layers that give it its name: no projections, but the stem and the classifier.
    assert sum(name.endswith("_conv") for name in names) - projections + 1 == depth


def test_an_identity_block_whose_branch_is_silent_passes_its_input():
    inputs = keras.Input((8, 8, 16))
    model = keras.Model(inputs, identity_block(inputs, 4, name="block"))
    model.get_layer("block_3_bn").gamma.assign(np.zeros(16))
    images = np.random.default_rng(0).normal(size=(1, 8, 8, 16)).astype("float32")

    found = run(model, images)

    np.testing.assert_array_equal(found, np.maximum(images, 0))


@pytest.mark.parametrize(("bottleneck", "maps", "last"), [(True, 16, "3"), (False, 4, "2")])
def test_a_convolution_block_whose_branch_is_silent_projects_its_input(bottleneck, maps, last):
    inputs = keras.Input((9, 9, 6))
    model = keras.Model(
        inputs, convolution_block(inputs, 4, bottleneck=bottleneck, name="block", bias=False)
    )
    model.get_layer(f"block_{last}_bn").gamma.assign(np.zeros(maps))
    kernel = model.get_layer("block_0_conv").kernel.numpy()[0, 0]
    images = np.random.default_rng(0).normal(size=(1, 9, 9, 6)).astype("float32")

    found = run(model, images)

    expected = np.maximum(images[:, ::2, ::2] @ kernel, 0) / np.sqrt(1 + 1.001e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_shortcut_for_cifar_takes_every_second_pixel_and_adds_maps_of_zeros():
    model = build(32, build_cifar_resnet, depth=8)
    block = model.get_layer("conv3_block1_add")
    shortcut, _ = block.input
    views = keras.Model(model.input, [model.get_layer("conv2_block1_out").output, shortcut])

    before, after = map(keras.ops.convert_to_numpy, views(draw_images(32)))

    assert before.std() > 0
    np.testing.assert_array_equal(after[..., 8:24], before[:, ::2, ::2])
    assert not after[..., :8].any() and not after[..., 24:].any()


@pytest.mark.usefixtures("blank")
def test_the_shortcuts_for_cifar_have_no_weights():
    model = build(32, build_cifar_resnet, depth=8)

    assert not [layer.name for layer in model.layers if layer.weights and "_0_" in layer.name]


@pytest.mark.parametrize("depth", [2, 18, 21, 51])
def test_a_depth_for_cifar_is_six_n_plus_two(depth):
    with pytest.raises(ValueError, match=rf"Expected a depth of 6n \+ 2, .* got {depth}"):
        build(32, build_cifar_resnet, depth=depth)


def test_what_only_training_sees_is_the_papers():
    model = build(depth=18)

    normalizations = [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    kernel = model.get_layer("conv5_block2_1_conv").kernel.numpy()

    assert {layer.momentum for layer in normalizations} == {0.9}
    # 2.4 million draws: their deviation lies well within one percent.
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.01)


def test_every_weight_is_trainable_but_the_statistics():
    model = outline(depth=18, conv_bias=True)

    frozen = {weight.name for weight in model.non_trainable_weights}

    assert frozen == {"moving_mean", "moving_variance"}


@pytest.mark.parametrize(
    ("builder", "size", "maps"),
    [pytest.param(build_resnet, 32, 2048, marks=SLOW), (build_cifar_resnet, 8, 64)],
)
@pytest.mark.usefixtures("blank")
def test_the_smallest_image_that_its_docstring_names_leaves_a_map(builder, size, maps):
    shape = build(size, builder).output.shape

    assert shape == (None, size // 32 or 2, size // 32 or 2, maps)


@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        pytest.param(build_resnet, {"depth": 18}, marks=SLOW),
        pytest.param(build_resnet, {"depth": 50}, marks=SLOW),
        (build_cifar_resnet, {}),
    ],
)
@pytest.mark.usefixtures("blank")
def test_a_second_build_has_the_same_names(builder, arguments):
    first, second = build(32, builder, **arguments), build(32, builder, **arguments)

    assert [op.name for op in first.operations] == [op.name for op in second.operations]
