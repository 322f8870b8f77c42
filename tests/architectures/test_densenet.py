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
from tl_toolkit.architectures.densenet import build_cifar_densenet, build_densenet

SLOW = pytest.mark.slow


def mark(case):
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=SLOW)


def mark_slow(cases, quick):
    """Makes the cases that are not quick, networks of hundreds of layers, slow ones."""
    return [case if case in quick else mark(case) for case in cases]


def build(size=64, builder=build_densenet, **arguments):
    return build_model(builder, size, **arguments)


def outline(size=64, builder=build_densenet, **arguments):
    return build_outline(builder, size, **arguments)


def find_sources(tensor):
    """Lists the layers whose maps a tensor holds, seen through the concatenations."""
    layer = tensor._keras_history.operation
    if not isinstance(layer, keras.layers.Concatenate):
        return [layer.name]
    return [name for part in layer.input for name in find_sources(part)]


# Depth: features' total and trainable, with a top of 1000 classes total and trainable.
COUNTS = {
    121: (7_037_504, 6_953_856, 8_062_504, 7_978_856),
    169: (12_642_880, 12_484_480, 14_307_880, 14_149_480),
    201: (18_321_984, 18_092_928, 20_242_984, 20_013_928),
    264: (31_047_232, 30_648_704, 33_736_232, 33_337_704),
    161: (26_691_936, 26_472_000, 28_900_936, 28_681_000),
}
GROWTH_RATES = {161: 48}
BLOCK_ENDS = {
    121: (256, 512, 1024, 1024),
    169: (256, 512, 1280, 1664),
    201: (256, 512, 1792, 1920),
    264: (256, 512, 2304, 2688),
    161: (384, 768, 2112, 2208),
}
PER_BLOCK = {
    121: (6, 12, 24, 16),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
    161: (6, 12, 36, 24),
}


@pytest.mark.parametrize("depth", mark_slow(COUNTS, quick=[121]))
def test_it_has_the_parameters_of_the_reference(depth):
    total, trainable, top_total, top_trainable = COUNTS[depth]
    base = outline(depth=depth, growth_rate=GROWTH_RATES.get(depth, 32))

    assert count(base) == (total, trainable)
    assert count(add_top(base, 1000)) == (top_total, top_trainable)
    # 990 classes fewer, each with a weight a map and a bias.
    less = 990 * (base.output.shape[-1] + 1)
    assert count(add_top(base, 10)) == (top_total - less, top_trainable - less)


# Depth, growth rate, BC: trainable with a top of 10 classes and of 100.
CIFAR_COUNTS = {
    (40, 12, False): (1_019_722, 1_060_132),
    (100, 12, False): (6_979_642, 7_084_852),
    (100, 24, False): (27_249_082, 27_457_972),
    (100, 12, True): (769_162, 800_032),
    (250, 24, True): (15_324_406, 15_480_556),
    (190, 40, True): (25_624_430, 25_821_620),
    (40, 36, True): (1_542_682, 1_578_412),
}


@pytest.mark.parametrize(
    ("depth", "growth_rate", "bc"),
    mark_slow(CIFAR_COUNTS, quick=[(40, 12, False)]),
)
@pytest.mark.usefixtures("blank")
def test_that_for_cifar_has_the_parameters_of_the_reference(depth, growth_rate, bc):
    ten, hundred = CIFAR_COUNTS[depth, growth_rate, bc]
    arguments = {"depth": depth, "growth_rate": growth_rate, "bottleneck": bc}
    base = build(32, build_cifar_densenet, **arguments, compression=0.5 if bc else 1.0)

    assert count(add_top(base, 10))[1] == ten
    assert count(add_top(base, 100))[1] == hundred
    features = ten - 10 * (base.output.shape[-1] + 1)
    assert count(base)[1] == features
    assert count(add_top(base, 1000))[1] == features + 1000 * (base.output.shape[-1] + 1)


@pytest.mark.parametrize("depth", mark_slow(BLOCK_ENDS, quick=[121]))
def test_each_block_ends_with_the_maps_of_the_reference(depth):
    model = outline(depth=depth, growth_rate=GROWTH_RATES.get(depth, 32))

    found = tuple(
        model.get_layer(f"conv{block}_block{last}_concat").output.shape[-1]
        for block, last in enumerate(PER_BLOCK[depth], start=2)
    )

    assert found == BLOCK_ENDS[depth]


