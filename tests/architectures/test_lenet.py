import keras
import numpy as np
import pytest
import tensorflow as tf

from tl_toolkit.architectures.layers import SumPooling2D, scaled_tanh
from tl_toolkit.architectures.lenet import C3_TABLE, build_lenet5


def build(size=32, **arguments):
    inputs = keras.Input((size, size, 1))
    return keras.Model(inputs, build_lenet5(inputs, **arguments))


def test_with_ten_classes_it_has_the_parameters_of_the_reference():
    base = build()
    model = keras.Model(base.input, keras.layers.Dense(10)(base.output))

    counts = {layer.name: layer.count_params() for layer in base.layers if layer.weights}

    assert counts == {"c1_conv": 156, "c3_conv": 2416, "c5_conv": 48120, "f6_dense": 10164}
    assert model.count_params() == 61_706


def test_its_maps_have_the_sizes_of_the_paper():
    shapes = {layer.name: layer.output.shape[1:] for layer in build().layers[1:]}

    assert shapes == {
        "c1_conv": (28, 28, 6),
        "s2_pool": (14, 14, 6),
        "c3_conv": (10, 10, 16),
        "s4_pool": (5, 5, 16),
        "c5_conv": (1, 1, 120),
        "c5_flatten": (120,),
        "f6_dense": (84,),
    }


def test_width_multiplies_the_filters():
    model = build(width=3)

    assert model.get_layer("c1_conv").filters == 18
    assert model.output.shape == (None, 252)


def test_the_activation_reaches_every_layer_with_weights():
    model = build(activation="relu")

    names = {layer.activation.__name__ for layer in model.layers if layer.weights}
    assert names == {"relu"}


@pytest.mark.parametrize(
    ("pooling", "kind"),
    [("average", keras.layers.AveragePooling2D), ("max", keras.layers.MaxPooling2D)],
)
def test_pooling_is_the_one_asked_for(pooling, kind):
    model = build(pooling=pooling)

    assert isinstance(model.get_layer("s2_pool"), kind)
    assert isinstance(model.get_layer("s4_pool"), kind)


def test_a_larger_image_gives_a_larger_f6_and_the_same_output():
    model = build(40)

    assert model.get_layer("f6_dense").kernel.shape == (3 * 3 * 120, 84)
    assert model.output.shape == (None, 84)


# ------------------------------------------------------------------------- the network of 1998

PAPER = {"activation": "scaled_tanh", "pooling": "sum", "connections": "table"}

# Table I of the paper, as printed: a row for each map of S2, a column for each map of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def seen_by_c3(model):
    """Returns for each map of C3 the maps of S2 that change it."""
    layer = model.get_layer("c3_conv")
    image = tf.constant(np.random.default_rng(0).normal(size=(1, *layer.input.shape[1:])))
    seen = []
    for output in range(layer.filters):
        with tf.GradientTape() as tape:
            tape.watch(image)
            one = layer(image)[..., output]
        slope = np.abs(tape.gradient(one, image)).sum(axis=(0, 1, 2))
        seen.append(np.flatnonzero(slope).tolist())
    return seen


def test_up_to_f6_the_taught_form_has_60856_parameters():
    assert build().count_params() == 60_856


def test_the_form_of_1998_has_the_60000_parameters_of_the_paper():
    model = build(**PAPER)

    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}

    assert counts == {
        "c1_conv": 156,
        "s2_pool": 12,
        "c3_conv": 1516,
        "s4_pool": 32,
        "c5_conv": 48120,
        "f6_dense": 10164,
    }
    assert model.count_params() == 60_000


def test_the_form_of_1998_has_the_340908_connections_of_the_paper():
    model = build(**PAPER)

    connections = {}
    for layer in model.layers:
        if isinstance(layer, SumPooling2D):  # each unit: its window and its bias
            units = np.prod(layer.output.shape[1:])
            connections[layer.name] = units * (layer.pool_size**2 + 1)
        elif layer.weights:  # all weights once at each position
            connections[layer.name] = np.prod(layer.output.shape[1:-1]) * layer.count_params()
    distances = 10 * model.output.shape[-1]  # the output of the paper, which a head replaces

    assert connections == {
        "c1_conv": 122_304,
        "s2_pool": 5_880,
        "c3_conv": 151_600,
        "s4_pool": 2_000,
        "c5_conv": 48_120,
        "f6_dense": 10_164,
    }
    assert sum(connections.values()) + distances == 340_908


def test_the_form_of_1998_squashes_after_summing():
    model = build(**PAPER)

    assert [layer.name for layer in model.layers[1:]] == [
        "c1_conv",
        "s2_pool",
        "s2_squash",
        "c3_conv",
        "s4_pool",
        "s4_squash",
        "c5_conv",
        "c5_flatten",
        "f6_dense",
    ]
    squashes = {layer.activation for layer in model.layers if hasattr(layer, "activation")}
    assert squashes == {scaled_tanh}


def test_c3_sees_the_maps_that_table_i_prints():
    rows = TABLE_I.split()

    seen = seen_by_c3(build(connections="table"))

    assert seen == [
        [source for source in range(6) if rows[source][output] == "X"] for output in range(16)
    ]


def test_without_the_table_c3_sees_all_maps():
    assert seen_by_c3(build()) == [[0, 1, 2, 3, 4, 5]] * 16


def test_width_repeats_the_table_on_further_maps():
    narrow = seen_by_c3(build(connections="table"))

    wide = seen_by_c3(build(connections="table", width=2))

    assert wide[:16] == narrow
    assert wide[16:] == [[source + 6 for source in row] for row in narrow]


def test_the_form_of_1998_starts_within_2_4_by_the_inputs_of_each_unit():
    keras.utils.set_random_seed(0)
    model = build(**PAPER)

    largest = {
        name: np.abs(model.get_layer(name).kernel).max()
        for name in ("c1_conv", "c5_conv", "f6_dense")
    }
    links = np.abs(model.get_layer("c3_conv").kernel).max(axis=(0, 1))
    limits = [2.4 / (25 * len(row)) for row in C3_TABLE for _ in row]

    limit = {"c1_conv": 2.4 / 25, "c5_conv": 2.4 / 400, "f6_dense": 2.4 / 120}
    for name, found in largest.items():
        assert 0.95 * limit[name] < found <= limit[name]
    assert np.all(links <= limits)
    assert np.all(links > 0.7 * np.array(limits))  # each the largest of 25 draws


def test_the_taught_form_starts_from_the_initial_weights_of_keras():
    model = build()

    kernels = [model.get_layer(name) for name in ("c1_conv", "c3_conv", "c5_conv", "f6_dense")]
    starts = {type(layer.kernel_initializer) for layer in kernels}
    assert starts == {keras.initializers.GlorotUniform}


def test_every_weight_of_the_form_of_1998_gets_a_gradient():
    model = build(**PAPER)
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(image) ** 2)
    slopes = tape.gradient(loss, model.trainable_variables)

    assert all(np.all(slope.numpy() != 0) for slope in slopes)


def test_the_form_of_1998_comes_back_from_a_file_with_the_same_outputs(tmp_path):
    model = build(**PAPER)
    model.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    np.testing.assert_array_equal(loaded(image), model(image))


@pytest.mark.parametrize("argument", ["pooling", "connections"])
def test_an_unknown_choice_is_refused(argument):
    with pytest.raises(ValueError, match=f"{argument}: expected .*, got 'none'"):
        build(**{argument: "none"})
