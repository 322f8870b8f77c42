"""What we rely on in private parts of Keras, TensorFlow and KerasTuner: one claim a function.

A test that fails here names the function of tl_toolkit/keras_private.py that a new version breaks.
"""

import ast
import configparser
import contextlib
import re
import subprocess
import sys
from importlib import metadata

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from tests.syntax import PACKAGE, tree_of
from tl_toolkit import keras_private


@pytest.fixture
def branches():
    """A graph of three layers, one of which is called twice: (image, model, shared layer)."""
    image = keras.Input((8, 8, 3), name="image")
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    left = shared(image)
    right = shared(left)
    return image, keras.Model(image, keras.layers.Add(name="sum")([left, right])), shared


def test_a_tensor_knows_the_operation_that_made_it(branches):
    image, model, _ = branches

    assert keras_private.producer_of(model.output) is model.get_layer("sum")
    assert keras_private.producer_of(image).name == "image"
    assert keras_private.producer_of(image * 2.0).name.startswith("multiply")


def test_the_name_of_a_producer_can_be_changed():
    image = keras.Input((8, 8, 3))
    flipped = keras.ops.flip(image, axis=-1)

    keras_private.producer_of(flipped).name = "flipped"

    assert [op.name for op in keras.Model(image, flipped).operations][-1] == "flipped"


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("compiled", [False, True])
def test_outputs_know_what_went_into_their_softmax_or_sigmoid(activation, compiled):
    image = keras.Input((3,))
    model = keras.Model(image, keras.layers.Dense(2, activation=activation)(image))
    run = tf.function(lambda x: keras_private.logits_of(model(x)), autograph=False)
    values = np.ones((1, 3), np.float32)

    logits = run(values) if compiled else keras_private.logits_of(model(values))

    kernel, bias = model.layers[-1].get_weights()
    np.testing.assert_allclose(logits, values @ kernel + bias, rtol=1e-5)
    assert keras_private.logits_of(logits) is logits


def build_second_model(keep):
    first, second = keras.Input((4,), name="first"), keras.Input((2,), name="second")
    hidden = keras.layers.Dense(2)(first)
    output = keras.layers.Add()([hidden, second])
    model = keras.Model([first, second], output)
    with keep([first, second]):
        keras.Model([hidden, second], output)
    return model


def test_a_model_with_kept_input_calls_can_be_saved(tmp_path):
    model = build_second_model(keras_private.keep_input_calls)

    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = [np.ones((1, 4), "float32"), np.ones((1, 2), "float32")]
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_a_model_without_kept_input_calls_still_cannot_be_loaded(tmp_path):
    """Once it can be, `keep_input_calls` may go."""
    model = build_second_model(lambda tensors: contextlib.nullcontext())

    with pytest.raises(Exception, match=r"."):
        model.save(tmp_path / "model.keras")
        keras.saving.load_model(tmp_path / "model.keras")


def test_the_output_of_a_layer_that_forgot_its_calls_is_that_of_the_next(branches):
    image, model, shared = branches
    new_input = keras.Input((4, 4, 3))

    keras_private.forget_calls(shared)
    outputs = shared(new_input)

    assert shared.output is outputs
    assert len(keras_private.calls_of(shared)) == 1


def test_calls_lie_by_depth_and_read_from_greater_depths(branches):
    _, model, shared = branches
    shared(keras.Input((8, 8, 3)))  # a call of another graph, which is no call of this one

    by_depth = keras_private.calls_by_depth(model)

    names = {depth: [call.operation.name for call in calls] for depth, calls in by_depth.items()}
    assert names == {3: ["image"], 2: ["shared"], 1: ["shared"], 0: ["sum"]}
    depth_of = {id(x): depth for depth, calls in by_depth.items() for c in calls for x in c.outputs}
    for depth, calls in by_depth.items():
        assert all(depth_of[id(x)] > depth for call in calls for x in call.input_tensors)
        assert [call.is_input for call in calls] == [depth == 3]


def test_a_function_from_the_middle_of_a_graph_has_the_calls_in_between(branches):
    _, model, _ = branches
    (left, _) = keras_private.calls_by_depth(model)[0][0].input_tensors

    by_depth = keras_private.calls_by_depth(keras.Function(left, model.output))

    computed = [call.operation.name for calls in by_depth.values() for call in calls
                if not any(tensor is left for tensor in call.outputs)]  # fmt: skip
    assert sorted(computed) == ["shared", "sum"]


