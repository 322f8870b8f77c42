import keras
import numpy as np
import pytest
from keras import layers

from tl_toolkit.architectures.graph import find_blocks, find_cuts, layer_variables
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.catalog.lookup import PIXEL_RULES, Architecture


def cut_names(graph):
    return [cut.layer for cut in find_cuts(graph)]


def make_architecture(units=((r"(\w)_\w+", r"\1"),), blocks=((r"(.+)", r"\1"),)):
    return Architecture(
        name="toy",
        title="",
        paper="",
        builder="",
        minimum_size=1,
        default_size=1,
        pixels="raw",
        unit_names=units,
        block_names=blocks,
    )


def draw_residual(inputs):
    x = a = layers.Dense(4, name="a_dense")(inputs)
    x = layers.Dense(4, name="b_dense")(x)
    x = layers.ReLU(name="b_relu")(x)
    x = layers.Add(name="b_add")([a, x])
    return layers.Dense(2, name="c_dense")(x)


def test_a_cut_lies_where_no_shortcut_runs_past():
    image = keras.Input((4,), name="image")

    graph = keras.Model(image, draw_residual(image))

    assert cut_names(graph) == ["image", "a_dense", "b_add", "c_dense"]


def test_a_shortcut_from_the_input_of_a_part_leaves_no_cut_below_it():
    image = keras.Input((4,), name="image")
    start = layers.Rescaling(2.0, name="start")(image)
    x = layers.Dense(4, name="a_dense")(start)
    outputs = layers.Add(name="b_add")([start, x])

    assert cut_names(keras.Function(start, outputs)) == ["b_add"]


def test_a_nested_model_is_one_node():
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, draw_residual(inner_input), name="inner")
    image = keras.Input((4,), name="image")

    graph = keras.Model(image, layers.ReLU(name="relu")(inner(image)))

    assert cut_names(graph) == ["image", "inner", "relu"]


def test_calls_of_a_layer_in_another_model_do_not_count():
    image = keras.Input((4,), name="image")
    dense = layers.Dense(4, name="a_dense")
    graph = keras.Model(image, layers.ReLU(name="b_relu")(dense(image)))
    other = keras.Input((4,))
    keras.Model(other, layers.Add()([other, dense(other)]))

    assert cut_names(graph) == ["image", "a_dense", "b_relu"]


def test_units_run_from_cut_to_cut():
    image = keras.Input((4,), name="image")

    blocks = find_blocks(make_architecture(), image, draw_residual(image))

    assert [[op.name for op in block.units[0].operations] for block in blocks] == [
        ["a_dense"],
        ["b_dense", "b_relu", "b_add"],
        ["c_dense"],
    ]


def test_a_unit_that_ends_inside_a_shortcut_is_refused():
    image = keras.Input((4,), name="image")
    rules = ((r"(a)_\w+", r"\1"), (r"b_dense|b_relu", "b"), (r"b_add|c_dense", "c"))

    with pytest.raises(ValueError, match="Unit 'b' ends at 'b_relu', which is no cut"):
        find_blocks(make_architecture(rules), image, draw_residual(image))


def test_units_that_overlap_are_refused():
    image = keras.Input((4,), name="image")
    rules = ((r"a_dense|b_add", "x"), (r"\w+", "y"))

    with pytest.raises(ValueError, match="x, y overlap before 'b_add'"):
        find_blocks(make_architecture(rules), image, draw_residual(image))


def test_operations_after_the_last_unit_are_refused():
    image = keras.Input((4,), name="image")
    rules = ((r"([ab])_\w+", r"\1"),)

    with pytest.raises(ValueError, match="no unit for c_dense"):
        find_blocks(make_architecture(rules), image, draw_residual(image))


def test_a_block_in_two_pieces_is_refused():
    image = keras.Input((4,), name="image")
    blocks = ((r"a|c", "outer"), (r"b", "inner"))

    with pytest.raises(ValueError, match="block 'outer' is not one run of units"):
        find_blocks(make_architecture(blocks=blocks), image, draw_residual(image))


def test_a_layer_that_two_units_share_is_refused():
    image = keras.Input((4,), name="image")
    shared = layers.Dense(4, name="shared")
    x = layers.ReLU(name="a_relu")(shared(image))
    outputs = layers.ReLU(name="b_relu")(shared(x))

    with pytest.raises(ValueError, match="unit 'b' shares a layer with another"):
        find_blocks(make_architecture(), image, outputs)


def test_the_variables_of_a_nested_model_go_by_its_own_name():
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, layers.Dense(2)(inner_input), name="inner")

    found = [(v.layer, v.index, v.shape) for v in layer_variables(inner)]

    assert found == [("inner", 0, (4, 2)), ("inner", 1, (2,))]


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype("float32")


def apply(rule):
    image = keras.Input((5, 4, 3), name="image")
    return keras.Model(image, apply_pixel_rule(image, rule))


@pytest.mark.parametrize(
    ("rule", "application"),
    [
        ("tf", keras.applications.mobilenet),
        ("caffe", keras.applications.resnet),
        ("torch", keras.applications.densenet),
        ("raw", keras.applications.efficientnet),
    ],
)
def test_a_pixel_rule_equals_preprocess_input(rule, application):
    expected = application.preprocess_input(IMAGES.copy())

    actual = apply(rule)(IMAGES)

    # One multiplication instead of a division: the last bits may differ.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("tf", [128 / 127.5 - 1] * 3),
        ("unit", [128 / 255] * 3),
        ("caffe", [24.061, 11.221, 4.320]),
        ("torch", [0.0741, 0.2052, 0.4265]),
        ("grey_unit", [0.9999 * 128 / 255]),
        ("raw", [128.0] * 3),
    ],
)
def test_middle_grey_becomes_the_golden_value(rule, expected):
    actual = apply(rule)(np.full((1, 5, 4, 3), 128, "float32"))

    # The golden values are printed with four digits.
    np.testing.assert_allclose(actual[0, 0, 0], expected, atol=6e-5)


@pytest.mark.parametrize("rule", PIXEL_RULES)
def test_a_pixel_rule_loads_with_the_same_names_and_values(rule, tmp_path):
    model = apply(rule)
    model.save(tmp_path / "pixels.keras")

    loaded = keras.saving.load_model(tmp_path / "pixels.keras")

    assert np.array_equal(loaded(IMAGES), model(IMAGES))
    names = [op.name for op in loaded.operations]
    assert (
        names == [op.name for op in model.operations] == [op.name for op in apply(rule).operations]
    )
    assert all(name == "image" or name.startswith("pixels_") for name in names)