@pytest.mark.parametrize(
    ("arguments", "maps"),
    [
        mark(({"depth": 100, "bottleneck": True, "compression": 0.5}, (216, 300, 342))),
        ({"depth": 40}, (160, 304, 448)),
    ],
)
@pytest.mark.usefixtures("blank")
def test_each_block_for_cifar_ends_with_the_maps_of_the_reference(arguments, maps):
    last = {100: 16, 40: 12}[arguments["depth"]]
    model = build(32, build_cifar_densenet, **arguments)

    ends = [model.get_layer(f"conv{block}_block{last}_concat") for block in (2, 3, 4)]

    assert tuple(layer.output.shape[-1] for layer in ends) == maps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "sides", "transition_pool", "kind"),
    [
        (224, (112, 56, 28, 14, 7), "average", keras.layers.AveragePooling2D),
        (193, (97, 49, 24, 12, 6), "average", keras.layers.AveragePooling2D),
        (193, (97, 49, 24, 12, 6), "max", keras.layers.MaxPooling2D),
    ],
)
@pytest.mark.usefixtures("blank")
def test_each_stage_has_its_size_with_either_pooling(size, sides, transition_pool, kind):
    model = build(size, transition_pool=transition_pool)
    stem, pooled, *later = sides
    expected = {
        "conv1_relu": (stem, 64),
        "pool1_pool": (pooled, 64),
        "conv2_block6_concat": (pooled, 256),
        "pool2_pool": (later[0], 128),
        "conv3_block12_concat": (later[0], 512),
        "pool3_pool": (later[1], 256),
        "conv4_block24_concat": (later[1], 1024),
        "pool4_pool": (later[2], 512),
        "conv5_block16_concat": (later[2], 1024),
        "relu": (later[2], 1024),
    }

    found = {name: model.get_layer(name).output.shape[2:] for name in expected}

    assert found == expected
    assert all(type(model.get_layer(f"pool{block}_pool")) is kind for block in (2, 3, 4))


@pytest.mark.parametrize(("size", "sides"), [mark((32, (32, 16, 8))), (33, (33, 16, 8))])
@pytest.mark.usefixtures("blank")
def test_that_for_cifar_halves_its_maps_twice(size, sides):
    model = build(size, build_cifar_densenet, depth=10)

    found = [model.get_layer(f"conv{block}_block2_concat").output.shape[1] for block in (2, 3, 4)]

    assert tuple(found) == sides


@pytest.mark.parametrize("depth", [pytest.param(depth, marks=SLOW) for depth in (121, 169, 201)])
def test_with_its_weights_it_is_the_network_of_keras_applications(depth):
    twin = getattr(keras.applications, f"DenseNet{depth}")(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    fill(twin)
    ours = build(depth=depth)
    copy_by_name(twin, ours)

    expected = run(twin, draw_images())
    found = run(ours, draw_images())

    assert_equal_outputs(found, expected)
    assert [layer.name for layer in ours.layers if layer.weights] == [
        layer.name for layer in twin.layers if layer.weights
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        pytest.param(build_densenet, {"depth": 121}, marks=SLOW),
        (build_cifar_densenet, {"depth": 10}),
        (build_cifar_densenet, {"depth": 10, "bottleneck": True}),
    ],
)
def test_the_transitions_have_the_same_weights_and_other_outputs(builder, arguments):
    average = build(32, builder, **arguments)
    most = build(32, builder, transition_pool="max", **arguments)
    fill(average)
    most.set_weights(average.get_weights())

    outputs = [run(model, draw_images(32)) for model in (average, most)]

    assert [weight.path for weight in average.weights] == [weight.path for weight in most.weights]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1 * np.abs(outputs[0]).max()


@pytest.mark.parametrize(
    ("builder", "arguments", "per_block"),
    [
        (build_densenet, {"depth": 121, "growth_rate": 32}, (6, 12, 24, 16)),
        (build_cifar_densenet, {"depth": 22}, (6, 6, 6)),
        (build_cifar_densenet, {"depth": 22, "bottleneck": True}, (3, 3, 3)),
    ],
)
def test_l_layers_of_a_block_have_l_times_l_plus_one_halves_connections(
    builder, arguments, per_block
):
    model = outline(64, builder, **arguments)

    for block, count_of_layers in enumerate(per_block, start=2):
        reads = [
            find_sources(model.get_layer(f"conv{block}_block{index}_0_bn").input)
            for index in range(1, count_of_layers + 1)
        ]
        connections = sum(len(set(sources)) for sources in reads)

        assert connections == count_of_layers * (count_of_layers + 1) // 2
        assert all(len(sources) == len(set(sources)) for sources in reads)


