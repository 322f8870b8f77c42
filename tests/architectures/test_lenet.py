import keras
import pytest

from tl_toolkit.architectures.lenet import build_lenet5


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