def test_the_calls_of_an_operation_are_all_of_them_and_the_last_is_the_newest(branches):
    image, _, shared = branches
    newest = shared(image)

    calls = keras_private.calls_of(shared)

    assert len(calls) == 3
    assert calls[0].input_tensors[0] is image
    assert calls[-1].outputs[0] is newest


def test_the_constants_of_a_call_are_what_is_no_tensor_of_the_graph():
    image = keras.Input((8, 8, 3))
    keras_private.producer_of(image)
    (scaled,) = keras_private.calls_of(keras_private.producer_of(image * 2.5))
    (clipped,) = keras_private.calls_of(keras_private.producer_of(keras.ops.clip(image, 1, 9)))

    assert keras_private.constants_of(scaled) == [2.5]
    assert keras_private.constants_of(clipped) == []  # its numbers belong to the operation


def test_nested_models_of_every_kind_have_an_inner_graph(branches):
    _, model, shared = branches
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="inside")])
    unbuilt = keras.Sequential([keras.layers.Dense(2)])

    assert keras_private.inner_graph(model) is model
    inner = keras_private.inner_graph(sequential)
    assert inner.operations[-1].name == "inside"
    assert inner.outputs[-1].shape == (None, 2)
    assert keras_private.inner_graph(shared) is None
    assert keras_private.inner_graph(unbuilt) is None


def test_a_graph_is_rebuilt_on_another_input_with_the_same_layers(branches):
    _, model, shared = branches
    image = keras.Input((8, 8, 3))
    called = []

    def call(layer, *args, **kwargs):
        called.append(layer.name)
        return layer(*args, **kwargs)

    rebuilt = keras.Model(image, keras_private.rebuild_graph(model, image, call))

    assert called == ["shared", "shared", "sum"]
    assert rebuilt.get_layer("shared") is shared
    pixels = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(rebuilt(pixels), model(pixels))


def test_layers_are_flattened_through_models_and_wrappers(branches):
    _, model, shared = branches
    image = keras.Input((5, 8, 8, 3))
    outer = keras.Model(image, keras.layers.TimeDistributed(model, name="each")(image))

    layers = keras_private.flatten_layers(outer)

    assert layers[0] is outer
    assert any(layer is shared for layer in layers)
    assert {"each", "sum"} <= {layer.name for layer in layers}
    assert keras_private.flatten_layers(shared) == [shared]


def test_the_counted_name_is_the_one_that_keras_numbers():
    for kind, arguments in (("Conv2D", (1, 1)), ("BatchNormalization", ()), ("ReLU", ())):
        _, second = (getattr(keras.layers, kind)(*arguments) for _ in range(2))

        counted = keras_private.counted_name(second)

        assert second.name.startswith(f"{counted}_")
        assert second.name.removeprefix(f"{counted}_").isdigit()


def test_rand_augment_has_its_layers_in_the_order_of_the_sampled_indices():
    layer = keras.layers.RandAugment((0, 255), num_ops=3, seed=1)
    transformation = layer.get_random_transformation(tf.zeros((1, 8, 8, 3)), training=True)

    layers = keras_private.rand_augment_layers(layer)

    assert len(layers) == 11
    assert list(layers) == list(transformation["transforms"])
    assert all(isinstance(part, keras.layers.Layer) for part in layers.values())
    assert set(np.array(transformation["layer_idxes"])) <= set(range(11))
    image = tf.random.stateless_uniform((1, 8, 8, 3), (1, 2), 0, 255)
    chosen = image
    for index in np.array(transformation["layer_idxes"]):
        name = list(layers)[index]
        chosen = layers[name].transform_images(chosen, transformation["transforms"][name])
    np.testing.assert_allclose(layer.transform_images(image, transformation), chosen, atol=1e-3)


def as_matrix(row):
    return np.append(np.array(row), 1.0).reshape(3, 3)


def test_a_zoom_keeps_the_centre_where_it_is():
    layer = keras.layers.RandomZoom(0.5)

    (row,) = keras_private.zoom_matrix(layer, tf.constant([[0.5, 2.0]]), 5, 9)

    np.testing.assert_allclose(as_matrix(row), [[0.5, 0, 2], [0, 2, -2], [0, 0, 1]])


