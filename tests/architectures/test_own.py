"""Models of a user's own: checked, named, built on pixels, and cut into units and blocks."""

import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from tests.architectures.own_models import build_crossing, build_toy, randomize
from tl_toolkit.api.model import load_model
from tl_toolkit.architectures.graph import build_base, find_blocks
from tl_toolkit.architectures.heads import find_head_maps
from tl_toolkit.architectures.own import digest_own_model
from tl_toolkit.architectures.own_record import describe_own_base
from tl_toolkit.architectures.pixels import apply_pixel_rule
from tl_toolkit.catalog.lookup import check_image_size, resolve_unfreeze
from tl_toolkit.errors import DataError, RecipeError, WeightsError
from tl_toolkit.keras_private import producer_of
from tl_toolkit.recipe.schema import UnfreezeFrom


@pytest.fixture
def save(tmp_path):
    """Writes a model as base.keras."""

    def write(model):
        model.save(tmp_path / "base.keras")
        return tmp_path / "base.keras"

    return write


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The file of a toy network, and what is described of it."""
    path = tmp_path_factory.mktemp("toy") / "base.keras"
    build_toy().save(path)
    return path, describe_own_base(path)


def units_of(record):
    return {block.name: [unit.name for unit in block.units] for block in record.blocks}


def build(record, size=32):
    image = keras.Input((size, size, 3))
    pixels = apply_pixel_rule(image, record.pixels)
    return image, pixels, build_base(record, pixels, {})


def images(count=2, size=32):
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def sequential(*members, shape=(32, 32, 3)):
    return keras.Sequential([keras.Input(shape), *members])


# --------------------------------------------------------------------------------- units and blocks


def test_units_begin_with_a_kernel_at_a_cut_and_blocks_have_maps_of_one_size(toy):
    _, record = toy

    assert units_of(record) == {
        "conv1": ["conv1"],
        "add": ["add"],
        "block3": ["base_head", "inner", "conv5"],
    }
    assert [unit.end for unit in record.units] == ["pool", "relu_3", "base_head", "inner", "conv5"]


def test_the_units_of_the_record_are_those_of_the_graph(toy):
    _, record = toy

    _, pixels, features = build(record)
    blocks = find_blocks(record, pixels, features)

    members = {u.name: [op.name for op in u.operations] for b in blocks for u in b.units}
    assert members == {
        "conv1": ["base_pixels_scale", "conv1", "bn1", "relu", "pool"],
        "add": ["conv2", "bn2", "relu_2", "conv3", "add", "relu_3"],
        "base_head": ["base_head"],
        "inner": ["inner"],
        "conv5": ["conv5"],
    }
    assert [sum(layer.count_params() for layer in b.layers) for b in blocks] == [
        block.parameters for block in record.blocks
    ]


def test_what_cannot_be_cut_is_one_block(save):
    record = describe_own_base(save(build_crossing()))

    assert units_of(record) == {"end": ["end"]}
    assert record.parameters == 372


def test_layers_between_the_calls_of_a_shared_layer_are_one_unit(save):
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    first, last = layers.Conv2D(3, 3, padding="same", name="first"), layers.Conv2D(4, 3, name="end")
    between = layers.Conv2D(3, 3, padding="same", name="between")
    image = keras.Input((32, 32, 3))
    model = keras.Model(image, last(shared(between(shared(first(image))))))

    record = describe_own_base(save(model))

    assert [unit.name for unit in record.units] == ["first", "shared", "end"]
    _, pixels, features = build(record)
    assert len(find_blocks(record, pixels, features)) == len(record.blocks)


def test_the_output_is_the_last_map_that_a_head_reads_where_its_layer_is_called_before(save):
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    first, between = layers.Conv2D(3, 3, padding="same", name="first"), layers.ReLU(name="between")
    image = keras.Input((32, 32, 3))
    record = describe_own_base(save(keras.Model(image, shared(between(shared(first(image)))))))
    _, pixels, features = build(record)

    maps = find_head_maps(record, "inner", pixels, features)

    assert [producer_of(tensor).name for tensor in maps] == ["first", "between", "shared"]
    assert maps[-1] is features


def test_a_head_reads_maps_inside_of_units_and_no_gates(save):
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    wide = layers.Conv2D(8, 3, padding="same", activation="relu", name="wide")(x)
    end = layers.Conv2D(4, 1, name="end")(wide)
    gates = layers.GlobalAveragePooling2D(keepdims=True)(end)
    gates = layers.Conv2D(2, 1, activation="relu", name="squeeze")(gates)
    gates = layers.Conv2D(4, 1, activation="sigmoid", name="excite")(gates)
    x = layers.Add(name="add")([x, layers.Multiply()([end, gates])])
    record = describe_own_base(save(keras.Model(image, x)))
    _, pixels, features = build(record)

    maps = find_head_maps(record, "inner", pixels, features)

    assert [producer_of(tensor).name for tensor in maps] == ["stem", "wide", "add"]


def test_normalization_goes_with_the_kernel_before_it_and_dense_layers_are_a_block(save):
    model = sequential(
        layers.Conv2D(4, 3, padding="same", name="c1"),
        layers.LayerNormalization(name="n1"),
        layers.Conv2D(4, 3, padding="same", name="c2"),
        layers.MaxPooling2D(name="p2"),
        layers.Conv2D(4, 3, padding="same", name="c3"),
        layers.Flatten(name="flat"),
        layers.Dense(8, name="d1"),
        layers.Dense(8, name="d2"),
    )

    record = describe_own_base(save(model))

    assert units_of(record) == {"block1": ["c1", "c2"], "c3": ["c3"], "block3": ["d1", "d2"]}
    assert record.output == "vector"


def test_what_was_frozen_when_it_was_saved_counts_as_any_other(save):
    model = build_toy()
    before = describe_own_base(save(model))
    model.trainable = False
    model.get_layer("inner").get_layer("inner_conv").trainable = False

    after = describe_own_base(save(model))

    assert after.blocks == before.blocks


def test_a_block_keeps_off_the_name_of_a_layer(save):
    convolutions = [layers.Conv2D(4, 3, padding="same", name=name) for name in ("block1", "c2")]

    record = describe_own_base(save(sequential(*convolutions)))

    assert units_of(record) == {"block1_": ["block1", "c2"]}


@pytest.mark.parametrize("name", ["conv2", "bn2", "add", "relu_3"])
def test_any_layer_stands_for_its_unit(toy, name):
    _, record = toy

    units = resolve_unfreeze(record, UnfreezeFrom(unit=name))

    assert units == ("add", "base_head", "inner", "conv5")


def test_an_unknown_layer_is_refused_with_the_command_that_lists_them(toy):
    path, record = toy

    with pytest.raises(RecipeError, match="did you mean 'conv5'(.|\n)*models show ") as caught:
        resolve_unfreeze(record, UnfreezeFrom(unit="conv55"))

    assert str(path) in str(caught.value)


def test_maps_of_each_size_are_taps_at_whole_cells(save, toy):
    assert toy[1].taps == ("relu", "relu_3", "conv5")
    assert describe_own_base(save(build_toy(size=40))).taps == ()


# ------------------------------------------------------------------------------------------- values


def test_the_base_computes_what_the_model_does(save):
    model = randomize(build_toy())
    image, _, features = build(describe_own_base(save(model)))

    outputs = keras.Model(image, features)(images())

    np.testing.assert_array_equal(outputs, model(images()))


def test_weights_that_a_layer_computes_with_copies_of_arrive(save):
    normalize = layers.Normalization(mean=[10.0, 20.0, 30.0], variance=[4.0, 9.0, 16.0])
    adapted = layers.Normalization(name="adapted")
    adapted.adapt(images())
    model = sequential(normalize, adapted, layers.Conv2D(4, 3))

    image, _, features = build(describe_own_base(save(model)))

    np.testing.assert_array_equal(keras.Model(image, features)(images()), model(images()))


@pytest.mark.parametrize(
    ("word", "channels", "expected"),
    [
        ("raw", 3, lambda x: x),
        ("tf", 3, lambda x: x / 127.5 - 1),
        ("caffe", 3, lambda x: x[..., ::-1] - [103.939, 116.779, 123.68]),
        ("raw", 1, lambda x: x @ [[0.2989], [0.5870], [0.1140]]),
        ("unit", 1, lambda x: x @ [[0.2989], [0.5870], [0.1140]] / 255),
        ("tf", 1, lambda x: x @ [[0.2989], [0.5870], [0.1140]] / 127.5 - 1),
    ],
)
def test_pixels_enter_as_the_recipe_says(save, word, channels, expected):
    model = sequential(layers.ReLU(negative_slope=1.0), shape=(32, 32, channels))

    image, _, features = build(describe_own_base(save(model), preprocessing=word))

    found = keras.Model(image, features)(images())
    np.testing.assert_allclose(found, expected(images()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("word", "channels"), [("tff", 3), ("grey", 3), ("torch", 1)])
def test_preprocessing_that_does_not_fit_is_refused(save, word, channels):
    model = sequential(layers.Conv2D(4, 3), shape=(32, 32, channels))

    with pytest.raises(RecipeError, match=rf"preprocessing = '{word}'\n  expected one of raw"):
        describe_own_base(save(model), preprocessing=word)


def test_a_model_for_all_sizes_is_described_at_the_recipe_s(save):
    path = save(sequential(layers.Conv2D(4, 3), layers.Conv2D(4, 9), shape=(None, None, 3)))

    record = describe_own_base(path, image_size=(20, 12))

    assert record.fixed_size is None and record.output == "map"
    with pytest.raises(RecipeError, match="cannot be built for 8 x 8 pixels"):
        describe_own_base(path, image_size=(8, 8))


def test_a_model_for_one_size_takes_no_other(save):
    record = describe_own_base(save(build_toy(size=32)), image_size=(64, 64))

    problem = check_image_size(record, (64, 64))

    assert "built for images of 32 x 32" in problem.expected
    assert problem.hint == "data.image_size=[32, 32]"
    assert check_image_size(record, (32, 32)) is None


def test_two_files_of_a_model_have_one_digest_and_other_weights_another(save):
    model = build_toy()
    first, again = digest_own_model(save(model)), digest_own_model(save(model))

    model.get_layer("bn1").moving_mean.assign([0.0, 0.0, 0.0, 1e-6])

    assert first == again != digest_own_model(save(model))


# ------------------------------------------------------------------------------------------- limits


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Conv2D(4, 3)

    def call(self, x):
        return self.dense(x)


def build_subclassed():
    model = Subclassed()
    model(np.zeros((1, 32, 32, 3), np.float32))
    return model


def build_two_inputs():
    image, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([image, other], layers.Add()([image, other]))


def build_two_outputs():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, [layers.ReLU()(image), layers.Conv2D(4, 3)(image)])


def build_half():
    return sequential(layers.Conv2D(4, 3, dtype="mixed_float16", name="half"))


def build_nested_activity():
    inner = keras.Sequential(
        [keras.Input((30, 30, 4)), layers.Conv2D(4, 3, activity_regularizer="l2", name="deep")]
    )
    return sequential(layers.Conv2D(4, 3), inner)


@pytest.mark.parametrize(
    ("build_model", "text"),
    [
        (build_nested_activity, "has an activity_regularizer in 'deep'\n  expected none"),
        (
            lambda: sequential(layers.Conv2D(4, 3), layers.ActivityRegularization(name="deep")),
            "has an activity_regularizer in 'deep'\n  expected none",
        ),
        (build_subclassed, "is a subclassed model, Subclassed\n  expected a functional model"),
        (build_two_inputs, "has 2 inputs\n  expected one"),
        (build_two_outputs, "has 2 outputs\n  expected one"),
        (build_half, "computes with mixed_float16 in 'half'\n  expected float32"),
        (lambda: sequential(layers.Dense(4), shape=(8,)), r"takes inputs of shape \(None, 8\)"),
        (
            lambda: sequential(layers.Conv2D(4, 3), shape=(8, 8, 4)),
            r"takes images of 4 channels\n  expected those of the images, data.channels = 3",
        ),
        (
            lambda: sequential(layers.Reshape((64, 3)), shape=(8, 8, 3)),
            r"gives outputs of shape \(None, 64, 3\)\n  expected a map",
        ),
    ],
)
def test_a_model_that_cannot_be_a_base_says_why_and_what_to_do(save, build_model, text):
    path = save(build_model())

    with pytest.raises(RecipeError, match=text) as caught:
        describe_own_base(path)

    assert str(caught.value).startswith(f"model.base: {path} ")


def test_a_sequential_model_without_an_input_is_refused(save):
    with pytest.warns(UserWarning, match="not yet been built"):
        path = save(keras.Sequential([layers.Conv2D(4, 3)]))

    with pytest.raises(
        RecipeError, match="was not built\n  expected a Sequential model(.|\n)*Input"
    ):
        describe_own_base(path)


def test_a_missing_file_and_a_damaged_one_are_named(tmp_path):
    (tmp_path / "damaged.keras").write_bytes(b"PK half")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass

    with pytest.raises(WeightsError, match=r"base\.model: '.*missing\.keras' is not there"):
        describe_own_base(tmp_path / "missing.keras")
    with pytest.raises(WeightsError, match=r"damaged\.keras' is damaged, or no \.keras file"):
        describe_own_base(tmp_path / "damaged.keras")
    with pytest.raises(WeightsError, match=r"empty\.keras' is damaged, or no \.keras file"):
        describe_own_base(tmp_path / "empty.keras")


def test_a_lambda_layer_is_not_run(save):
    path = save(sequential(layers.Conv2D(4, 3), layers.Lambda(lambda x: x * 2)))

    with pytest.raises(WeightsError, match="holds a Lambda layer, which is Python code"):
        describe_own_base(path)


@pytest.fixture
def forgotten(monkeypatch):
    """Lets Keras forget the layers that are registered in the test."""
    known = keras.saving.get_custom_objects()
    before = dict(known)
    yield known.clear
    known.clear()
    known.update(before)


class Plain(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 3, padding="same")

    def build(self, shape):
        self.conv.build(shape)
        super().build(shape)

    def call(self, x):
        return self.conv(x)


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_that_is_not_registered_is_named_with_what_registers_it(save, forgotten, nested):
    mine = keras.saving.register_keras_serializable("me", name="Mine")(type("Mine", (Plain,), {}))
    inner = [keras.Sequential([keras.Input((32, 32, 3)), mine()])] if nested else [mine()]
    path = save(sequential(*inner))
    forgotten()

    with pytest.raises(WeightsError, match=r"cannot be loaded: layer me>Mine is not registered he"):
        describe_own_base(path)
    with pytest.raises(DataError, match=r"layer me>Mine is not registered here\n(.|\n)*the module"):
        load_model(path)


def test_a_layer_that_was_never_registered_is_named_with_its_decorator(save):
    path = save(sequential(Plain()))

    with pytest.raises(WeightsError, match=r"decorate class Plain with @keras\.saving\.register"):
        describe_own_base(path)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("Counting", "'own' changes its weights in inference mode"), ("Adding", "'own' adds a loss")],
)
def test_a_layer_that_a_phase_cannot_freeze_or_train_is_refused(save, forgotten, kind, text):
    @keras.saving.register_keras_serializable("me")
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return x

    @keras.saving.register_keras_serializable("me")
    class Adding(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(x))
            return x

    layer = {"Counting": Counting, "Adding": Adding}[kind](name="own")
    path = save(sequential(layers.Conv2D(4, 3), layer))

    with pytest.raises(RecipeError, match=f"model.base: the layer {text}"):
        describe_own_base(path)


def test_layers_that_keras_numbers_anew_keep_their_names(save, forgotten):
    @keras.saving.register_keras_serializable("me")
    class Nameless(Plain):
        def get_config(self):
            return {}

    path = save(sequential(Nameless(), layers.MaxPooling2D(), Nameless()))

    records = [describe_own_base(path) for _ in range(2)]

    assert records[0].layer_units == records[1].layer_units
    assert [unit for units in units_of(records[0]).values() for unit in units] == [
        "nameless", "nameless_1"
    ]  # fmt: skip
    assert build(records[0])[2].shape == (None, 16, 16, 4)


def end_in(*more):
    """A small network with layers behind its pooling, `pool`."""
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    for layer in more:
        x = layer(x)
    return keras.Model(image, x)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ([layers.Dense(7, "softmax", name="out")], "out, a softmax"),
        ([layers.Dense(1, "sigmoid", name="out")], "out, a sigmoid"),
        ([layers.Dense(7, name="out"), layers.Softmax(name="last")], "out, a softmax"),
        ([layers.Dense(7, name="out"), layers.Activation("softmax")], "out, a softmax"),
        ([layers.Dense(7, name="predictions")], "predictions"),
        ([layers.Dense(1000, name="out")], "out"),
    ],
)
def test_a_classifier_that_was_left_in_is_named_with_the_way_to_leave_it_out(save, more, named):
    record = describe_own_base(save(end_in(*more)))

    assert f"({named})" in record.doubt
    assert record.doubt.endswith(
        "Try: base=keras.Model(model.input, model.get_layer('pool').output)"
    )


@pytest.mark.parametrize("more", [[], [layers.Dense(64, "relu", name="features")]])
def test_a_base_that_ends_in_features_raises_no_doubt(save, toy, more):
    assert describe_own_base(save(end_in(*more))).doubt == ""
    assert toy[1].doubt == ""