@pytest.mark.parametrize(
    ("builder", "arguments", "layers_of_block", "first"),
    [
        mark((build_densenet, {"growth_rate": 20}, 6, 40)),
        (build_cifar_densenet, {"depth": 22, "growth_rate": 7}, 6, 16),
        (build_cifar_densenet, {"depth": 22, "growth_rate": 7, "bottleneck": True}, 3, 14),
    ],
)
@pytest.mark.usefixtures("blank")
def test_each_layer_of_a_block_reads_the_growth_rate_more_maps(
    builder, arguments, layers_of_block, first
):
    model = build(64, builder, **arguments)

    found = [
        model.get_layer(f"conv2_block{index}_0_bn").input.shape[-1]
        for index in range(1, layers_of_block + 1)
    ]

    assert found == [first + index * arguments["growth_rate"] for index in range(layers_of_block)]


@pytest.mark.usefixtures("blank")
def test_a_bottleneck_has_four_times_the_growth_rate_maps():
    model = build(32, build_cifar_densenet, depth=10, growth_rate=5, bottleneck=True)

    assert model.get_layer("conv3_block1_1_conv").filters == 20
    assert model.get_layer("conv3_block1_2_conv").filters == 5


@pytest.mark.parametrize(
    ("compression", "maps"), [(1.0, 43), (0.5, 21), (0.7, 30), (0.99, 42), (0.01, 1)]
)
@pytest.mark.usefixtures("blank")
def test_compression_rounds_down_but_leaves_a_map(compression, maps):
    model = build(32, build_cifar_densenet, depth=13, growth_rate=9, compression=compression)

    # 16 maps of the stem and three layers of 9: 43.
    assert model.get_layer("pool2_conv").filters == maps


@pytest.mark.parametrize(
    ("builder", "arguments", "layers_in_all", "convolutions"),
    [
        pytest.param(build_densenet, {"depth": 121}, 58, 2, marks=SLOW),
        (build_cifar_densenet, {"depth": 10}, 6, 1),
        (build_cifar_densenet, {"depth": 10, "bottleneck": True}, 3, 2),
    ],
)
@pytest.mark.usefixtures("blank")
def test_dropout_follows_each_convolution_of_a_dense_layer(
    builder, arguments, layers_in_all, convolutions
):
    models = [build(32, builder, dropout=rate, **arguments) for rate in (0.0, 0.2)]

    drops = [
        [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        for model in models
    ]

    assert not drops[0]
    assert len(drops[1]) == layers_in_all * convolutions
    assert {layer.rate for layer in drops[1]} == {0.2}
    assert all(isinstance(find_producer(layer), keras.layers.Conv2D) for layer in drops[1])
    assert models[0].count_params() == models[1].count_params()


def find_producer(layer):
    return layer.input._keras_history.operation


@pytest.mark.parametrize(
    ("depth", "bottleneck", "expected"), [(41, False, "3n"), (43, True, "6n"), (4, False, "3n")]
)
def test_a_depth_for_cifar_gives_whole_layers(depth, bottleneck, expected):
    with pytest.raises(ValueError, match=rf"Expected a depth of {expected} \+ 4, got {depth}"):
        build(32, build_cifar_densenet, depth=depth, bottleneck=bottleneck)


def test_what_only_training_sees_differs_from_keras_as_documented():
    model = build(32, build_cifar_densenet, depth=10, growth_rate=64)

    normalizations = [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    kernel = model.get_layer("conv4_block2_2_conv").kernel.numpy()

    assert {layer.momentum for layer in normalizations} == {0.9}
    # 230 thousand draws: their deviation lies within two percent.
    assert kernel.std() == pytest.approx(np.sqrt(2 / np.prod(kernel.shape[:-1])), rel=0.02)


def test_no_convolution_has_a_bias():
    models = [outline(depth=121, growth_rate=32), outline(32, build_cifar_densenet, depth=10)]

    convolutions = [
        layer
        for model in models
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]

    assert not any(layer.use_bias for layer in convolutions)


@pytest.mark.parametrize(
    ("builder", "depth", "size", "side"),
    [mark((build_densenet, 121, 32, 1)), (build_cifar_densenet, 10, 8, 2)],
)
@pytest.mark.usefixtures("blank")
def test_the_smallest_image_that_its_docstring_names_leaves_a_map(builder, depth, size, side):
    assert build(size, builder, depth=depth).output.shape[1:3] == (side, side)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("builder", "arguments"),
    [
        (build_densenet, {"dropout": 0.2}),
        (build_cifar_densenet, {"depth": 22}),
        (build_cifar_densenet, {"depth": 22, "bottleneck": True, "dropout": 0.2}),
    ],
)
@pytest.mark.usefixtures("blank")
def test_a_second_build_has_the_same_names(builder, arguments):
    first, second = build(32, builder, **arguments), build(32, builder, **arguments)

    assert [op.name for op in first.operations] == [op.name for op in second.operations]