def test_a_translation_is_subtracted_in_pixels():
    layer = keras.layers.RandomTranslation(0.5, 0.5)

    (row,) = keras_private.translation_matrix(layer, tf.constant([[3.0, -1.0]]))

    np.testing.assert_allclose(as_matrix(row), [[1, 0, -3], [0, 1, 1], [0, 0, 1]])


def test_a_shear_mixes_the_axes_around_the_corner():
    layer = keras.layers.RandomShear(0.5, 0.5)

    (row,) = keras_private.shear_matrix(layer, tf.constant([[0.25, 0.5]]))

    np.testing.assert_allclose(as_matrix(row), [[1, 0.25, 0], [0.5, 1, 0], [0, 0, 1]])


def test_folded_constants_do_not_follow_the_variables():
    weight = tf.Variable(2.0)
    traced = tf.function(lambda x: [x * weight, x + weight]).get_concrete_function(
        tf.TensorSpec([3], tf.float32)
    )

    folded = keras_private.fold_constants(traced)
    weight.assign(5.0)

    products, sums = folded(tf.constant([1.0, 2.0, 3.0]))
    assert products.numpy().tolist() == [2.0, 4.0, 6.0]
    assert sums.numpy().tolist() == [3.0, 4.0, 5.0]


def test_op_determinism_can_be_asked_for_and_taken_back():
    was_enabled = keras_private.is_op_determinism_enabled()
    try:
        tf.config.experimental.enable_op_determinism()
        enabled = keras_private.is_op_determinism_enabled()
        keras_private.disable_op_determinism()
        disabled = keras_private.is_op_determinism_enabled()
    finally:
        if was_enabled:
            tf.config.experimental.enable_op_determinism()

    assert (enabled, disabled) == (True, False)


def test_downloads_go_to_the_folder_that_keras_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", "elsewhere")
    (tmp_path / "source.txt").write_text("text")
    (tmp_path / "home").mkdir()

    keras_private.set_keras_home(str(tmp_path / "home"))
    path = keras.utils.get_file("copy.txt", (tmp_path / "source.txt").as_uri())

    assert path == str(tmp_path / "home" / "datasets" / "copy.txt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_oracle_gives_up_after_as_many_collisions_as_it_was_told(tmp_path):
    def count_trials(collisions):
        parameters = keras_tuner.HyperParameters()
        parameters.Choice("field", list(range(30)))
        oracle = keras_tuner.oracles.RandomSearchOracle(
            objective="val_loss", max_trials=30, hyperparameters=parameters, seed=1
        )
        oracle.verbose = 0
        keras_private.set_max_collisions(oracle, collisions)
        keras_private.set_oracle_folder(oracle, tmp_path / str(collisions))
        trials = [oracle.create_trial(f"worker {number}") for number in range(30)]
        return sum(trial.status == "RUNNING" for trial in trials)

    assert count_trials(0) < 30  # the first value that comes twice ends it
    assert count_trials(10_000) == 30


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_oracle_writes_into_its_folder_and_nowhere_else(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    parameters = keras_tuner.HyperParameters()
    parameters.Choice("field", [1, 2])
    oracle = keras_tuner.oracles.GridSearchOracle(
        objective="val_loss", hyperparameters=parameters, seed=1
    )
    keras_private.set_oracle_folder(oracle, tmp_path / "files")

    oracle.create_trial("one")

    assert list((tmp_path / "files" / "oracle").iterdir())
    assert not list((tmp_path / "here").iterdir())


# --------------------------------------------------------------------------------- nothing besides


@pytest.mark.parametrize("name", ["keras", "keras-tuner", "tensorflow"])
def test_the_installed_version_is_below_the_cap_that_these_tests_hold_for(name):
    settings = configparser.ConfigParser()
    settings.read(PACKAGE.parent / "setup.cfg")
    lines = settings["options"]["install_requires"].split()
    (cap,) = [line.partition(",<")[2] for line in lines if re.match(rf"{name}>=", line)]

    installed = metadata.version(name).split(".")

    assert [int(part) for part in installed[:2]] < [int(part) for part in cap.split(".")]


LIBRARIES = ("keras", "keras_tuner", "tensorflow")
OWN = {"self", "cls", "super()"}
NAMED_TUPLES = {"_replace", "_fields", "_asdict"}  # public, whatever their names look like
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "keras_private.py")

# Of what has none of these signs in its text, the tree need not be read: that takes seconds.
PERHAPS = re.compile(
    r"(?<!(?<![.\w])self)(?<!(?<![.\w])cls)\._[A-Za-z]|\bsrc\b|tensorflow\.python|import.*\b_[A-Za-z]|^\s*_\w+,?$",
    re.MULTILINE,
)


def private_attributes(tree):
    """Yields what is read of an object other than `self` under a private name of no class here."""
    nodes = list(ast.walk(tree))
    private = [node for node in nodes if isinstance(node, ast.Attribute)
               and node.attr.startswith("_") and not node.attr.endswith("__")]  # fmt: skip
    owners = [ast.unparse(node.value) for node in private]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)} | NAMED_TUPLES
    own |= {node.attr for node, owner in zip(private, owners, strict=True) if owner in OWN}
    for node, owner in zip(private, owners, strict=True):
        if owner not in OWN and node.attr not in own and ast.unparse(node) != "os._exit":
            yield ast.unparse(node)  # that function is public, whatever its name


def root_of(node):
    """Returns the name that a chain of attributes begins with, "" for another expression."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return getattr(node, "id", "")


def private_imports(tree):
    """Yields imports of private modules, or of private names, of another package."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and root_of(node) in LIBRARIES:
            names = [ast.unparse(node)]
        for name in names:
            parts = name.split(".")
            is_kept_apart = parts[0] in ("keras", "keras_tuner") and "src" in parts
            if is_kept_apart or name.startswith("tensorflow.python"):
                yield name
            elif any(part.startswith("_") and not part.endswith("__") for part in parts):
                if not isinstance(node, ast.Attribute):
                    yield name


def test_no_other_module_touches_private_parts():
    touched = {}
    for path in [path for path in MODULES if PERHAPS.search(path.read_text())]:
        tree = tree_of(path)
        if parts := [*private_attributes(tree), *private_imports(tree)]:
            touched[str(path.relative_to(PACKAGE))] = parts

    assert touched == {}


@pytest.mark.parametrize(
    "source",
    [
        "tensor._keras_history",
        "model._nodes_by_depth",
        "from tensorflow.python.framework import config",
        "import keras.src",
        "keras.src.utils.naming.to_snake_case",
        "from keras_tuner.src import utils",
        "from PIL import _imaging",
    ],
)
def test_a_private_part_is_noticed(source):
    tree = ast.parse(source)

    assert [*private_attributes(tree), *private_imports(tree)]
    assert PERHAPS.search(source)


def test_the_error_of_a_nested_layer_names_it_and_what_it_was_registered_as(tmp_path):
    @keras.saving.register_keras_serializable("contract")
    class Unknown(keras.layers.Layer):
        def call(self, x):
            return x

    inner = keras.Sequential([keras.Input((4,)), Unknown(name="inner")])
    keras.Sequential([keras.Input((4,)), inner]).save(tmp_path / "model.keras")
    del keras.saving.get_custom_objects()["contract>Unknown"]

    with pytest.raises(TypeError) as caught:
        keras.saving.load_model(tmp_path / "model.keras")

    cause, name = keras_private.explain_load(caught.value)
    assert cause.startswith("Could not locate class 'Unknown'") and name == "contract>Unknown"
    assert keras_private.explain_load(ValueError("bad\nrest")) == ("bad", "")


def test_a_layer_has_the_losses_that_its_call_added():
    class Adding(keras.layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.sum(x))
            return x

    layer = Adding()
    layer(np.ones((1, 4), np.float32))

    assert [float(loss) for loss in keras_private.losses_of(layer)] == [4.0]
    assert keras_private.losses_of(keras.layers.ReLU()) == []


@pytest.mark.slow
def test_collectives_can_be_ended_with_a_message():
    """In a process of its own: the error stays with TensorFlow's context."""
    code = (
        "import tensorflow as tf\n"
        "from tl_toolkit.keras_private import abort_collectives\n"
        "tf.constant(1.0)\n"
        "abort_collectives(tf.errors.UNAVAILABLE, 'gone')\n"
        "print('ended')\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.endswith("ended\n"), done.stderr
